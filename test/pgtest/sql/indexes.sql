-- Indexes, a line each.
SELECT pg_catalog.format('index %I.%I: %s', n.nspname, c.relname, pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
  'definition', pg_catalog.pg_get_indexdef(i.indexrelid), 'primary', i.indisprimary, 'exclusion', i.indisexclusion, 'immediate', i.indimmediate,
  'valid', i.indisvalid AND i.indisready AND i.indislive, 'clustered', i.indisclustered, 'replica_identity', i.indisreplident,
  'owner', pg_catalog.pg_get_userbyid(c.relowner),
  'tablespace', (SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = c.reltablespace),
  'statistics', (SELECT pg_catalog.jsonb_object_agg(a.attnum, a.attstattarget) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attstattarget >= 0),
  'parent', (SELECT h.inhparent::regclass FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid))))
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^(pg_|pgshadow|information_schema$)'
