-- A social network: members, posts, messages, groups, moderation, advertisements. Names come from several languages.
CREATE EXTENSION pg_trgm SCHEMA public;
CREATE SCHEMA social AUTHORIZATION {role}_owner;
CREATE SCHEMA "Ads & Co" AUTHORIZATION {role}_owner;
GRANT {role}_ads, {role}_safety TO {role}_owner;
GRANT USAGE ON SCHEMA social TO PUBLIC;
GRANT USAGE, CREATE ON SCHEMA "Ads & Co", social TO {role}_ads, {role}_safety;
ALTER DEFAULT PRIVILEGES FOR ROLE {role}_owner IN SCHEMA social GRANT SELECT ON TABLES TO {role}_stats WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE {role}_owner GRANT INSERT ON TABLES TO {role}_safety;
ALTER DEFAULT PRIVILEGES FOR ROLE {role}_ads GRANT ALL ON TABLES TO {role}_owner

--session
SET ROLE {role}_owner; SET search_path = social, public;

CREATE TYPE audience AS ENUM ('self', 'friends', 'everybody');
CREATE TYPE place AS (latitude float8, longitude float8);
CREATE DOMAIN handle AS varchar(30) COLLATE "C" CHECK (VALUE ~ '^[a-z0-9_]+$');
CREATE DOMAIN short_text AS text DEFAULT '' CHECK (length(VALUE) < 500);
CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = social AS $$ BEGIN
	UPDATE counter SET value = value + 1 WHERE name = TG_ARGV[0]; RETURN NULL; END $$;
CREATE FUNCTION edited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.edited_at = now(); RETURN NEW; END $$;
CREATE FUNCTION batch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM count(*) FROM before_rows; PERFORM count(*) FROM after_rows; RETURN NULL; END $$;
CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '% is not allowed on %', TG_OP, TG_RELNAME; END $$;
CREATE FUNCTION viewer() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT nullif(current_setting('social.viewer', true), '')::bigint $$;
CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT lower($1) $$;
CREATE SEQUENCE message_number START 100 INCREMENT 2 MINVALUE 100 MAXVALUE 1000000 CYCLE

-- members
--refused member: foreign key before 18
--alter member: ALTER COLUMN born TYPE timestamp, ALTER COLUMN bio TYPE varchar(2000), ADD COLUMN pronouns short_text
--alter member: RENAME COLUMN handle TO username
CREATE TABLE member (
	id bigint GENERATED ALWAYS AS IDENTITY (START 1000000 CACHE 32) PRIMARY KEY,
	handle handle NOT NULL CONSTRAINT member_handle UNIQUE,
	name text COLLATE "und-x-icu" NOT NULL,
	born date, bio text,
	home place,
	referrer_id bigint REFERENCES member ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
	locked boolean NOT NULL DEFAULT false,
	edited_at timestamptz,
	handle_length int GENERATED ALWAYS AS (length(handle)) STORED,
	CONSTRAINT grown_up CHECK (born < '2015-01-01')
) WITH (fillfactor = 85, parallel_workers = 2, toast.vacuum_truncate = false);
ALTER TABLE member ALTER COLUMN bio SET STORAGE MAIN, ALTER COLUMN bio SET COMPRESSION pglz, ALTER COLUMN name SET STATISTICS 300, ALTER COLUMN home SET STATISTICS 0;
CREATE INDEX member_name ON member USING gist (name gist_trgm_ops (siglen = 32));
CREATE INDEX member_plain ON member (plain(handle) varchar_pattern_ops, (length(bio)) DESC) WHERE NOT locked;
CREATE STATISTICS member_stats (ndistinct, dependencies, mcv) ON born, locked, (length(name)) FROM member;
INSERT INTO member(handle, name, born, bio) SELECT 'm_' || i, 'Müller ' || i, '1980-01-01'::date + i, repeat('bla ', i) FROM generate_series(1, 60) i

UPDATE member SET referrer_id = id - 1 WHERE id % 2 = 1 AND id > 1000000

