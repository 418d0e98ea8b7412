-- Client sessions of the whole server but pgshadow's own: how many are active, how many hide their state from this
-- role, and how many do not report one. Where a session is hidden its backend_type is NULL, but not its database and
-- role, which of the other processes only some background workers have.
SELECT pg_catalog.count(*) FILTER (WHERE a.backend_type = 'client backend' AND a.state = 'active') AS active,
       pg_catalog.count(*) FILTER (WHERE a.backend_type IS NULL AND a.datid IS NOT NULL AND a.usesysid IS NOT NULL) AS hidden,
       pg_catalog.count(*) FILTER (WHERE a.backend_type = 'client backend' AND a.state = 'disabled') AS disabled,
       current_user::text AS viewer
FROM pg_catalog.pg_stat_activity AS a
WHERE a.application_name NOT LIKE 'pgshadow%'
