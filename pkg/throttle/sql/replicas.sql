-- The walsenders that serve a physical standby, or may serve one, and what it has reported. A walsender is logical
-- when it has acquired a logical slot. Before streaming begins ('startup') and under pg_basebackup ('backup') there
-- is no standby yet. To a role without pg_read_all_stats all but the name is NULL, state too; pgshadow's own
-- walsender that has no slot yet is then known by its name only.
SELECT r.application_name AS name,
       pg_catalog.host(r.client_addr) AS address,
       r.state IS NULL AS hidden,
       current_user::text AS viewer,
       r.write_lsn IS NOT NULL AS reported,
       r.replay_lsn::text AS replayed,
       (EXTRACT(epoch FROM r.replay_lag) * 1000000)::bigint AS lag_us
FROM pg_catalog.pg_stat_replication AS r
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots AS s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
  AND (r.state NOT IN ('startup', 'backup') OR (r.state IS NULL AND r.application_name NOT LIKE 'pgshadow %'))
ORDER BY r.application_name, r.pid
