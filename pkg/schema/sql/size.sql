-- Size and estimated rows of a table. $1 is its OID.
SELECT pg_catalog.pg_table_size(c.oid), pg_catalog.pg_indexes_size(c.oid),
       greatest(c.reltuples, 0)::bigint
  FROM pg_catalog.pg_class c WHERE c.oid = $1
