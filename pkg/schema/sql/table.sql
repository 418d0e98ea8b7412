-- Everything pgshadow knows of one table, as one JSON document. $1 is the table's OID.
-- Run with search_path = '' so that every definition is deparsed fully qualified.
SELECT pg_catalog.jsonb_build_object(
  'oid', c.oid::bigint,
  'schema', n.nspname,
  'name', c.relname,
  'owner', pg_catalog.pg_get_userbyid(c.relowner),
  'comment', pg_catalog.obj_description(c.oid, 'pg_class'),
  'labels', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('provider', l.provider, 'text', l.label,
      'row_type', l.classoid = 'pg_catalog.pg_type'::regclass) ORDER BY l.classoid DESC, l.provider), '[]')
      FROM pg_catalog.pg_seclabel l WHERE l.objsubid = 0 AND (l.classoid = 'pg_catalog.pg_class'::regclass AND l.objoid = c.oid
        OR l.classoid = 'pg_catalog.pg_type'::regclass AND l.objoid = c.reltype)),
  'grants', (SELECT coalesce(pg_catalog.jsonb_agg(g ORDER BY n), '[]') FROM (
      SELECT pg_catalog.jsonb_build_object(
        'grantor', pg_catalog.pg_get_userbyid(x.grantor),
        'grantee', CASE WHEN x.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
        'privilege', x.privilege_type, 'grantable', x.is_grantable) AS g, x.n
      FROM pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) WITH ORDINALITY AS x(grantor, grantee, privilege_type, is_grantable, n)) s),
  'storage', pg_catalog.jsonb_build_object(
    'kind', c.relkind, 'persistence', c.relpersistence,
    'access_method', coalesce((SELECT amname FROM pg_catalog.pg_am WHERE oid = c.relam), ''),
    'tablespace', coalesce((SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = c.reltablespace), ''),
    'options', coalesce(pg_catalog.to_jsonb(c.reloptions), '[]'),
    'toast_options', coalesce((SELECT pg_catalog.to_jsonb(t.reloptions) FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid), '[]'),
    'replica_identity', c.relreplident),
  'leaf', CASE WHEN c.relispartition THEN '{}'::jsonb END, -- leaf.sql has the facts
  'columns', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'attnum', a.attnum, 'name', a.attname,
      'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
      'base_type', pg_catalog.format_type(a.atttypid, NULL),
      'type_oid', a.atttypid::bigint, 'typmod', a.atttypmod,
      'base_oid', (WITH RECURSIVE b(oid, base) AS (
          SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
          UNION ALL SELECT t.oid, t.typbasetype FROM b JOIN pg_catalog.pg_type t ON t.oid = b.base)
          SELECT b.oid::bigint FROM b WHERE b.base = 0),
      'collation', (SELECT CASE WHEN l.oid <> 'pg_catalog."default"'::regcollation THEN pg_catalog.format('%I.%I', ln.nspname, l.collname) ELSE '' END
          FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace WHERE l.oid = a.attcollation),
      -- From PostgreSQL 18 on rows from before a NOT NULL may hold NULL all the same, until it is validated.
      'not_null', a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
          WHERE k.conrelid = c.oid AND k.contype = 'n' AND NOT k.convalidated AND k.conkey = ARRAY[a.attnum]),
      'default', CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
      'expression', CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
      'identity', a.attidentity, 'generated', a.attgenerated,
      'details', pg_catalog.jsonb_build_object(
        'storage', a.attstorage, 'compression', a.attcompression,
        'statistics', coalesce(a.attstattarget::int, -1),
        'options', coalesce(pg_catalog.to_jsonb(a.attoptions), '[]'),
        'comment', pg_catalog.col_description(c.oid, a.attnum),
        'labels', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('provider', l.provider, 'text', l.label) ORDER BY l.provider), '[]')
          FROM pg_catalog.pg_seclabel l WHERE l.classoid = 'pg_catalog.pg_class'::regclass AND l.objoid = c.oid AND l.objsubid = a.attnum)),
      'grants', (SELECT coalesce(pg_catalog.jsonb_agg(g ORDER BY n), '[]') FROM (
          SELECT pg_catalog.jsonb_build_object(
            'grantor', pg_catalog.pg_get_userbyid(x.grantor),
            'grantee', CASE WHEN x.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
            'privilege', x.privilege_type, 'grantable', x.is_grantable) AS g, x.n
          FROM pg_catalog.aclexplode(a.attacl) WITH ORDINALITY AS x(grantor, grantee, privilege_type, is_grantable, n)) s)
      ) ORDER BY a.attnum), '[]')
    FROM pg_catalog.pg_attribute a
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'indexes', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'oid', i.indexrelid::bigint, 'name', ic.relname,
      'definition', (SELECT CASE WHEN pg_catalog.starts_with(t.def, t.head) THEN pg_catalog.substr(t.def, pg_catalog.length(t.head) + 1) END
          FROM (SELECT pg_catalog.pg_get_indexdef(i.indexrelid) AS def, pg_catalog.format('CREATE %sINDEX %I ON %I.%I ',
              CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, ic.relname, n.nspname, c.relname) AS head) t),
      'method', am.amname,
      'unique', i.indisunique, 'primary', i.indisprimary, 'immediate', i.indimmediate,
      'usable', i.indisvalid AND i.indisready AND i.indislive,
      'plain', i.indexprs IS NULL AND i.indpred IS NULL
          AND NOT EXISTS (SELECT FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) k
                          JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[k]
                          JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[k]
                          WHERE i.indoption[k] <> 0 OR NOT o.opcdefault OR i.indcollation[k] <> a.attcollation),
      'key', (SELECT pg_catalog.jsonb_agg(i.indkey[k] ORDER BY k) FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) k),
      'marks', pg_catalog.jsonb_build_object('clustered', i.indisclustered, 'replica_identity', i.indisreplident),
      'details', pg_catalog.jsonb_build_object(
        'tablespace', coalesce((SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = ic.reltablespace), ''),
        'comment', pg_catalog.obj_description(i.indexrelid, 'pg_class'),
        'options', coalesce(pg_catalog.to_jsonb(ic.reloptions), '[]'),
        'statistics', (SELECT coalesce(pg_catalog.jsonb_object_agg(a.attnum, a.attstattarget), '{}')
                       FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0))
      ) ORDER BY ic.relname), '[]')
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
    JOIN pg_catalog.pg_am am ON am.oid = ic.relam
    WHERE i.indrelid = c.oid),
  'constraints', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', k.conname, 'type', k.contype, 'definition', pg_catalog.pg_get_constraintdef(k.oid),
      'valid', k.convalidated, 'index_oid', k.conindid::bigint,
      'deferrable', k.condeferrable, 'deferred', k.condeferred,
      'comment', pg_catalog.obj_description(k.oid, 'pg_constraint')) ORDER BY k.conname), '[]')
    FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x', 'c', 'n')),
  'statistics', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'schema', sn.nspname, 'name', s.stxname, 'definition', (SELECT
          CASE WHEN pg_catalog.starts_with(t.def, t.head) AND pg_catalog.right(t.def, pg_catalog.length(t.tail)) = t.tail
               THEN pg_catalog.substr(t.def, pg_catalog.length(t.head) + 1, pg_catalog.length(t.def) - pg_catalog.length(t.head) - pg_catalog.length(t.tail)) END
          FROM (SELECT pg_catalog.pg_get_statisticsobjdef(s.oid) AS def, pg_catalog.format('CREATE STATISTICS %I.%I ', sn.nspname, s.stxname) AS head,
                pg_catalog.format(' FROM %I.%I', n.nspname, c.relname) AS tail) t),
      'target', coalesce(s.stxstattarget::int, -1),
      'comment', pg_catalog.obj_description(s.oid, 'pg_statistic_ext')) ORDER BY sn.nspname, s.stxname), '[]')
    FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.stxnamespace
    WHERE s.stxrelid = c.oid),
  'sequences', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'schema', qn.nspname, 'name', qc.relname, 'attnum', d.refobjsubid, 'identity', d.deptype = 'i',
      'type', pg_catalog.format_type(q.seqtypid, NULL), 'start', q.seqstart, 'increment', q.seqincrement,
      'max', q.seqmax, 'min', q.seqmin, 'cache', q.seqcache, 'cycle', q.seqcycle,
      'comment', pg_catalog.obj_description(qc.oid, 'pg_class'),
      'labels', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('provider', l.provider, 'text', l.label) ORDER BY l.provider), '[]')
          FROM pg_catalog.pg_seclabel l WHERE l.classoid = 'pg_catalog.pg_class'::regclass AND l.objoid = qc.oid AND l.objsubid = 0),
      'grants', (SELECT coalesce(pg_catalog.jsonb_agg(g ORDER BY n), '[]') FROM (
          SELECT pg_catalog.jsonb_build_object(
            'grantor', pg_catalog.pg_get_userbyid(x.grantor),
            'grantee', CASE WHEN x.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
            'privilege', x.privilege_type, 'grantable', x.is_grantable) AS g, x.n
          FROM pg_catalog.aclexplode(coalesce(qc.relacl, pg_catalog.acldefault('s', qc.relowner))) WITH ORDINALITY AS x(grantor, grantee, privilege_type, is_grantable, n)) s)
      ) ORDER BY qn.nspname, qc.relname), '[]')
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class qc ON qc.oid = d.objid AND qc.relkind = 'S'
    JOIN pg_catalog.pg_namespace qn ON qn.oid = qc.relnamespace
    JOIN pg_catalog.pg_sequence q ON q.seqrelid = qc.oid
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
      AND d.refobjid = c.oid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i'))
)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $1