ALTER TABLE member ADD CONSTRAINT has_home CHECK (home IS NOT NULL) NOT VALID;
COMMENT ON CONSTRAINT has_home ON member IS 'asked for since 2022';
COMMENT ON TABLE member IS 'people – and bots';
COMMENT ON COLUMN member.handle IS '@…';
COMMENT ON STATISTICS member_stats IS 'much';
REVOKE SELECT ON member FROM {role}_stats;
GRANT SELECT (id, handle, name), UPDATE (bio) ON member TO {role}_stats, {role}_safety;
GRANT UPDATE (locked) ON member TO {role}_safety WITH GRANT OPTION;
GRANT REFERENCES (id) ON member TO {role}_safety

--attached member
CREATE TRIGGER edited BEFORE UPDATE OF name, bio, handle ON member FOR EACH ROW EXECUTE FUNCTION edited();
CREATE TRIGGER joined AFTER INSERT ON member FOR EACH ROW EXECUTE FUNCTION count_up('members');
CREATE TRIGGER batch AFTER UPDATE ON member REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION batch();
CREATE TRIGGER never BEFORE TRUNCATE ON member FOR EACH STATEMENT EXECUTE FUNCTION forbid();
ALTER TABLE member ENABLE ALWAYS TRIGGER never, DISABLE TRIGGER batch;
CREATE POLICY oneself ON member USING (id = viewer()) WITH CHECK (id = viewer() AND handle <> 'admin');
CREATE POLICY unlocked ON member AS RESTRICTIVE FOR SELECT USING (NOT locked OR born IS NULL);
CREATE POLICY safety ON member FOR ALL TO {role}_safety USING (true);
ALTER TABLE member ENABLE ROW LEVEL SECURITY

SET ROLE {role}_safety;
GRANT UPDATE (locked) ON social.member TO {role}_bot;
SET ROLE {role}_owner

--refused credential: row security
--alter credential: ALTER COLUMN attempts TYPE int, ALTER COLUMN hash TYPE bytea USING decode(hash, 'hex')
CREATE TABLE credential (member_id bigint PRIMARY KEY REFERENCES member ON DELETE CASCADE, hash text NOT NULL, attempts smallint NOT NULL DEFAULT 0, changed timestamptz);
INSERT INTO credential SELECT id, md5(id::text) FROM member;
REVOKE ALL ON credential FROM {role}_stats, {role}_safety;
ALTER TABLE credential ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY

--attached credential
CREATE POLICY nobody_else ON credential USING (member_id = viewer())

--alter session: ALTER COLUMN id TYPE varchar(64), ALTER COLUMN agent TYPE varchar(300), ALTER COLUMN seen TYPE timestamptz
CREATE TABLE session (id text PRIMARY KEY, member_id bigint NOT NULL REFERENCES member ON DELETE CASCADE, ip inet, seen timestamp, agent text) WITH (fillfactor = 50, autovacuum_vacuum_cost_delay = 0);
INSERT INTO session SELECT md5(i::text), 1000000 + i, '10.0.0.1', '2024-06-06 06:06:06' FROM generate_series(0, 39) i;
CREATE INDEX session_ip ON session USING gist (ip inet_ops)

--alter follow: ALTER COLUMN since TYPE timestamptz(0), ADD COLUMN muted boolean NOT NULL DEFAULT false
CREATE TABLE follow (follower_id bigint, followed_id bigint, since timestamptz NOT NULL DEFAULT '2021-01-01 01:02:03.456',
	PRIMARY KEY (follower_id, followed_id), CONSTRAINT follower FOREIGN KEY (follower_id) REFERENCES member ON DELETE CASCADE,
	CONSTRAINT followed FOREIGN KEY (followed_id) REFERENCES member ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE, CONSTRAINT others_only CHECK (follower_id <> followed_id));
INSERT INTO follow SELECT 1000000 + i, 1000000 + (i * 7 + 1) % 60 FROM generate_series(0, 59) i WHERE i <> (i * 7 + 1) % 60;
CREATE INDEX follow_back ON follow (followed_id, follower_id);
ALTER TABLE follow CLUSTER ON follow_back

--attached follow
CREATE TRIGGER followed AFTER INSERT OR DELETE ON follow FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION count_up('follows');
CREATE RULE follow_again AS ON UPDATE TO follow DO INSTEAD NOTHING

--alter block: RENAME COLUMN "until" TO expires
--alter block: ALTER COLUMN expires TYPE date, ALTER COLUMN reason SET DEFAULT 'none'
CREATE TABLE block (member_id bigint REFERENCES member ON DELETE CASCADE, blocked_id bigint REFERENCES member MATCH FULL ON DELETE CASCADE, "until" timestamp, reason text, PRIMARY KEY (member_id, blocked_id));
INSERT INTO block SELECT 1000000 + i, 1000000 + (i + 1) % 60, '2030-01-01 00:00', 'spam' FROM generate_series(0, 29) i

