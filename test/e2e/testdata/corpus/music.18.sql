--session
SET ROLE {role}_owner; SET search_path = music, public;

--alter tour: ALTER COLUMN seats SET NOT NULL, ADD COLUMN days int GENERATED ALWAYS AS (upper(during) - lower(during)) VIRTUAL
CREATE TABLE tour (id int PRIMARY KEY, during daterange CONSTRAINT tour_has_dates NOT NULL, city text, seats int, CONSTRAINT seats_known CHECK (seats > 0) NOT ENFORCED, shown text GENERATED ALWAYS AS (city || '!') VIRTUAL);
INSERT INTO tour(id, during, city, seats) SELECT i, daterange('2024-01-01'::date + i, '2024-01-05'::date + i), 'City ' || i, i - 5 FROM generate_series(1, 20) i
