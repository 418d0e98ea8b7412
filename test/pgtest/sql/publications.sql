-- Publications and the tables in them, with columns and row filters where the server has them, a line each.
SELECT pg_catalog.format('publication %I: %s', p.pubname, pg_catalog.to_jsonb(p) - 'oid' - 'pubowner' || pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(p.pubowner)))
FROM pg_catalog.pg_publication p
UNION ALL
SELECT pg_catalog.format('publication %I, table %I.%I: %s', t.pubname, t.schemaname, t.tablename, pg_catalog.jsonb_strip_nulls(pg_catalog.to_jsonb(t) - 'pubname' - 'schemaname' - 'tablename'))
FROM pg_catalog.pg_publication_tables t WHERE t.schemaname !~ '^pgshadow'
UNION ALL
SELECT pg_catalog.format('publication %I, by name: %s', p.pubname, r.prrelid::regclass)
FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