-- posts
--alter post: ALTER COLUMN edited_at TYPE timestamp, ALTER COLUMN likes TYPE bigint, DROP COLUMN legacy
CREATE TABLE post (
	id bigserial PRIMARY KEY,
	author_id bigint NOT NULL REFERENCES member ON DELETE CASCADE,
	parent_id bigint CONSTRAINT "reply to" REFERENCES post ON DELETE CASCADE DEFERRABLE,
	body short_text NOT NULL,
	audience audience NOT NULL,
	likes int NOT NULL DEFAULT 0 CHECK (likes >= 0),
	tags text[], legacy int, wrong text,
	posted_at timestamptz NOT NULL DEFAULT '2022-05-05',
	edited_at timestamptz,
	words tsvector GENERATED ALWAYS AS (to_tsvector('simple', body::text)) STORED
) WITH (autovacuum_vacuum_insert_threshold = 5000);
ALTER TABLE post DROP COLUMN wrong;
CREATE INDEX post_words ON post USING gin (words) WITH (gin_pending_list_limit = 128);
CREATE INDEX post_tags ON post USING gin (tags) WHERE tags IS NOT NULL;
CREATE INDEX post_time ON post USING brin (posted_at timestamptz_minmax_multi_ops (values_per_range = 16));
CREATE INDEX post_thread ON post (parent_id, id DESC) INCLUDE (author_id);
INSERT INTO post(author_id, body, audience, tags) SELECT 1000000 + i % 60, 'Post ' || i, (enum_range(NULL::audience))[1 + i % 3], ARRAY['t' || i % 5] FROM generate_series(1, 90) i;
COMMENT ON INDEX post_words IS 'Volltext';
COMMENT ON COLUMN post.audience IS 'who may read it'

--attached post
CREATE TRIGGER edited BEFORE UPDATE ON post FOR EACH ROW WHEN (OLD.body IS DISTINCT FROM NEW.body) EXECUTE FUNCTION edited();
CREATE TRIGGER posted AFTER INSERT ON post REFERENCING NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION count_up('posts');
CREATE CONSTRAINT TRIGGER liked AFTER UPDATE OF likes ON post DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.likes > 1000) EXECUTE FUNCTION count_up('famous');
COMMENT ON TRIGGER liked ON post IS 'a firework';
ALTER TABLE post ENABLE REPLICA TRIGGER posted;
CREATE POLICY everybody ON post FOR SELECT USING (audience = 'everybody');
CREATE POLICY authors ON post USING (author_id = viewer());
COMMENT ON POLICY authors ON post IS 'their own, all of it';
ALTER TABLE post ENABLE ROW LEVEL SECURITY

--alter "reaction 👍": ALTER COLUMN "émoji" TYPE varchar(8), ADD COLUMN "größe" int DEFAULT 1
CREATE TABLE "reaction 👍" (post_id bigint REFERENCES post ON DELETE CASCADE, member_id bigint REFERENCES member ON DELETE CASCADE, "émoji" text NOT NULL CONSTRAINT "émoji ist kurz" CHECK (length("émoji") < 9), PRIMARY KEY (post_id, member_id));
INSERT INTO "reaction 👍" SELECT i, 1000000 + i % 60, '👍' FROM generate_series(1, 60) i;
CREATE INDEX "réactions ""par"" émoji" ON "reaction 👍" ("émoji");
COMMENT ON TABLE "reaction 👍" IS 'ça ''alors'''

--alter attachment: ALTER COLUMN width TYPE int, ALTER COLUMN height TYPE int, ALTER COLUMN blob SET STORAGE EXTENDED, SET (toast.autovacuum_enabled = true)
CREATE TABLE attachment (id uuid PRIMARY KEY, post_id bigint REFERENCES post ON DELETE SET NULL, width smallint, height smallint, blob bytea, ratio numeric GENERATED ALWAYS AS (1.5) STORED) WITH (toast.autovacuum_enabled = false);
ALTER TABLE attachment ALTER COLUMN blob SET STORAGE EXTERNAL;
INSERT INTO attachment(id, post_id, width, height, blob) SELECT md5(i::text)::uuid, i, 100, i, decode(repeat('ab', i * 50), 'hex') FROM generate_series(1, 50) i

