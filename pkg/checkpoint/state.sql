-- pgshadow's own state. Everything here can be dropped when no run is open.
CREATE SCHEMA IF NOT EXISTS pgshadow;
COMMENT ON SCHEMA pgshadow IS 'State of pgshadow runs. pgshadow cleanup lists and removes what they left.';
CREATE TABLE IF NOT EXISTS pgshadow.run (
  run_id      text PRIMARY KEY,
  table_oid   oid NOT NULL,
  table_title text NOT NULL,
  table_name  text NOT NULL,
  change      jsonb NOT NULL,
  phase       text NOT NULL,
  plan        jsonb,
  applied     pg_lsn,
  heal        boolean NOT NULL DEFAULT false, -- changes were missed: a full comparison is due
  host        text NOT NULL,
  pid         int NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  ended_at    timestamptz,
  outcome     text,
  detail      text
);
CREATE UNIQUE INDEX IF NOT EXISTS run_open ON pgshadow.run (table_oid) WHERE ended_at IS NULL;
CREATE TABLE IF NOT EXISTS pgshadow.chunk (
  chunk_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id   text NOT NULL REFERENCES pgshadow.run ON DELETE CASCADE,
  lo       text[],
  hi       text[],
  rows     bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS chunk_run ON pgshadow.chunk (run_id);
