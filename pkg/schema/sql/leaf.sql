-- What ties a leaf partition to its parent, as one JSON document. $1 is the leaf's OID. It takes no lock on either: the
-- partition constraint, whose deparsing would, follows from what is here.
-- Run with search_path = '' so that every expression is deparsed fully qualified.
WITH chain AS MATERIALIZED (
  SELECT c.oid, c.relname, n.nspname, c.relkind, c.relowner, a.level, h.inhparent, coalesce(pg_catalog.pg_get_expr(c.relpartbound, c.oid), '') AS bound
    FROM pg_catalog.pg_partition_ancestors($1) WITH ORDINALITY AS a(oid, level)
    JOIN pg_catalog.pg_class c ON c.oid = a.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = c.oid
)
SELECT pg_catalog.jsonb_build_object(
  'bound', leaf.bound,
  'ancestors', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'table', pg_catalog.jsonb_build_object('oid', oid::bigint, 'schema', nspname, 'name', relname, 'kind', relkind, 'owner', pg_catalog.pg_get_userbyid(relowner)),
      'key', pg_catalog.pg_get_partkeydef(oid), 'bound', bound) ORDER BY level) FROM chain WHERE level > 1),
  -- The rows of a default partition are those that no other takes.
  'siblings', (SELECT coalesce(pg_catalog.jsonb_agg(b ORDER BY b), '[]') FROM (
      SELECT pg_catalog.pg_get_expr(s.relpartbound, s.oid) AS b
        FROM chain JOIN pg_catalog.pg_inherits h ON h.inhparent = chain.inhparent AND h.inhrelid <> chain.oid
        JOIN pg_catalog.pg_class s ON s.oid = h.inhrelid WHERE chain.bound = 'DEFAULT') x),
  'beside', (SELECT pg_catalog.jsonb_build_object(
      'table', pg_catalog.jsonb_build_object('oid', d.oid::bigint, 'schema', n.nspname, 'name', d.relname, 'kind', d.relkind, 'owner', pg_catalog.pg_get_userbyid(d.relowner)),
      'checks', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.pg_get_constraintdef(k.oid) ORDER BY k.conname), '[]')
                   FROM pg_catalog.pg_constraint k WHERE k.conrelid = d.oid AND k.contype = 'c' AND k.convalidated),
      'not_null', (SELECT coalesce(pg_catalog.jsonb_agg(a.attname ORDER BY a.attname), '[]')
                     FROM pg_catalog.pg_attribute a WHERE a.attrelid = d.oid AND a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped))
      FROM pg_catalog.pg_partitioned_table p JOIN pg_catalog.pg_class d ON d.oid = p.partdefid JOIN pg_catalog.pg_namespace n ON n.oid = d.relnamespace
     WHERE p.partrelid = leaf.inhparent AND d.oid <> leaf.oid),
  'indexes', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', pc.relname, 'leaf', coalesce(own.relname, '')) ORDER BY pc.relname), '[]')
      FROM pg_catalog.pg_index p
      JOIN pg_catalog.pg_class pc ON pc.oid = p.indexrelid
      LEFT JOIN (SELECT h.inhparent, c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_inherits h ON h.inhrelid = i.indexrelid
                   JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1) own ON own.inhparent = p.indexrelid
     WHERE p.indrelid = leaf.inhparent),
  'constraints', (SELECT coalesce(pg_catalog.jsonb_agg(k.conname ORDER BY k.conname), '[]')
      FROM pg_catalog.pg_constraint k WHERE k.conrelid = $1 AND k.coninhcount > 0 AND k.contype IN ('c', 'n')),
  'triggers', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', t.tgname, 'enabled', t.tgenabled, 'parent', p.tgname, 'parent_enabled', p.tgenabled,
      'comment', pg_catalog.obj_description(t.oid, 'pg_trigger')) ORDER BY t.tgname), '[]')
      FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_trigger p ON p.oid = t.tgparentid
     WHERE t.tgrelid = $1 AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't'))
)
FROM chain leaf WHERE leaf.level = 1
