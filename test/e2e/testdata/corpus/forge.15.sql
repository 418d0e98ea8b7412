--session
SET ROLE {role}_owner; SET search_path = forge, ci, public;

--alter board: ALTER COLUMN id TYPE bigint, ALTER COLUMN name TYPE varchar(60)
CREATE TABLE board (project_id bigint REFERENCES project, id int, name text, milestone_id int, CONSTRAINT board_key PRIMARY KEY (project_id, id), CONSTRAINT board_name UNIQUE NULLS NOT DISTINCT (project_id, name, milestone_id));
INSERT INTO board SELECT 5000 + i, i, 'Board' FROM generate_series(1, 30) i

--alter board_list: ALTER COLUMN board_id TYPE bigint, ALTER COLUMN position TYPE double precision
CREATE TABLE board_list (id int PRIMARY KEY, project_id bigint NOT NULL, board_id int, label_id int REFERENCES label, position real,
	CONSTRAINT list_of FOREIGN KEY (project_id, board_id) REFERENCES board ON UPDATE CASCADE ON DELETE SET NULL (board_id) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO board_list SELECT i, 5000 + i, i, 1 + i % 40, i FROM generate_series(1, 30) i

--view project_board
CREATE VIEW project_board WITH (security_invoker = true, check_option = local) AS SELECT project_id, id, name FROM board WHERE name <> '';
GRANT SELECT, UPDATE ON project_board TO {role}_admin

RESET ROLE;
CREATE PUBLICATION {role}_public FOR TABLE forge.package (id, name, project_id) WHERE (id > 5), forge.milestone (id, title);
ALTER PUBLICATION {role}_public OWNER TO {role}_owner

--attached label
RESET ROLE;
ALTER PUBLICATION {role}_public ADD TABLE forge.label (id, title, color)
