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
  steering    jsonb NOT NULL DEFAULT '{}',    -- what the operator has asked for, and a resumed process keeps to
  progress    jsonb,                          -- how far the run was at updated_at
  server      text,                           -- system identifier and timeline of the slot's server
  result_oid  oid,                            -- the new table, once the swap is committed
  host        text NOT NULL,
  pid         int NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  ended_at    timestamptz,
  outcome     text,
  detail      text,
  -- What follows came later: extend.sql adds it to tables that lack it.
  method      text NOT NULL DEFAULT 'shadow', -- or native
  role        text DEFAULT session_user,      -- that began the run
  fingerprint text,                           -- of the table as it was planned for
  report      jsonb                           -- of the last process that said how it ended; under "earlier" those before it
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
CREATE TABLE IF NOT EXISTS pgshadow.command (
  command_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id      text NOT NULL REFERENCES pgshadow.run ON DELETE CASCADE,
  name        text NOT NULL,
  argument    text NOT NULL,
  issued_by   text NOT NULL DEFAULT session_user,
  issued_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  answered_at timestamptz,
  accepted    boolean,
  answer      text
);
CREATE INDEX IF NOT EXISTS command_open ON pgshadow.command (run_id) WHERE answered_at IS NULL;
