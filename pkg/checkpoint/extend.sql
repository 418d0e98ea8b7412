-- Columns that state tables made by an earlier pgshadow lack. ACCESS EXCLUSIVE, within the session's lock_timeout; no row is
-- rewritten. Who began the runs that are there is not known: the role's default comes after its column.
ALTER TABLE pgshadow.run
  ADD COLUMN IF NOT EXISTS method      text NOT NULL DEFAULT 'shadow',
  ADD COLUMN IF NOT EXISTS role        text,
  ADD COLUMN IF NOT EXISTS fingerprint text,
  ADD COLUMN IF NOT EXISTS report      jsonb,
  ALTER COLUMN role SET DEFAULT session_user;
