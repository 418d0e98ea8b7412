--session
SET ROLE {role}_owner; SET search_path = music, public;

-- a partner's schema, which is published as a whole
CREATE SCHEMA partner

--alter partner.feed: ALTER COLUMN id TYPE bigint, ALTER COLUMN payload TYPE jsonb USING payload::jsonb
CREATE TABLE partner.feed (id int PRIMARY KEY, payload text NOT NULL);
INSERT INTO partner.feed SELECT i, '{"a": 1}' FROM generate_series(1, 20) i

--alter partner.seat: ALTER COLUMN number TYPE int, ADD COLUMN class text DEFAULT 'second'
CREATE TABLE partner.seat (hall int, number smallint, code text, CONSTRAINT seat_key PRIMARY KEY (hall, number), CONSTRAINT seat_code UNIQUE NULLS NOT DISTINCT (hall, code) DEFERRABLE);
INSERT INTO partner.seat SELECT i / 5, i % 5, 'c' || i FROM generate_series(1, 30) i

--alter partner.ticket: ALTER COLUMN price TYPE numeric(8, 3), ALTER COLUMN hall TYPE bigint
CREATE TABLE partner.ticket (id int PRIMARY KEY, hall int NOT NULL, number smallint, listener_id int, price numeric(8, 2),
	FOREIGN KEY (hall, number) REFERENCES partner.seat ON DELETE SET DEFAULT (number) ON UPDATE CASCADE, FOREIGN KEY (listener_id) REFERENCES listener ON DELETE SET NULL (listener_id));
INSERT INTO partner.ticket SELECT i, i / 5, i % 5, -1000 - i, 20 FROM generate_series(1, 30) i

--view partner.sold
CREATE VIEW partner.sold WITH (security_invoker = on) AS SELECT hall, count(*) AS tickets, sum(price) AS revenue FROM partner.ticket GROUP BY hall;
GRANT SELECT ON partner.sold TO {role}_analyst

RESET ROLE;
CREATE PUBLICATION {role}_partner FOR TABLES IN SCHEMA partner;
CREATE PUBLICATION {role}_people;
ALTER PUBLICATION {role}_people OWNER TO {role}_owner

--attached listener
RESET ROLE;
ALTER PUBLICATION {role}_people ADD TABLE music.listener (id, settings)

--attached genre
RESET ROLE;
ALTER PUBLICATION {role}_people ADD TABLE music.genre WHERE (name <> 'secret')
