--session
SET ROLE {role}_owner; SET search_path = social, public;

--alter device: ALTER COLUMN token TYPE varchar(80), ALTER COLUMN kind TYPE varchar(10)
CREATE TABLE device (member_id bigint REFERENCES member ON DELETE CASCADE, number int, token text, kind text, PRIMARY KEY (member_id, number), CONSTRAINT one_token UNIQUE NULLS NOT DISTINCT (member_id, token, kind));
INSERT INTO device SELECT 1000000 + i, i, 't' || i, 'phone' FROM generate_series(1, 30) i

--alter push: ALTER COLUMN number TYPE bigint, ALTER COLUMN sent TYPE timestamptz
CREATE TABLE push (id int PRIMARY KEY, member_id bigint NOT NULL, number int, sent timestamp, CONSTRAINT to_device FOREIGN KEY (member_id, number) REFERENCES device ON DELETE SET NULL (number));
INSERT INTO push SELECT i, 1000000 + i, i, '2024-01-01' FROM generate_series(1, 30) i

--view latest_push
CREATE VIEW latest_push WITH (security_invoker = true) AS SELECT d.member_id, d.token, p.sent FROM device d JOIN push p USING (member_id, number);
GRANT SELECT ON latest_push TO {role}_bot

RESET ROLE;
CREATE SCHEMA radio AUTHORIZATION {role}_owner;
CREATE PUBLICATION {role}_radio FOR TABLES IN SCHEMA radio;
CREATE PUBLICATION {role}_part FOR TABLE social.attachment (id, post_id);
ALTER PUBLICATION {role}_part OWNER TO {role}_owner

--attached session
RESET ROLE;
ALTER PUBLICATION {role}_part ADD TABLE social.session (id, member_id) WHERE (id <> 'x')

SET ROLE {role}_owner; SET search_path = radio, social, public

--alter radio.station: ALTER COLUMN id TYPE bigint, ALTER COLUMN name TYPE varchar(50)
CREATE TABLE radio.station (id int PRIMARY KEY, name text, owner_id bigint REFERENCES social.member);
INSERT INTO radio.station SELECT i, 'Station ' || i, 1000000 + i FROM generate_series(1, 20) i

--attached push
RESET ROLE;
ALTER PUBLICATION {role}_part ADD TABLE social.push (id, number) WHERE (id > 3)

--attached hashtag
RESET ROLE;
ALTER PUBLICATION {role}_part ADD TABLE social.hashtag WHERE (tag <> 'secret')
