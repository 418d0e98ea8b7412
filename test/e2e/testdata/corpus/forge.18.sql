--session
SET ROLE {role}_owner; SET search_path = forge, ci, public;

--alter on_call: ALTER COLUMN team TYPE bigint, ALTER COLUMN phone TYPE varchar(30)
CREATE TABLE on_call (team int, during daterange, account_id bigint, phone text, CONSTRAINT on_call_key PRIMARY KEY (team, during WITHOUT OVERLAPS), id int NOT NULL UNIQUE);
ALTER TABLE on_call REPLICA IDENTITY USING INDEX on_call_id_key;
INSERT INTO on_call SELECT i % 3, daterange('2024-01-01'::date + i, '2024-01-02'::date + i), 1 + i, NULL, i FROM generate_series(1, 20) i;
ALTER TABLE on_call ADD CONSTRAINT phone_known NOT NULL phone NOT VALID
