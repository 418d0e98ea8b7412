-- Constraints of tables and domains, a line each; from PostgreSQL 18 on NOT NULL is one. Not those that a foreign key
-- has for each partition of what it references: pg_dump leaves them out too, and before PostgreSQL 18 VALIDATE
-- CONSTRAINT leaves them marked as not valid.
SELECT pg_catalog.format('constraint %I on %s: %s', k.conname, CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text ELSE k.contypid::regtype::text END,
  pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
  'type', k.contype, 'definition', pg_catalog.pg_get_constraintdef(k.oid), 'valid', k.convalidated, 'enforced', pg_catalog.to_jsonb(k) -> 'conenforced',
  'period', pg_catalog.to_jsonb(k) -> 'conperiod', 'deferrable', k.condeferrable, 'deferred', k.condeferred, 'no_inherit', k.connoinherit AND k.contype IN ('c', 'n'),
  'local', k.conislocal, 'inherited', k.coninhcount, 'index', nullif(k.conindid, 0)::regclass,
  'parent', (SELECT p.conname FROM pg_catalog.pg_constraint p WHERE p.oid = k.conparentid))))
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace
WHERE n.nspname !~ '^(pg_|pgshadow|information_schema$)'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)