--alter hashtag: ALTER COLUMN tag TYPE varchar(100), ALTER COLUMN uses TYPE numeric(20)
CREATE TABLE hashtag (tag text NOT NULL, uses int NOT NULL DEFAULT 0, CONSTRAINT "#" UNIQUE (tag));
INSERT INTO hashtag SELECT 't' || i, i FROM generate_series(1, 40) i;
ALTER TABLE hashtag REPLICA IDENTITY USING INDEX "#"

--alter post_hashtag: ADD COLUMN position smallint, ALTER COLUMN tag TYPE varchar(100)
CREATE TABLE post_hashtag (post_id bigint REFERENCES post ON DELETE CASCADE, tag text REFERENCES hashtag (tag) ON UPDATE CASCADE, PRIMARY KEY (post_id, tag));
INSERT INTO post_hashtag SELECT i, 't' || 1 + i % 40 FROM generate_series(1, 60) i

--alter poll: ALTER COLUMN closes TYPE timestamptz, ALTER COLUMN question TYPE varchar(140)
CREATE TABLE poll (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, post_id bigint NOT NULL UNIQUE REFERENCES post ON DELETE CASCADE, question text, closes timestamp);
INSERT INTO poll(post_id, question, closes) SELECT i, 'Why?', '2024-10-27 02:30' FROM generate_series(1, 20) i

