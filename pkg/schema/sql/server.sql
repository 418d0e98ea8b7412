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
  'rights', pg_catalog.jsonb_build_object(
    'replication', r.rolreplication OR r.rolsuper OR EXISTS (
        SELECT FROM pg_catalog.pg_roles x WHERE x.rolname IN ('rds_replication', 'azure_pg_admin')
           AND pg_catalog.pg_has_role(session_user, x.oid, 'MEMBER')),
    'create_on_database', pg_catalog.has_database_privilege(session_user, pg_catalog.current_database(), 'CREATE'),
    'member_of_owner', pg_catalog.pg_has_role(session_user, c.relowner, 'MEMBER'),
    -- From PostgreSQL 16 on a membership may come without the right to SET ROLE.
    'set_owner', pg_catalog.pg_has_role(session_user, c.relowner,
        CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END),
    'inherit_owner', pg_catalog.pg_has_role(session_user, c.relowner, 'USAGE'),
    'owner_create_on_schema', pg_catalog.has_schema_privilege(c.relowner, c.relnamespace, 'CREATE'),
    'role_create_on_schema', pg_catalog.has_schema_privilege(session_user, c.relnamespace, 'CREATE')),
  'search_path', (WITH RECURSIVE types(oid) AS (
        SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        UNION SELECT x.oid FROM types JOIN pg_catalog.pg_type t ON t.oid = types.oid,
                     LATERAL (VALUES (t.typbasetype), (t.typelem)) AS x(oid) WHERE x.oid <> 0)
      SELECT coalesce(pg_catalog.jsonb_agg(DISTINCT n.nspname), '[]')
        FROM types JOIN pg_catalog.pg_type t ON t.oid = types.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
       WHERE n.nspname <> 'pg_catalog'))
FROM pg_catalog.pg_class c, pg_catalog.pg_roles r
WHERE c.oid = $1 AND r.rolname = session_user
