-- Objects that are no part of a table: schemas, functions, types, extensions and event triggers, a line each.
SELECT pg_catalog.format('schema %I: owner %s', n.nspname, pg_catalog.pg_get_userbyid(n.nspowner))
FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^(pg_|pgshadow|information_schema$)'
UNION ALL
SELECT pg_catalog.format('function %s: %s', p.oid::regprocedure, pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(p.proowner),
  'definition', CASE WHEN p.prokind = 'a' THEN (SELECT pg_catalog.format('aggregate of %s and %s from %s', g.aggtransfn, g.aggfinalfn, g.agginitval)
      FROM pg_catalog.pg_aggregate g WHERE g.aggfnoid = p.oid) ELSE pg_catalog.pg_get_functiondef(p.oid) END))
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname !~ '^(pg_|pgshadow|information_schema$)'
UNION ALL
SELECT pg_catalog.format('type %s: %s', t.oid::regtype, pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('kind', t.typtype, 'owner', pg_catalog.pg_get_userbyid(t.typowner),
  'base', CASE WHEN t.typbasetype <> 0 THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END, 'not_null', t.typnotnull, 'default', t.typdefault,
  'collation', nullif(t.typcollation, 0)::regcollation,
  'labels', (SELECT pg_catalog.jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
  'range_of', (SELECT r.rngsubtype::regtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid))))
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.typrelid = 0 AND t.typelem = 0 AND n.nspname !~ '^(pg_|pgshadow|information_schema$)'
UNION ALL
SELECT pg_catalog.format('extension %I: version %s in %s', e.extname, e.extversion, e.extnamespace::regnamespace) FROM pg_catalog.pg_extension e
UNION ALL
SELECT pg_catalog.format('event trigger %I: %s', t.evtname, pg_catalog.jsonb_build_object('event', t.evtevent, 'owner', pg_catalog.pg_get_userbyid(t.evtowner),
  'function', t.evtfoid::regprocedure, 'enabled', t.evtenabled, 'tags', t.evttags))
FROM pg_catalog.pg_event_trigger t