--alter poll_option: ALTER COLUMN poll_id TYPE bigint, ALTER COLUMN votes TYPE bigint
CREATE TABLE poll_option (poll_id int REFERENCES poll ON DELETE CASCADE, number smallint, text text NOT NULL, votes int NOT NULL DEFAULT 0, PRIMARY KEY (poll_id, number), CONSTRAINT option_text UNIQUE (poll_id, text) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO poll_option SELECT 1 + i % 20, i, 'Option ' || i, i FROM generate_series(1, 60) i

--alter vote: ALTER COLUMN number TYPE int, ALTER COLUMN at TYPE timestamptz(0), ALTER COLUMN poll_id TYPE bigint
CREATE TABLE vote (poll_id int, member_id bigint REFERENCES member ON DELETE CASCADE, number smallint, at timestamptz DEFAULT '2024-01-01', PRIMARY KEY (poll_id, member_id), CONSTRAINT voted FOREIGN KEY (poll_id, number) REFERENCES poll_option ON DELETE CASCADE);
INSERT INTO vote(poll_id, member_id, number) SELECT 1 + i % 20, 1000000 + i % 60, i FROM generate_series(1, 60) i

-- groups and messages
--alter circle: ALTER COLUMN id TYPE bigint, ALTER COLUMN title TYPE varchar(90)
--alter circle: RENAME COLUMN title TO name
CREATE TABLE circle (id serial PRIMARY KEY, owner_id bigint NOT NULL REFERENCES member, title text NOT NULL, open boolean NOT NULL DEFAULT true, CONSTRAINT circle_title EXCLUDE USING btree (plain(title) WITH =));
INSERT INTO circle(owner_id, title) SELECT 1000000 + i, 'Circle ' || i FROM generate_series(1, 25) i;
ALTER TABLE circle ENABLE ROW LEVEL SECURITY

--attached circle
CREATE POLICY open_ones ON circle FOR SELECT USING (open OR title LIKE 'Circle 1%');
CREATE TRIGGER named BEFORE UPDATE OF title ON circle FOR EACH ROW WHEN (NEW.title = '') EXECUTE FUNCTION forbid()

--alter circle_member: ALTER COLUMN rank TYPE int, ADD COLUMN since date DEFAULT '2024-01-01'
--alter circle_member: RENAME COLUMN member_id TO "who is in"
CREATE TABLE circle_member (circle_id int REFERENCES circle ON DELETE CASCADE, member_id bigint REFERENCES member ON DELETE CASCADE, rank smallint DEFAULT 0, PRIMARY KEY (circle_id, member_id));
INSERT INTO circle_member SELECT 1 + i % 25, 1000000 + i % 60, i FROM generate_series(0, 49) i

--alter circle_post: ALTER COLUMN circle_id TYPE bigint, ALTER COLUMN pinned SET NOT NULL
CREATE TABLE circle_post (circle_id int REFERENCES circle ON DELETE CASCADE, post_id bigint REFERENCES post ON DELETE CASCADE, pinned boolean DEFAULT false, PRIMARY KEY (circle_id, post_id));
INSERT INTO circle_post SELECT 1 + i % 25, i FROM generate_series(1, 50) i;
ALTER TABLE circle_post ENABLE ROW LEVEL SECURITY

--attached circle_post
CREATE POLICY members_only ON circle_post USING (circle_id IN (SELECT m.circle_id FROM circle_member m WHERE m.member_id = viewer()))

--refused message: table
--refused message_old: foreign key of the partitioned table
--alter message_old: SET (fillfactor = 100, autovacuum_enabled = false), ALTER COLUMN body SET STATISTICS 20
--refused message_new: foreign key of the partitioned table
--alter message_new: ADD CONSTRAINT body_known CHECK (body IS NOT NULL), ALTER COLUMN body SET COMPRESSION pglz
--refused message_rest: foreign key of the partitioned table
--alter message_rest: ALTER COLUMN sender_id SET (n_distinct = -0.1), CLUSTER ON message_rest_pkey
CREATE TABLE message (number bigint DEFAULT nextval('message_number'), sender_id bigint NOT NULL REFERENCES member, recipient_id bigint NOT NULL, body text, read boolean NOT NULL DEFAULT false, PRIMARY KEY (number)) PARTITION BY RANGE (number);
CREATE TABLE message_old PARTITION OF message FOR VALUES FROM (MINVALUE) TO (150);
CREATE TABLE message_new PARTITION OF message FOR VALUES FROM (150) TO (220);
CREATE TABLE message_rest PARTITION OF message DEFAULT;
ALTER TABLE message ADD CONSTRAINT recipient FOREIGN KEY (recipient_id) REFERENCES member ON DELETE CASCADE;
ALTER TABLE message ENABLE ROW LEVEL SECURITY;
CREATE INDEX message_unread ON message (recipient_id) WHERE NOT read;
COMMENT ON INDEX message_unread IS 'the red dot'

INSERT INTO message(sender_id, recipient_id, body) SELECT 1000000 + i % 60, 1000000 + (i + 1) % 60, 'Hi ' || i FROM generate_series(1, 80) i

CREATE TRIGGER sent AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION count_up('messages');
CREATE POLICY own_messages ON message_new USING (sender_id = viewer() OR recipient_id = viewer());
ALTER TABLE message_new ENABLE ROW LEVEL SECURITY;
COMMENT ON POLICY own_messages ON message_new IS 'when read directly'

--alter read_mark: ALTER COLUMN at TYPE timestamptz(3), ALTER COLUMN message_number TYPE int, ADD COLUMN device text
CREATE TABLE read_mark (member_id bigint PRIMARY KEY REFERENCES member ON DELETE CASCADE, message_number bigint REFERENCES message ON DELETE SET NULL, at timestamptz);
INSERT INTO read_mark SELECT 1000000 + i, 100 + 2 * i FROM generate_series(0, 39) i

--alter notification: ALTER COLUMN data TYPE jsonb USING data::jsonb, ALTER COLUMN read_at TYPE timestamptz(3)
CREATE TABLE notification (id bigint GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1 START -1) PRIMARY KEY, member_id bigint NOT NULL, data json NOT NULL DEFAULT '{}', read_at timestamptz);
INSERT INTO notification(member_id, data) SELECT 1000000 + i % 60, '{"post": 1}' FROM generate_series(1, 50) i;
ALTER TABLE notification ADD FOREIGN KEY (member_id) REFERENCES member NOT VALID;
ALTER TABLE notification REPLICA IDENTITY FULL

-- moderation
--alter report: ALTER COLUMN state TYPE varchar(20), ALTER COLUMN post_id TYPE numeric(20)
CREATE TABLE report (id int PRIMARY KEY, post_id bigint REFERENCES post ON DELETE SET NULL, reporter_id bigint REFERENCES member ON DELETE SET NULL, "order" int NOT NULL, state text DEFAULT 'new' CHECK (state IN ('new', 'done')));
INSERT INTO report SELECT i, i, 1000000 + i, i FROM generate_series(1, 30) i;
ALTER TABLE report DROP CONSTRAINT report_post_id_fkey;
ALTER TABLE report OWNER TO {role}_safety

