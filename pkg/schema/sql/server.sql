-- What preflight needs to know of the server, the session and the table's owner. $1 is the table's OID.
SELECT pg_catalog.jsonb_build_object(
  'version', pg_catalog.current_setting('server_version_num')::int,
  'version_text', pg_catalog.current_setting('server_version'),
  'database', pg_catalog.current_database(),
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  'role', session_user,
  'superuser', r.rolsuper,
  'wal_level', pg_catalog.current_setting('wal_level'),
  'free_slots', pg_catalog.current_setting('max_replication_slots')::int
      - (SELECT count(*) FROM pg_catalog.pg_replication_slots),
  'free_senders', pg_catalog.current_setting('max_wal_senders')::int
      - (SELECT count(*) FROM pg_catalog.pg_stat_replication),
  'row_security', (SELECT pg_catalog.jsonb_build_object(
    'forced', c.relrowsecurity AND c.relforcerowsecurity,
    'owner_bypasses', o.rolsuper OR o.rolbypassrls,
    'role_bypasses', r.rolsuper OR r.rolbypassrls,
    'role_reads', pg_catalog.has_table_privilege(session_user, c.oid, 'SELECT'))
    FROM pg_catalog.pg_roles o WHERE o.oid = c.relowner),
  'rights', pg_catalog.jsonb_build_object(
    'replication', r.rolreplication OR r.rolsuper OR EXISTS (
        SELECT FROM pg_catalog.pg_roles x WHERE x.rolname IN ('rds_replication', 'azure_pg_admin')
           AND pg_catalog.pg_has_role(session_user, x.oid, 'MEMBER')),
    'create_on_database', pg_catalog.has_database_privilege(session_user, pg_catalog.current_database(), 'CREATE'),
    'member_of_owner', pg_catalog.pg_has_role(session_user, c.relowner, 'MEMBER'),
    -- From PostgreSQL 16 on a membership may come without the right to SET ROLE.
    'set_owner', pg_catalog.pg_has_role(session_user, c.relowner,
        CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END),
    -- or would, once it is a member
    'inherits_owner', pg_catalog.pg_has_role(session_user, c.relowner, 'USAGE')
        OR r.rolinherit AND NOT pg_catalog.pg_has_role(session_user, c.relowner, 'MEMBER'),
    'owner_create_on_database', pg_catalog.has_database_privilege(c.relowner, pg_catalog.current_database(), 'CREATE'),
    'owner_create_on_schema', pg_catalog.has_schema_privilege(c.relowner, c.relnamespace, 'CREATE'),
    'role_create_on_schema', pg_catalog.has_schema_privilege(session_user, c.relnamespace, 'CREATE'),
    'owner_lacks', (WITH RECURSIVE used(class, oid) AS (
        -- what the columns, defaults, checks, indexes and statistics of the table are made of
        SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
         WHERE (d.classid, d.objid) IN (SELECT 'pg_catalog.pg_class'::regclass, c.oid
           UNION ALL SELECT 'pg_catalog.pg_class'::regclass, i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid
           UNION ALL SELECT 'pg_catalog.pg_attrdef'::regclass, f.oid FROM pg_catalog.pg_attrdef f WHERE f.adrelid = c.oid
           UNION ALL SELECT 'pg_catalog.pg_constraint'::regclass, k.oid FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid
           UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::regclass, s.oid FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = c.oid)
        UNION SELECT used.class, x.oid FROM used JOIN pg_catalog.pg_type t ON used.class = 'pg_catalog.pg_type'::regclass AND t.oid = used.oid,
             LATERAL (VALUES (t.typbasetype), (t.typelem)) AS x(oid) WHERE x.oid <> 0),
      spaces(oid) AS (SELECT c.relnamespace
        UNION SELECT o.typnamespace FROM used JOIN pg_catalog.pg_type o ON class = 'pg_catalog.pg_type'::regclass AND o.oid = used.oid
        UNION SELECT o.pronamespace FROM used JOIN pg_catalog.pg_proc o ON class = 'pg_catalog.pg_proc'::regclass AND o.oid = used.oid
        UNION SELECT o.oprnamespace FROM used JOIN pg_catalog.pg_operator o ON class = 'pg_catalog.pg_operator'::regclass AND o.oid = used.oid
        UNION SELECT o.collnamespace FROM used JOIN pg_catalog.pg_collation o ON class = 'pg_catalog.pg_collation'::regclass AND o.oid = used.oid
        UNION SELECT o.opcnamespace FROM used JOIN pg_catalog.pg_opclass o ON class = 'pg_catalog.pg_opclass'::regclass AND o.oid = used.oid)
      SELECT coalesce(pg_catalog.jsonb_agg(lacking.right_on ORDER BY lacking.right_on), '[]') FROM (
        SELECT pg_catalog.format('USAGE ON SCHEMA %I', n.nspname) AS right_on
          FROM spaces JOIN pg_catalog.pg_namespace n USING (oid) WHERE NOT pg_catalog.has_schema_privilege(c.relowner, n.oid, 'USAGE')
        UNION ALL SELECT 'USAGE ON TYPE ' || t.oid::regtype FROM used JOIN pg_catalog.pg_type t ON class = 'pg_catalog.pg_type'::regclass AND t.oid = used.oid
         WHERE t.typelem = 0 AND NOT pg_catalog.has_type_privilege(c.relowner, t.oid, 'USAGE')
        UNION ALL SELECT 'EXECUTE ON FUNCTION ' || p.oid::regprocedure FROM used LEFT JOIN pg_catalog.pg_operator o
               ON class = 'pg_catalog.pg_operator'::regclass AND o.oid = used.oid
          JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode OR class = 'pg_catalog.pg_proc'::regclass AND p.oid = used.oid
         WHERE NOT pg_catalog.has_function_privilege(c.relowner, p.oid, 'EXECUTE')
        UNION ALL SELECT pg_catalog.format('CREATE ON TABLESPACE %I', s.spcname) FROM pg_catalog.pg_tablespace s
         WHERE s.oid IN (SELECT t.reltablespace FROM pg_catalog.pg_class t WHERE t.oid = c.oid OR t.oid IN (SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid))
           AND NOT pg_catalog.has_tablespace_privilege(c.relowner, s.oid, 'CREATE')
        UNION ALL SELECT pg_catalog.format('%s ON %I.%I', privilege, (SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = c.relnamespace), c.relname) FROM (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS needed(privilege)
         WHERE NOT pg_catalog.has_table_privilege(c.relowner, c.oid, privilege)) AS lacking)),
  'search_path', (WITH RECURSIVE types(oid) AS (
        SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        UNION SELECT x.oid FROM types JOIN pg_catalog.pg_type t ON t.oid = types.oid,
                     LATERAL (VALUES (t.typbasetype), (t.typelem)) AS x(oid) WHERE x.oid <> 0)
      SELECT coalesce(pg_catalog.jsonb_agg(DISTINCT n.nspname), '[]')
        FROM types JOIN pg_catalog.pg_type t ON t.oid = types.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
       WHERE n.nspname <> 'pg_catalog'))
FROM pg_catalog.pg_class c, pg_catalog.pg_roles r
WHERE c.oid = $1 AND r.rolname = session_user
