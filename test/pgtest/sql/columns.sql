-- Columns of tables and views, a line each, numbered as they come: dropped ones leave no gap.
SELECT pg_catalog.format('column %I.%I %s %I: %s', n.nspname, c.relname, pg_catalog.row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), a.attname,
  pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
  'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
  'collation', (SELECT l.oid::regcollation FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation AND l.oid <> t.typcollation),
  'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid), 'identity', a.attidentity, 'generated', a.attgenerated, 'not_null', a.attnotnull,
  'storage', a.attstorage, 'compression', a.attcompression,
  'statistics', CASE WHEN (pg_catalog.to_jsonb(a) ->> 'attstattarget')::int >= 0 THEN pg_catalog.to_jsonb(a) -> 'attstattarget' END,
  'options', (SELECT pg_catalog.jsonb_agg(o ORDER BY o) FROM pg_catalog.unnest(a.attoptions) o),
  'fdw_options', (SELECT pg_catalog.jsonb_agg(o ORDER BY o) FROM pg_catalog.unnest(a.attfdwoptions) o),
  'local', a.attislocal, 'inherited', a.attinhcount)))
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND n.nspname !~ '^(pg_|pgshadow|information_schema$)'
