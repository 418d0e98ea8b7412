-- What hangs on a table, or on a view of it, and keeps it from being replaced. $1 is the table's OID.
-- One row an object: the name of the check, and the object as a DBA would name it.
WITH RECURSIVE relations(oid) AS (
  -- the table, its views, and the views of those
  SELECT $1::oid
  UNION
  SELECT r.ev_class
    FROM relations d
    JOIN pg_catalog.pg_depend p ON p.refclassid = 'pg_catalog.pg_class'::regclass AND p.refobjid = d.oid
     AND p.classid = 'pg_catalog.pg_rewrite'::regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = p.objid AND r.rulename = '_RETURN'
    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
    JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace AND n.nspname !~ '^pgshadow_[a-z0-9]{10}_source$' -- a run's own
)
SELECT 'materialized view' AS check_name, v.oid::regclass::text AS object
  FROM relations JOIN pg_catalog.pg_class v USING (oid) WHERE v.relkind = 'm'
UNION ALL
-- NOT VALID, without which the swap would read every row, comes to partitioned tables with PostgreSQL 18.
SELECT 'foreign key', pg_catalog.format('%I on %s, which is partitioned', k.conname, k.conrelid::regclass)
  FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid AND c.relkind = 'p'
 WHERE k.contype = 'f' AND k.confrelid = $1 AND k.conparentid = 0 AND pg_catalog.current_setting('server_version_num')::int < 180000
UNION ALL
-- Their state is a superuser's to set, and the constraint would be enforced again.
SELECT DISTINCT 'disabled constraint trigger', pg_catalog.format('of %I on %s', k.conname, k.conrelid::regclass)
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
 WHERE t.tgisinternal AND t.tgenabled <> 'O' AND k.contype IN ('f', 'p', 'u', 'x') AND $1 IN (k.conrelid, k.confrelid)
UNION ALL
SELECT 'inheritance', CASE WHEN h.inhrelid = $1 THEN h.inhparent::regclass::text ELSE h.inhrelid::regclass::text END
  FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = $1
 WHERE $1 IN (h.inhrelid, h.inhparent) AND (h.inhparent = $1 OR NOT c.relispartition)
UNION ALL
SELECT 'partition being detached', h.inhparent::regclass::text FROM pg_catalog.pg_inherits h WHERE h.inhrelid = $1 AND h.inhdetachpending
UNION ALL
-- ATTACH PARTITION validates those of the parent by reading every row, and DETACH PARTITION looks for rows that refer to the leaf's.
SELECT 'foreign key of the partitioned table', pg_catalog.format('%I on %s', k.conname, k.conrelid::regclass)
  FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid <> $1 AND k.conrelid IN (SELECT pg_catalog.pg_partition_ancestors($1))
UNION ALL
SELECT 'foreign key to the partitioned table', pg_catalog.format('%I on %s', k.conname, k.conrelid::regclass)
  FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid <> $1 AND k.confrelid IN (SELECT pg_catalog.pg_partition_ancestors($1))
UNION ALL
SELECT 'renamed trigger', pg_catalog.format('%I, which is %I on %s', t.tgname, p.tgname, p.tgrelid::regclass)
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_trigger p ON p.oid = t.tgparentid
 WHERE t.tgrelid = $1 AND t.tgname <> p.tgname AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')
UNION ALL
SELECT 'typed table', pg_catalog.format_type(c.reloftype, NULL)
  FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.reloftype <> 0
UNION ALL
-- It has the copy too. Who gets it is not known but by a slot that could send it: pgshadow's own send what is pgshadow's.
SELECT 'publication', pg_catalog.format('%I (FOR ALL TABLES), which slot %I may send', p.pubname, s.slot_name)
  FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_replication_slots s ON s.database = pg_catalog.current_database() AND s.plugin = 'pgoutput'
 WHERE p.puballtables AND NOT pg_catalog.starts_with(s.slot_name::text, 'pgshadow')
