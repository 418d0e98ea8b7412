--session
SET ROLE {role}_owner; SET search_path = rental, public;

--alter device: ALTER COLUMN serial TYPE varchar(40), ALTER COLUMN branch_id TYPE bigint
CREATE TABLE device (
	branch_id int NOT NULL,
	number smallint NOT NULL,
	serial text,
	mac macaddr,
	PRIMARY KEY (branch_id, number),
	CONSTRAINT device_serial UNIQUE NULLS NOT DISTINCT (serial, mac)
);
INSERT INTO device SELECT 1 + i % 12, i, 's' || i, NULL FROM generate_series(1, 24) i

--alter device_log: ALTER COLUMN id TYPE bigint, ALTER COLUMN at TYPE timestamptz
CREATE TABLE device_log (
	id int PRIMARY KEY,
	branch_id int NOT NULL, number smallint,
	at timestamp NOT NULL,
	FOREIGN KEY (branch_id, number) REFERENCES device ON DELETE SET NULL (number)
);
INSERT INTO device_log SELECT i, 1 + i % 12, i, '2024-01-01' FROM generate_series(1, 24) i

--view device_state
CREATE VIEW device_state WITH (security_invoker = true, security_barrier = false) AS SELECT d.branch_id, d.number, d.serial, max(l.at) AS seen FROM device d LEFT JOIN device_log l USING (branch_id, number) GROUP BY 1, 2, 3;
GRANT SELECT ON device_state TO {role}_clerk

RESET ROLE;
CREATE PUBLICATION {role}_devices FOR TABLE rental.city (id, name) WHERE (id < 50);
ALTER PUBLICATION {role}_devices OWNER TO {role}_owner

--attached country
RESET ROLE;
ALTER PUBLICATION {role}_devices ADD TABLE rental.country WHERE (id > 50)

--attached device_log
RESET ROLE;
ALTER PUBLICATION {role}_devices ADD TABLE rental.device_log (id, branch_id, at) WHERE (id > 0)
