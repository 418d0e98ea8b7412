-- What hangs on a table and is carried over to its shadow, as one JSON document. $1 is the table's OID.
-- Run with search_path = '' so that every definition is deparsed fully qualified.
WITH RECURSIVE
-- Views of the table and views of those. depth puts each behind all that it is made of.
dependent(oid, depth) AS (
  SELECT $1::oid, 0
  UNION
  SELECT r.ev_class, d.depth + 1
    FROM dependent d
    JOIN pg_catalog.pg_depend p ON p.refclassid = 'pg_catalog.pg_class'::regclass AND p.refobjid = d.oid
     AND p.classid = 'pg_catalog.pg_rewrite'::regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = p.objid AND r.rulename = '_RETURN' AND r.ev_class <> d.oid
    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
    JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace AND n.nspname !~ '^pgshadow_[a-z0-9]{10}_source$' -- a run's own
),
relations(oid, depth) AS MATERIALIZED (SELECT oid, max(depth) FROM dependent GROUP BY oid),
triggers(relation, list) AS (
  SELECT t.tgrelid, pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', t.tgname, 'definition', pg_catalog.pg_get_triggerdef(t.oid), 'enabled', t.tgenabled,
      'comment', pg_catalog.obj_description(t.oid, 'pg_trigger')) ORDER BY t.tgname)
    FROM pg_catalog.pg_trigger t
   WHERE t.tgrelid IN (SELECT oid FROM relations) AND NOT t.tgisinternal AND t.tgparentid = 0 GROUP BY 1
),
-- What policies and rules of other tables may speak of, and would go on speaking of when it is the retired table's: the
-- table and its views, their row types, and the table's identity sequences.
spoken(classid, oid, namespace) AS (
  SELECT 'pg_catalog.pg_class'::regclass, c.oid, c.relnamespace FROM relations JOIN pg_catalog.pg_class c USING (oid)
  UNION ALL
  SELECT 'pg_catalog.pg_type'::regclass, x.oid, t.typnamespace
    FROM relations JOIN pg_catalog.pg_type t ON t.typrelid = relations.oid, LATERAL (VALUES (t.oid), (t.typarray)) AS x(oid)
  UNION ALL
  SELECT s.classid, s.objid, (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = s.objid) FROM pg_catalog.pg_depend s
   WHERE s.classid = 'pg_catalog.pg_class'::regclass AND s.refclassid = 'pg_catalog.pg_class'::regclass AND s.refobjid = $1
     AND s.refobjsubid > 0 AND s.deptype = 'i'
),
speaking(relation, classid, oid, namespace) AS MATERIALIZED (
  SELECT p.polrelid, d.classid, p.oid, s.namespace
    FROM spoken s JOIN pg_catalog.pg_depend d ON d.refclassid = s.classid AND d.refobjid = s.oid AND d.classid = 'pg_catalog.pg_policy'::regclass
    JOIN pg_catalog.pg_policy p ON p.oid = d.objid AND p.polrelid <> $1
  UNION
  SELECT r.ev_class, d.classid, r.oid, s.namespace
    FROM spoken s JOIN pg_catalog.pg_depend d ON d.refclassid = s.classid AND d.refobjid = s.oid AND d.classid = 'pg_catalog.pg_rewrite'::regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.rulename <> '_RETURN' AND r.ev_class NOT IN (SELECT oid FROM relations)
),
rules(relation, list) AS (
  SELECT r.ev_class, pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', r.rulename, 'definition', pg_catalog.pg_get_ruledef(r.oid), 'enabled', r.ev_enabled,
      'comment', pg_catalog.obj_description(r.oid, 'pg_rewrite')) ORDER BY r.rulename)
    FROM pg_catalog.pg_rewrite r
   WHERE (r.ev_class IN (SELECT oid FROM relations) OR r.oid IN (SELECT oid FROM speaking WHERE classid = 'pg_catalog.pg_rewrite'::regclass))
     AND r.rulename <> '_RETURN' GROUP BY 1
),
policies(relation, list) AS (
  SELECT p.polrelid, pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', p.polname, 'permissive', p.polpermissive, 'command', p.polcmd,
      'roles', (SELECT pg_catalog.jsonb_agg(CASE WHEN r = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(r) END ORDER BY n) FROM pg_catalog.unnest(p.polroles) WITH ORDINALITY AS u(r, n)),
      'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
      'comment', pg_catalog.obj_description(p.oid, 'pg_policy')) ORDER BY p.polname)
    FROM pg_catalog.pg_policy p
   WHERE p.polrelid = $1 OR p.oid IN (SELECT oid FROM speaking WHERE classid = 'pg_catalog.pg_policy'::regclass) GROUP BY 1
),
keys AS (
  SELECT k.conrelid, k.confrelid, pg_catalog.jsonb_build_object(
      'name', k.conname, 'definition', pg_catalog.pg_get_constraintdef(k.oid), 'valid', k.convalidated,
      'enforced', coalesce((pg_catalog.to_jsonb(k)->>'conenforced')::boolean, true),
      'comment', pg_catalog.obj_description(k.oid, 'pg_constraint'),
      'table', pg_catalog.jsonb_build_object('oid', o.oid::bigint, 'schema', n.nspname, 'name', o.relname, 'kind', o.relkind,
                                             'owner', pg_catalog.pg_get_userbyid(o.relowner))) AS fact,
      n.nspname, o.relname, k.conname
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class o ON o.oid = CASE WHEN k.conrelid = $1 THEN k.confrelid ELSE k.conrelid END -- the other table
    JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
   WHERE k.contype = 'f' AND k.conparentid = 0 AND $1 IN (k.conrelid, k.confrelid)
)
SELECT pg_catalog.jsonb_build_object(
  'row_security', c.relrowsecurity, 'forced', c.relforcerowsecurity,
  'triggers', coalesce((SELECT list FROM triggers WHERE relation = c.oid), '[]'),
  'rules', coalesce((SELECT list FROM rules WHERE relation = c.oid), '[]'),
  'policies', coalesce((SELECT list FROM policies WHERE relation = c.oid), '[]'),
  'others', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'table', pg_catalog.jsonb_build_object('oid', o.oid::bigint, 'schema', n.nspname, 'name', o.relname, 'kind', o.relkind,
                                             'owner', pg_catalog.pg_get_userbyid(o.relowner)),
      'schemas', (SELECT pg_catalog.jsonb_agg(DISTINCT sn.nspname) FROM speaking s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.namespace WHERE s.relation = o.oid),
      'policies', coalesce((SELECT list FROM policies WHERE relation = o.oid), '[]'),
      'rules', coalesce((SELECT list FROM rules WHERE relation = o.oid), '[]')) ORDER BY n.nspname, o.relname), '[]')
    FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
     AND n.nspname !~ '^pgshadow_[a-z0-9]{10}_retired$' -- that of another run speaks of tables as they were
    WHERE o.oid IN (SELECT relation FROM speaking)),
  'references', (SELECT coalesce(pg_catalog.jsonb_agg(fact ORDER BY conname), '[]') FROM keys WHERE conrelid = c.oid),
  'referenced_by', (SELECT coalesce(pg_catalog.jsonb_agg(fact ORDER BY nspname, relname, conname), '[]') FROM keys WHERE conrelid <> c.oid),
  'views', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'oid', v.oid::bigint, 'schema', n.nspname, 'name', v.relname, 'owner', pg_catalog.pg_get_userbyid(v.relowner),
      'stored', CASE WHEN v.relkind = 'm' THEN pg_catalog.jsonb_build_object(
        'populated', v.relispopulated,
        'access_method', (SELECT amname FROM pg_catalog.pg_am WHERE oid = v.relam),
        'tablespace', coalesce((SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = v.reltablespace), ''),
        'toast_options', coalesce((SELECT pg_catalog.to_jsonb(t.reloptions) FROM pg_catalog.pg_class t WHERE t.oid = v.reltoastrelid), '[]'),
        'indexes', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'schema', n.nspname, 'name', x.relname, 'definition', pg_catalog.pg_get_indexdef(x.oid), 'clustered', i.indisclustered,
            'tablespace', coalesce((SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = x.reltablespace), ''),
            'comment', pg_catalog.obj_description(x.oid, 'pg_class'),
            'statistics', (SELECT coalesce(pg_catalog.jsonb_object_agg(a.attnum, a.attstattarget), '{}')
                           FROM pg_catalog.pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0)) ORDER BY x.relname), '[]')
          FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = v.oid)) END,
      'schemas', (SELECT coalesce(pg_catalog.jsonb_agg(DISTINCT bn.nspname), '[]') FROM pg_catalog.pg_rewrite r
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
        JOIN relations b ON b.oid = d.refobjid AND b.oid <> v.oid JOIN pg_catalog.pg_class bc ON bc.oid = b.oid JOIN pg_catalog.pg_namespace bn ON bn.oid = bc.relnamespace
        WHERE r.ev_class = v.oid),
      'definition', pg_catalog.pg_get_viewdef(v.oid), 'options', coalesce(pg_catalog.to_jsonb(v.reloptions), '[]'),
      'comment', pg_catalog.obj_description(v.oid, 'pg_class'),
      'labels', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('provider', l.provider, 'text', l.label,
          'row_type', l.classoid = 'pg_catalog.pg_type'::regclass) ORDER BY l.classoid DESC, l.provider), '[]')
          FROM pg_catalog.pg_seclabel l WHERE l.objsubid = 0 AND (l.classoid = 'pg_catalog.pg_class'::regclass AND l.objoid = v.oid
            OR l.classoid = 'pg_catalog.pg_type'::regclass AND l.objoid = v.reltype)),
      'granted', v.relacl IS NOT NULL OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = v.oid AND a.attacl IS NOT NULL),
      'default_grantees', (SELECT coalesce(pg_catalog.jsonb_agg(DISTINCT CASE WHEN x.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(x.grantee) END), '[]')
        FROM pg_catalog.pg_default_acl f, pg_catalog.aclexplode(f.defaclacl) x
        WHERE f.defaclrole = v.relowner AND f.defaclobjtype = 'r' AND f.defaclnamespace IN (0, v.relnamespace)),
      'grants', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'grantor', pg_catalog.pg_get_userbyid(x.grantor),
          'grantee', CASE WHEN x.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
          'privilege', x.privilege_type, 'grantable', x.is_grantable) ORDER BY x.n), '[]')
        FROM pg_catalog.aclexplode(coalesce(v.relacl, pg_catalog.acldefault('r', v.relowner))) WITH ORDINALITY AS x(grantor, grantee, privilege_type, is_grantable, n)),
      'columns', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'name', a.attname,
          'statistics', coalesce(a.attstattarget::int, -1), 'options', coalesce(pg_catalog.to_jsonb(a.attoptions), '[]'), 'compression', a.attcompression,
          'storage', CASE WHEN v.relkind = 'm' AND a.attstorage <> (SELECT t.typstorage FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid) THEN a.attstorage::text ELSE '' END,
          'default', pg_catalog.pg_get_expr(f.adbin, f.adrelid),
          'comment', pg_catalog.col_description(v.oid, a.attnum),
          'labels', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('provider', l.provider, 'text', l.label) ORDER BY l.provider), '[]')
            FROM pg_catalog.pg_seclabel l WHERE l.classoid = 'pg_catalog.pg_class'::regclass AND l.objoid = v.oid AND l.objsubid = a.attnum),
          'grants', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
              'grantor', pg_catalog.pg_get_userbyid(x.grantor),
              'grantee', CASE WHEN x.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
              'privilege', x.privilege_type, 'grantable', x.is_grantable) ORDER BY x.n), '[]')
            FROM pg_catalog.aclexplode(a.attacl) WITH ORDINALITY AS x(grantor, grantee, privilege_type, is_grantable, n))) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a
        LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
        WHERE a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped),
      'triggers', coalesce((SELECT list FROM triggers WHERE relation = v.oid), '[]'),
      'rules', coalesce((SELECT list FROM rules WHERE relation = v.oid), '[]')
      ) ORDER BY d.depth, n.nspname, v.relname), '[]')
    FROM relations d
    JOIN pg_catalog.pg_class v ON v.oid = d.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
    WHERE d.depth > 0),
  'publications', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', p.pubname, 'owner', pg_catalog.pg_get_userbyid(p.pubowner),
      'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = c.oid AND pg_catalog.to_jsonb(r)->'prattrs' @> pg_catalog.to_jsonb(a.attnum)),
      -- Only the view knows how to spell it on every version; it lists the whole publication.
      'filter', CASE WHEN pg_catalog.to_jsonb(r)->>'prqual' IS NOT NULL THEN (SELECT pg_catalog.to_jsonb(t)->>'rowfilter'
          FROM pg_catalog.pg_publication_tables t JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
         WHERE t.pubname = p.pubname AND n.oid = c.relnamespace AND t.tablename = c.relname) END) ORDER BY p.pubname), '[]')
    FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
    WHERE r.prrelid = c.oid AND NOT pg_catalog.starts_with(p.pubname, 'pgshadow'))
)
FROM pg_catalog.pg_class c WHERE c.oid = $1
