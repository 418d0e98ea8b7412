package migration

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// TestEveryObstacleHasARemedy: those that the catalog query can name.
func TestEveryObstacleHasARemedy(t *testing.T) {
	sql, err := os.ReadFile("../schema/sql/obstacles.sql")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?:SELECT|THEN|ELSE) '([a-z ]+)'`).FindAllStringSubmatch(string(sql), -1)
	if len(names) < 12 {
		t.Fatalf("the query names %v", names)
	}
	for _, name := range names {
		if obstacleRemedies[name[1]] == "" {
			t.Errorf("there is no remedy for a %s", name[1])
		}
	}
}

func TestObstaclesAreRefusedByKind(t *testing.T) {
	refusals := obstacleRefusals([]schema.Obstacle{{Check: "view", Object: "v"}, {Check: "trigger", Object: "t"}, {Check: "view", Object: "w"}, {Check: "view", Object: "v"}})
	if got := Refusals(refusals).Error(); !strings.HasPrefix(got, "view: ") || !strings.Contains(got, "view v, w;") || !strings.Contains(got, "\ntrigger: ") || strings.Count(got, "\n") != 1 {
		t.Errorf("they are refused as\n%s", got)
	}
	if obstacleRefusals(nil) != nil {
		t.Error("nothing is refused")
	}
}

func TestKindsOfRelation(t *testing.T) {
	for _, c := range []struct{ kind, persistence, schema, want string }{
		{"r", "p", "public", ""},
		{"v", "p", "public", "s.t is a view"},
		{"m", "p", "public", "s.t is a materialized view"},
		{"p", "p", "public", "s.t is a partitioned table"},
		{"f", "p", "public", "s.t is a foreign table"},
		{"S", "p", "public", "s.t is a sequence"},
		{"i", "p", "public", "s.t is an index"},
		{"r", "u", "public", "not in the WAL"},
		{"r", "t", "pg_temp_3", "not in the WAL"},
		{"r", "p", "pg_catalog", "belongs to the system"},
		{"r", "p", "information_schema", "belongs to the system"},
		{"r", "p", "pgshadow", "belongs to the system or to pgshadow itself"},
		{"r", "p", "pgshadow_abcdefghij_retired", "belongs to the system or to pgshadow itself"},
	} {
		table := &schema.Table{Schema: c.schema, Name: "t", Storage: schema.Storage{Kind: c.kind, Persistence: c.persistence}}
		got := Refusals(kindRefusals(table)).Error()
		if want := strings.ReplaceAll(c.want, "s.t", c.schema+".t"); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%+v is refused with %q, want %q", c, got, want)
		}
	}
}

func TestServerIsRefused(t *testing.T) {
	able := schema.Server{Version: 150000, VersionText: "15.0", Database: "d", Role: "r", WALLevel: "logical", FreeSlots: 1, FreeSenders: 1,
		Rights: schema.Rights{Replication: true, CreateOnDatabase: true, MemberOfOwner: true, SetOwner: true, InheritsOwner: true, OwnerCreateOnSchema: true}}
	table := &schema.Table{Schema: "s", Name: "t", Owner: "Own er"}
	if got := serverRefusals(&able, table); got != nil {
		t.Errorf("an able server is refused: %v", Refusals(got))
	}
	for want, spoil := range map[string]func(*schema.Server){
		"version: the server is PostgreSQL 13.2": func(s *schema.Server) { s.Version, s.VersionText = 130002, "13.2" },
		"standby: ":                              func(s *schema.Server) { s.InRecovery = true },
		"wal_level: wal_level is replica":        func(s *schema.Server) { s.WALLevel = "replica" },
		"max_replication_slots: ":                func(s *schema.Server) { s.FreeSlots = 0 },
		"max_wal_senders: ":                      func(s *schema.Server) { s.FreeSenders = 0 },
		"rights: role r may not use replication": func(s *schema.Server) { s.Rights.Replication = false },
		"rights: role r may not create schemas":  func(s *schema.Server) { s.Rights.CreateOnDatabase = false },
		`rights: role r is not a member of Own er, the owner of the table; GRANT "Own er" TO "r"`: func(s *schema.Server) { s.Rights.MemberOfOwner = false },
		`rights: role r may not SET ROLE to Own er, the owner of the table; GRANT "Own er" TO "r" WITH SET TRUE`: func(s *schema.Server) {
			s.Version, s.Rights.SetOwner = 160000, false
		},
		"rights: neither Own er nor r may create in schema s": func(s *schema.Server) { s.Rights.OwnerCreateOnSchema = false },
		"rights: Own er may not create in schema s, and r does not inherit its rights": func(s *schema.Server) {
			s.Rights = schema.Rights{Replication: true, CreateOnDatabase: true, MemberOfOwner: true, SetOwner: true, OwnerCreateOnDatabase: true, RoleCreateOnSchema: true}
		},
		`rights: role r does not inherit the rights of Own er, which may not create the publication in database d; GRANT CREATE ON DATABASE "d" TO "Own er"`: func(s *schema.Server) { s.Rights.InheritsOwner = false },
		`rights: Own er, the owner of the table, lacks USAGE ON SCHEMA x; GRANT USAGE ON SCHEMA x TO "Own er"`:                                               func(s *schema.Server) { s.Rights.OwnerLacks = []string{"USAGE ON SCHEMA x"} },
	} {
		server := able
		spoil(&server)
		got := serverRefusals(&server, table)
		if len(got) != 1 || !strings.HasPrefix(got[0].Error(), want) || got[0].Remedy == "" {
			t.Errorf("refused with %v, want %s", Refusals(got), want)
		}
	}
	all := schema.Server{WALLevel: "minimal", InRecovery: true}
	if got := serverRefusals(&all, table); len(got) != 10 {
		t.Errorf("all at once are %d", len(got))
	}
}

func TestNewerServerIsNoted(t *testing.T) {
	for version, want := range map[int]bool{140000: false, 150018: false, 180004: false, 190000: true, 200001: true} {
		if note, newer := versionNote(version); newer != want || want && !strings.Contains(note, strconv.Itoa(version/10000)) {
			t.Errorf("%d: %q, %t", version, note, newer)
		}
	}
}

// TestRefusedAlter has the position in the user's own text, past the shadow's name.
func TestRefusedAlter(t *testing.T) {
	const text = "ALTER COLUMN näme TYPE int"
	const table = `ALTER TABLE "pgshadow_x"."tä" `
	head := len([]rune(table))
	var syntax *shadow.SyntaxError
	if err := refuseAlter(&pgconn.PgError{Code: "42703", Message: "no column", Position: int32(head + 14)}, text, table); !errors.As(err, &syntax) || syntax.Position != 14 || syntax.Text != text {
		t.Errorf("with a position: %v", err)
	}
	within := &pgconn.PgError{Code: "42703", Message: "no column", InternalPosition: int32(head + 14), InternalQuery: table + text}
	if err := refuseAlter(within, text, table); !errors.As(err, &syntax) || syntax.Position != 14 {
		t.Errorf("with a position within a function: %v", err)
	}
	var refusal *shadow.Refusal
	if err := refuseAlter(&pgconn.PgError{Code: "42804", Message: "cannot cast", Detail: "the detail", Hint: "say USING"}, text, table); !errors.As(err, &refusal) ||
		refusal.Remedy != "say USING" || !strings.Contains(refusal.Reason, "cannot cast the detail") {
		t.Errorf("without a position: %v", err)
	}
	if err := refuseAlter(&pgconn.PgError{Code: "42P01", Message: "no table", Position: 3}, text, table); !errors.As(err, &refusal) || refusal.Remedy == "" {
		t.Errorf("with a position in the shadow's name: %v", err)
	}
	if err := refuseAlter(errors.New("lost"), text, table); errors.As(err, &refusal) || errors.As(err, &syntax) {
		t.Errorf("an error of the network is the user's: %v", err)
	}
}

func TestSameChange(t *testing.T) {
	expression := func(sql string) map[string]shadow.Expression {
		return map[string]shadow.Expression{"n": {SQL: sql, Columns: []string{"a"}}}
	}
	was := shadow.Change{Alters: []string{"ADD COLUMN n int"}, Using: map[string]shadow.Expression{}, Set: expression("o.a")}
	document, err := json.Marshal(recordedChange{Change: was})
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := readChange(&checkpoint.Run{ID: "abc", Change: document})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		now  shadow.Change
		want bool
	}{
		{was, true},
		{shadow.Change{Alters: []string{"ADD COLUMN n int "}, Set: expression("o.a")}, false},
		{shadow.Change{Alters: []string{"ADD COLUMN n int", "DROP COLUMN a"}, Set: expression("o.a")}, false},
		{shadow.Change{Alters: was.Alters, Set: expression("o.b")}, false},
		{shadow.Change{Alters: was.Alters}, false},
		{shadow.Change{Alters: was.Alters, Set: map[string]shadow.Expression{"m": {SQL: "o.a"}}}, false},
	} {
		m := &Migration{target: target{change: &c.now}}
		if same := m.sameChange(recorded); same != c.want {
			t.Errorf("case %d: the same %t", i, same)
		}
	}
	rehearsing := &Migration{target: target{change: &was}, rehearsal: newRehearsal(&Rehearsal{})}
	if rehearsing.sameChange(recorded) {
		t.Error("the rehearsal of a change is the change")
	}
	if _, err := readChange(&checkpoint.Run{ID: "abc", Change: []byte("{")}); err == nil || !strings.Contains(err.Error(), "run abc") {
		t.Errorf("a damaged record is read with %v", err)
	}
}

func TestSearchPath(t *testing.T) {
	for want, m := range map[string]*Migration{
		`pg_temp`:                    {target: target{server: &schema.Server{}}},
		`"a", "b ""c", pg_temp`:      {target: target{searchPath: `"a", "b ""c"`, server: &schema.Server{}}},
		`"a", "types", "x", pg_temp`: {target: target{searchPath: `"a"`, server: &schema.Server{TypeSchemas: []string{"types", "x"}}}},
	} {
		if got := m.sessionPath(); got != want {
			t.Errorf("the path is %s, want %s", got, want)
		}
	}
	if got := newRunID() + " " + newRunID(); !regexp.MustCompile(`^[a-z2-7]{10} [a-z2-7]{10}$`).MatchString(got) || got[:10] == got[11:] {
		t.Errorf("run ids are %s", got)
	}
}
