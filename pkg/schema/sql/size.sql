-- Sizes and estimated rows of a table. $1 is its OID.
SELECT pg_catalog.pg_table_size(c.oid), pg_catalog.pg_indexes_size(c.oid),
       coalesce(pg_catalog.pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0), greatest(c.reltuples, 0)::bigint,
       -- As many rows as the pages hold, by the width of the columns' types (src/backend/optimizer/util/plancat.c reckons so too).
       (pg_catalog.pg_relation_size(c.oid) / (28 + (SELECT coalesce(pg_catalog.sum(CASE WHEN attlen > 0 THEN attlen ELSE 32 END), 0)
          FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)))::bigint
  FROM pg_catalog.pg_class c WHERE c.oid = $1