SET ROLE {role}_safety;
GRANT SELECT, UPDATE ON social.report TO {role}_bot WITH GRANT OPTION;
GRANT SELECT ON social.report TO {role}_owner;
SET ROLE {role}_owner

--alter ban: ALTER COLUMN hours TYPE numeric(8, 2), ALTER COLUMN during TYPE text USING during::text
CREATE TABLE ban (member_id bigint, number smallint, hours smallint NOT NULL, during tsrange, PRIMARY KEY (member_id, number));
INSERT INTO ban SELECT 1000000 + i, 1, i, tsrange('2024-01-01', '2024-01-02') FROM generate_series(1, 20) i;
ALTER TABLE ban ADD CONSTRAINT banned FOREIGN KEY (member_id) REFERENCES member ON DELETE RESTRICT ON UPDATE RESTRICT DEFERRABLE INITIALLY IMMEDIATE;
CREATE RULE bans_stay AS ON DELETE TO ban DO INSTEAD NOTHING;
CREATE RULE bans_are_told AS ON INSERT TO ban DO ALSO NOTIFY bans;
ALTER TABLE ban ENABLE REPLICA RULE bans_are_told

--alter counter: ALTER COLUMN value TYPE numeric(20)
CREATE TABLE counter (name text COLLATE "C" PRIMARY KEY, value bigint NOT NULL DEFAULT 0);
INSERT INTO counter SELECT n, 0 FROM unnest(ARRAY['members', 'posts', 'follows', 'messages', 'famous']) n

-- advertisements
SET ROLE {role}_ads; SET search_path = "Ads & Co", social, public

--alter "Ads & Co"."Kunde": ALTER COLUMN "Rabatt %" TYPE numeric(6, 3)
--alter "Ads & Co"."Kunde": RENAME COLUMN "Straße" TO "Adresse"
CREATE TABLE "Ads & Co"."Kunde" ("Nr." serial PRIMARY KEY, "Straße" text, "Rabatt %" numeric(4, 1) DEFAULT 0, "user" name);
INSERT INTO "Ads & Co"."Kunde"("Straße") SELECT 'Gasse ' || i FROM generate_series(1, 20) i;
CREATE STATISTICS "Ads & Co"."Kunde: Straße" ON "Straße", "Rabatt %" FROM "Ads & Co"."Kunde"

--alter "Ads & Co"."Kampagne": ALTER COLUMN "Budget" TYPE numeric(16, 4), ALTER COLUMN "Kunde" TYPE bigint
CREATE TABLE "Ads & Co"."Kampagne" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Kunde" int NOT NULL CONSTRAINT "für Kunde" REFERENCES "Ads & Co"."Kunde" ON UPDATE CASCADE, "Budget" numeric(10, 2), "von/bis" daterange, EXCLUDE USING gist ("von/bis" WITH &&));
INSERT INTO "Ads & Co"."Kampagne"("Kunde", "Budget", "von/bis") SELECT 1 + i % 20, i, daterange('2024-01-01'::date + i, '2024-01-02'::date + i) FROM generate_series(1, 25) i;
GRANT SELECT ("Budget"), UPDATE ("Budget", "von/bis") ON "Ads & Co"."Kampagne" TO {role}_stats;
COMMENT ON CONSTRAINT "für Kunde" ON "Ads & Co"."Kampagne" IS 'wer zahlt'

--alter "Ads & Co".impression: ALTER COLUMN campaign_id TYPE bigint, ALTER COLUMN cost TYPE numeric(14, 8)
CREATE TABLE "Ads & Co".impression (id bigint PRIMARY KEY, campaign_id int REFERENCES "Ads & Co"."Kampagne", cost numeric(10, 6), at timestamptz);
INSERT INTO "Ads & Co".impression SELECT i, 1 + i % 25, i * 0.000123 FROM generate_series(1, 70) i;
ALTER TABLE "Ads & Co".impression ADD CONSTRAINT not_free CHECK (cost > 0.001) NOT VALID, ALTER COLUMN cost SET (n_distinct = 1000)

--session
SET ROLE {role}_owner; SET search_path = social, public;

