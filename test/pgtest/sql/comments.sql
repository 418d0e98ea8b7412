-- Comments and security labels on anything that was not there from the start.
SELECT pg_catalog.format('comment on %s %s: %s', i.type, i.identity, pg_catalog.to_jsonb(d.description))
FROM pg_catalog.pg_description d, pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE (d.objoid >= 16384 OR d.classoid = 'pg_catalog.pg_namespace'::regclass) AND i.identity !~ '(^| on )"?pgshadow'
UNION ALL
SELECT pg_catalog.format('label of %s on %s %s: %s', l.provider, i.type, i.identity, l.label)
FROM pg_catalog.pg_seclabel l, pg_catalog.pg_identify_object(l.classoid, l.objoid, l.objsubid) i
WHERE i.identity !~ '(^| on )"?pgshadow'