UNION ALL
-- Whatever else of other tables depends on the table, its views, its indexes or its identity sequences. Before PostgreSQL 15 a
-- generated column depends on the columns of its expression, later its default does.
SELECT 'dependent object', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
  FROM pg_catalog.pg_depend d
 WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('n', 'a')
   AND d.refobjid IN (SELECT oid FROM relations UNION ALL SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = $1
       UNION ALL SELECT s.objid FROM pg_catalog.pg_depend s WHERE s.classid = 'pg_catalog.pg_class'::regclass
                  AND s.refclassid = 'pg_catalog.pg_class'::regclass AND s.refobjid = $1 AND s.refobjsubid > 0 AND s.deptype = 'i')
   AND CASE d.classid
         -- Only the session that they belong to can get at temporary tables and views.
         WHEN 'pg_catalog.pg_policy'::regclass THEN EXISTS (SELECT FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid WHERE p.oid = d.objid AND c.relpersistence = 't')
         WHEN 'pg_catalog.pg_rewrite'::regclass THEN EXISTS (SELECT FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname !~ '^pgshadow_[a-z0-9]{10}_source$'
              WHERE r.oid = d.objid AND (c.relpersistence = 't' OR r.rulename = '_RETURN' AND r.ev_class NOT IN (SELECT oid FROM relations)))
         WHEN 'pg_catalog.pg_trigger'::regclass THEN NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.oid = d.objid AND (t.tgrelid IN (SELECT oid FROM relations) OR t.tgisinternal))
         WHEN 'pg_catalog.pg_attrdef'::regclass THEN NOT EXISTS (SELECT FROM pg_catalog.pg_attrdef f WHERE f.oid = d.objid AND f.adrelid IN (SELECT oid FROM relations))
         WHEN 'pg_catalog.pg_constraint'::regclass THEN NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = d.objid AND (k.conrelid = $1 OR k.contype = 'f'))
         WHEN 'pg_catalog.pg_class'::regclass THEN d.objid <> $1 AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid AND c.relkind IN ('i', 'S', 't')) AND
              NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = d.objid)
         ELSE d.classid NOT IN ('pg_catalog.pg_proc'::regclass,
              'pg_catalog.pg_publication_rel'::regclass, 'pg_catalog.pg_statistic_ext'::regclass, 'pg_catalog.pg_type'::regclass)
       END
UNION ALL
SELECT 'extension member', e.extname::text
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid IN (SELECT oid FROM relations) AND d.deptype = 'e'
   AND d.refclassid = 'pg_catalog.pg_extension'::regclass
UNION ALL
SELECT 'row type user', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
  FROM relations
  JOIN pg_catalog.pg_class c USING (oid)
  JOIN pg_catalog.pg_type t ON t.oid = c.reltype
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray)
 WHERE d.deptype NOT IN ('i', 'p')
   AND d.classid <> 'pg_catalog.pg_policy'::regclass
   AND NOT (d.classid = 'pg_catalog.pg_rewrite'::regclass AND EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.oid = d.objid AND (r.rulename <> '_RETURN' OR r.ev_class IN (SELECT oid FROM relations))))
UNION ALL
SELECT 'function', pg_catalog.format('%s', d.objid::regprocedure)
  FROM pg_catalog.pg_depend d
 WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid IN (SELECT oid FROM relations)
UNION ALL
-- Those of the relations, their columns and their row types are facts of theirs, and set again.
SELECT 'security label', pg_catalog.format('of %I on type %s', l.provider, l.objoid::regtype)
  FROM relations
  JOIN pg_catalog.pg_class c USING (oid)
  JOIN pg_catalog.pg_type t ON t.oid = c.reltype
  JOIN pg_catalog.pg_seclabel l ON l.classoid = 'pg_catalog.pg_type'::regclass AND l.objoid = t.typarray
UNION ALL
SELECT 'statistics of another role', pg_catalog.format('%I.%I (of %I)', n.nspname, s.stxname, pg_catalog.pg_get_userbyid(s.stxowner))
  FROM pg_catalog.pg_statistic_ext s
  JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
  JOIN pg_catalog.pg_class c ON c.oid = s.stxrelid
 WHERE c.oid = $1 AND s.stxowner <> c.relowner
UNION ALL
-- Of a materialized view nothing is made again but what attached.sql reads.
SELECT 'dependent object', pg_catalog.format('statistics object %I.%I on %s', s.stxnamespace::regnamespace, s.stxname, s.stxrelid::regclass)
  FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid IN (SELECT oid FROM relations) AND s.stxrelid <> $1
UNION ALL
SELECT 'subscription', s.subname::text
  FROM pg_catalog.pg_subscription_rel r JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid
 WHERE r.srrelid = $1 AND pg_catalog.has_column_privilege('pg_catalog.pg_subscription', 'subname', 'SELECT')
ORDER BY 1, 2
