-- Privileges, a line each. A list that is not there is what the owner has by default.
SELECT pg_catalog.format('grant on %s: %s to %s by %s%s', o.name, x.privilege_type,
    CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(x.grantee) END, pg_catalog.pg_get_userbyid(x.grantor),
    CASE WHEN x.is_grantable THEN ', with grant option' ELSE '' END)
FROM (
  SELECT c.relnamespace AS namespace, pg_catalog.format('relation %s', c.oid::regclass) AS name,
         coalesce(c.relacl, pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
    FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  UNION ALL
  SELECT c.relnamespace, pg_catalog.format('column %s.%I', c.oid::regclass, a.attname), a.attacl
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE NOT a.attisdropped
  UNION ALL
  SELECT p.pronamespace, pg_catalog.format('function %s', p.oid::regprocedure), coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) FROM pg_catalog.pg_proc p
  UNION ALL
  SELECT t.typnamespace, pg_catalog.format('type %s', t.oid::regtype), coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner)) FROM pg_catalog.pg_type t WHERE t.typrelid = 0 AND t.typelem = 0
  UNION ALL
  SELECT s.oid, pg_catalog.format('schema %I', s.nspname), coalesce(s.nspacl, pg_catalog.acldefault('n', s.nspowner)) FROM pg_catalog.pg_namespace s
) o JOIN pg_catalog.pg_namespace n ON n.oid = o.namespace, pg_catalog.aclexplode(o.acl) x
WHERE n.nspname !~ '^(pg_|pgshadow|information_schema$)'
UNION ALL
SELECT pg_catalog.format('default grant of %s in %s on kind %s: %s to %s%s', pg_catalog.pg_get_userbyid(f.defaclrole), nullif(f.defaclnamespace, 0)::regnamespace, f.defaclobjtype,
    x.privilege_type, CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(x.grantee) END, CASE WHEN x.is_grantable THEN ', with grant option' ELSE '' END)
FROM pg_catalog.pg_default_acl f, pg_catalog.aclexplode(f.defaclacl) x