--refused trend: function
CREATE TABLE trend (tag text PRIMARY KEY, score real);
INSERT INTO trend SELECT 't' || i, i FROM generate_series(1, 10) i;
CREATE FUNCTION best_trend() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT tag FROM trend ORDER BY score DESC LIMIT 1; END

--refused feed_cache: unlogged
CREATE UNLOGGED TABLE feed_cache (member_id bigint PRIMARY KEY, posts bigint[]);
INSERT INTO feed_cache SELECT 1000000 + i, ARRAY[i] FROM generate_series(1, 10) i

--refused visit: materialized view
CREATE TABLE visit (id bigint PRIMARY KEY, member_id bigint, page text);
INSERT INTO visit SELECT i, 1000000 + i, 'p' || i % 3 FROM generate_series(1, 20) i;
CREATE VIEW visit_page AS SELECT page, member_id FROM visit;
CREATE MATERIALIZED VIEW page_count AS SELECT page, count(*) FROM visit_page GROUP BY page WITH NO DATA

-- views
--view timeline
CREATE VIEW timeline WITH (security_barrier = true) AS SELECT p.id, p.body, p.audience, p.likes, m.handle, m.name FROM post p JOIN member m ON m.id = p.author_id WHERE NOT m.locked;
GRANT SELECT ON timeline TO {role}_stats, {role}_bot;
COMMENT ON VIEW timeline IS 'the main page';
COMMENT ON COLUMN timeline.likes IS 'Gefällt mir'

--view top_post
CREATE VIEW top_post AS SELECT id, body, likes FROM timeline ORDER BY likes DESC LIMIT 10

--view "Top 3"
CREATE VIEW "Top 3" AS SELECT * FROM top_post LIMIT 3;
ALTER VIEW "Top 3" OWNER TO {role}_safety;
GRANT SELECT ON "Top 3" TO PUBLIC

--view profile
CREATE VIEW profile AS SELECT id, handle, name, bio, born FROM member WHERE NOT locked WITH LOCAL CHECK OPTION;
ALTER VIEW profile ALTER COLUMN name SET DEFAULT 'hello';
CREATE TRIGGER no_delete INSTEAD OF DELETE ON profile FOR EACH ROW EXECUTE FUNCTION forbid();
CREATE TRIGGER no_insert INSTEAD OF INSERT ON profile FOR EACH ROW EXECUTE FUNCTION forbid();
COMMENT ON TRIGGER no_delete ON profile IS 'ask first'

--view mutual
CREATE VIEW mutual AS SELECT a.follower_id, a.followed_id, a.since FROM follow a JOIN follow b ON (b.follower_id, b.followed_id) = (a.followed_id, a.follower_id);
CREATE RULE unfollow AS ON DELETE TO mutual DO INSTEAD DELETE FROM follow WHERE (follower_id, followed_id) = (old.follower_id, old.followed_id)

--view circle_size
CREATE VIEW circle_size AS SELECT c.id, c.title, count(v.post_id) AS posts FROM circle c LEFT JOIN circle_post v ON v.circle_id = c.id GROUP BY c.id;
GRANT SELECT (title) ON circle_size TO {role}_bot

--view inbox
CREATE VIEW inbox AS SELECT number, sender_id, body FROM message WHERE NOT read AND recipient_id = viewer()

--view "Ads & Co"."Kosten"
CREATE VIEW "Ads & Co"."Kosten" AS SELECT k.id, k."Budget", sum(i.cost) AS "Σ" FROM "Ads & Co"."Kampagne" k LEFT JOIN "Ads & Co".impression i ON i.campaign_id = k.id GROUP BY k.id;
ALTER VIEW "Ads & Co"."Kosten" OWNER TO {role}_ads

--view open_report
CREATE VIEW open_report AS SELECT id, post_id, state FROM report WHERE state = 'new';
ALTER VIEW open_report OWNER TO {role}_safety

RESET ROLE;
CREATE PUBLICATION {role}_search FOR TABLE social.post, social.member, social.hashtag, social.message WITH (publish_via_partition_root = true);
CREATE PUBLICATION {role}_warehouse FOR TABLE "Ads & Co".impression, "Ads & Co"."Kampagne", social.follow, social.vote;
ALTER PUBLICATION {role}_search OWNER TO {role}_owner;
ALTER PUBLICATION {role}_warehouse OWNER TO {role}_owner;
COMMENT ON PUBLICATION {role}_warehouse IS 'nightly'
