-- Tables, views, sequences and composite types, a line each.
SELECT pg_catalog.format('relation %I.%I: %s', n.nspname, c.relname, pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
  'kind', c.relkind, 'persistence', c.relpersistence, 'owner', pg_catalog.pg_get_userbyid(c.relowner),
  'access_method', (SELECT amname FROM pg_catalog.pg_am WHERE oid = c.relam),
  'tablespace', (SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = c.reltablespace),
  'options', (SELECT pg_catalog.jsonb_agg(o ORDER BY o) FROM pg_catalog.unnest(c.reloptions) o),
  'toast_options', (SELECT pg_catalog.jsonb_agg(o ORDER BY o) FROM pg_catalog.pg_class t, pg_catalog.unnest(t.reloptions) o WHERE t.oid = c.reltoastrelid),
  'replica_identity', c.relreplident, 'row_security', c.relrowsecurity, 'forced_row_security', c.relforcerowsecurity,
  'of', CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END,
  'partition_key', pg_catalog.pg_get_partkeydef(c.oid), 'partition_bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
  'parents', (SELECT pg_catalog.jsonb_agg(h.inhparent::regclass ORDER BY h.inhseqno) FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid),
  'view', CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END, 'populated', c.relispopulated,
  'sequence', (SELECT pg_catalog.jsonb_build_object('type', pg_catalog.format_type(s.seqtypid, NULL), 'start', s.seqstart, 'increment', s.seqincrement,
      'max', s.seqmax, 'min', s.seqmin, 'cache', s.seqcache, 'cycle', s.seqcycle) FROM pg_catalog.pg_sequence s WHERE s.seqrelid = c.oid),
  'owned_by', (SELECT pg_catalog.format('%s %s.%I', CASE d.deptype WHEN 'i' THEN 'identity of' ELSE 'column' END, d.refobjid::regclass, a.attname)
      FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
      WHERE c.relkind = 'S' AND d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
        AND d.deptype IN ('a', 'i')))))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND n.nspname !~ '^(pg_|pgshadow|information_schema$)'
