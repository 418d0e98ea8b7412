package shadow

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

type hardType struct {
	typ    string
	values []string
}

// hardValues are types with values that a conversion may lose: the extremes, what is
// no ordinary value, and what two types write unlike.
var hardValues = []hardType{
	{"boolean", []string{"t", "f"}},
	{"smallint", []string{"-32768", "32767", "-1", "0", "12345"}},
	{"integer", []string{"-2147483648", "2147483647", "16777217", "0", "155"}},
	{"bigint", []string{"-9223372036854775808", "9223372036854775807", "9007199254740993", "0", "4294967295"}},
	{"oid", []string{"0", "1", "4294967295"}},
	{"xid", []string{"0", "4294967295"}},
	{"xid8", []string{"0", "18446744073709551615"}},
	{"cid", []string{"4294967295"}},
	{"tid", []string{"(4294967295,65535)"}},
	{"pg_lsn", []string{"FFFFFFFF/FFFFFFFF", "0/0"}},
	{"real", []string{"-0", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "0.1", "16777216", "1.00000012"}},
	{"double precision", []string{"-0", "NaN", "Infinity", "-Infinity", "1.7976931348623157e308", "5e-324", "0.1", "9007199254740993", "0.30000000000000004"}},
	{"numeric", []string{"NaN", "Infinity", "-Infinity", "0", "0.00", "1.50", "1e40", "123456789012345678901234567890.123456789", "99999.5"}},
	{"numeric(10,2)", []string{"NaN", "0", "99999999.99", "-1.5"}},
	{"numeric(11,3)", []string{"NaN", "99999999.999"}},
	{"numeric(12,2)", []string{"NaN", "9999999999.99"}},
	{"numeric(5,0)", []string{"99999"}},
	{"numeric(10,0)", []string{"9999999999"}},
	{"numeric(19,0)", []string{"9999999999999999999"}},
	{"numeric(3,0)", []string{"999"}},
	{"numeric(7,0)", []string{"9999999"}},
	{"numeric(38,18)", []string{"99999999999999999999.999999999999999999"}},
	{"money", []string{"-92233720368547758.08", "92233720368547758.07", "0", "1234.56"}},
	{"text", []string{"", " ", "a", "ab ", "ab  \n", "1", "t", "12.50", "{}", "äöü", "a much longer text than sixty-three bytes, which is what a name holds at most"}},
	{"character varying", []string{"", " ", "ab ", "abcdefghij", "a text longer than a uuid, which has thirty-six"}},
	{"character varying(3)", []string{"", "   ", "ab ", "abc", "äöü"}},
	{"character varying(5)", []string{"", "     ", "ab ", "abcde"}},
	{"character varying(6)", []string{"", "ab ", "abcdef", "-12345"}},
	{"character varying(11)", []string{"", "ab ", "-2147483648"}},
	{"character varying(20)", []string{"", "ab ", "-9223372036854775808"}},
	{"character varying(36)", []string{"", "ab ", "ffffffff-ffff-ffff-ffff-ffffffffffff"}},
	{"character varying(10)", []string{"", "ab ", "abcdefghij"}},
	{"character(1)", []string{"", "a", "ä"}},
	{"character(3)", []string{"", "ab", "abc", "äöü"}},
	{"character(5)", []string{"", "ab", " b", "abcde"}},
	{"bpchar", []string{"", " ", "ab ", "abcdefgh"}},
	{"name", []string{"", " ", "ab ", "a name of just that many bytes that it is as long as it can be"}},
	{`"char"`, []string{"", "a", " ", `\200`, `\377`, `\`}},
	{"bytea", []string{`\x`, `\x00ff`, `\x5c`, `\x616220`}},
	{"bit(3)", []string{"000", "101"}},
	{"bit(5)", []string{"00000", "10100", "10101"}},
	{"bit varying(3)", []string{"", "1", "101"}},
	{"bit varying(5)", []string{"", "10", "10100"}},
	{"bit varying", []string{"", "101", "1010000000"}},
	{"date", []string{"-infinity", "infinity", "4713-01-01 BC", "5874897-12-31", "2011-12-30", "2024-02-29", "294276-12-31"}},
	{"time without time zone", []string{"00:00", "24:00", "23:59:59.999999"}},
	{"time(0) without time zone", []string{"00:00", "24:00", "23:59:59"}},
	{"time(3) without time zone", []string{"24:00", "23:59:59.999"}},
	{"time with time zone", []string{"24:00-15:59", "00:00+15:59", "23:59:59.999999+00:00:01"}},
	{"time(3) with time zone", []string{"24:00-15:59", "23:59:59.999+02"}},
	{"timestamp without time zone", []string{"-infinity", "infinity", "4713-01-01 00:00 BC", "294276-12-31 23:59:59.999999", "2011-12-30 00:00", "2024-03-31 02:30", "2024-10-27 02:30", "2024-11-03 01:30"}},
	{"timestamp(0) without time zone", []string{"-infinity", "infinity", "2024-03-31 02:30:59"}},
	{"timestamp(3) without time zone", []string{"infinity", "2024-03-31 02:30:59.999"}},
	{"timestamp with time zone", []string{"-infinity", "infinity", "4713-01-01 00:00 BC", "294276-12-31 23:59:59.999999+00", "2024-10-27 00:30+00", "2024-10-27 01:30+00", "2024-11-03 05:30+00", "2024-11-03 06:30+00"}},
	{"timestamp(0) with time zone", []string{"infinity", "2024-10-27 01:30:59+00"}},
	{"timestamp(3) with time zone", []string{"2024-10-27 01:30:59.999+00"}},
	{"interval", []string{"0", "-178000000 years", "178000000 years -5 days 4:05:06.000001", "24:00", "1 mon -1 day", "-1 day +00:00:01", "30 days", "720:00"}},
	{"interval(3)", []string{"1 mon -1 day 00:00:00.999"}},
	{"interval year", []string{"5 years", "-178000000 years"}},
	{"interval month", []string{"1 year -1 mons", "-178000000 years 11 mons"}},
	{"interval year to month", []string{"-5 years 11 mons"}},
	{"interval day", []string{"178000000 years 11 mons -2147483648 days"}},
	{"interval day to hour", []string{"1 year -1 day 2147483647:00"}},
	{"interval hour", []string{"-1 mon 2147483647 days -05:00"}},
	{"interval hour to minute", []string{"1 year -1 day 2147483647:00", "-00:59", "2 mons -24:01"}},
	{"interval day to minute", []string{"1 mon -1 day 00:59"}},
	{"interval minute", []string{"1 year 1 day 100:59"}},
	{"interval second", []string{"1 year 1 day 100:59:59.999999"}},
	{"interval second(0)", []string{"1 year 1 day 100:59:59"}},
	{"interval minute to second(2)", []string{"1 day -100:59:59.99"}},
	{"interval hour to second", []string{"1 day 00:00:01.000001"}},
	{"interval day to second", []string{"1 year -1 day 00:00:01.000001"}},
	{"interval day to second(3)", []string{"1 year 2147483647:00:54.775", "-1 day 00:00:00.999", "-00:00:00.001"}},
	{"interval day to second(6)", []string{"-1 day 00:00:00.999999"}},
	{"interval day to second(6)[]", []string{`{"-1 day 00:00:00.999999"}`}},
	{"interval hour to minute[]", []string{`{"1 year -00:59",NULL}`}},
	{"inet", []string{"10.1.2.3", "10.1.2.3/8", "10.0.0.0/8", "::1", "::ffff:1.2.3.4/128", "0.0.0.0/0"}},
	{"cidr", []string{"10.0.0.0/8", "10.1.2.3/32", "::/0", "::1/128"}},
	{"macaddr", []string{"08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"}},
	{"macaddr8", []string{"08:00:2b:01:02:03:04:05", "08:00:2b:ff:fe:03:04:05"}},
	{"uuid", []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"}},
	{"json", []string{`{"b": 1,  "a": 1.0, "b": 2}`, ` null `, `"\u00e4"`, `1e400`}},
	{"jsonb", []string{`{"b": 1, "a": 1.00, "b": 2}`, `null`, `"\u00e4\n"`, `1e400`, `-0.0`}},
	{"jsonpath", []string{`$."a b"[*] ? (@ > 1)`, `strict $`}},
	{"xml", []string{"", "<a/>", "a <b>c</b> ", `<?xml version="1.0" encoding="utf-8"?><a/>`, `<?xml version="1.1" standalone="yes"?><a/>`, "<!DOCTYPE a><a/>"}},
	{"tsvector", []string{"", `'a b':1A,2 'it''s' '\\':3`}},
	{"tsquery", []string{"", `'a b' & !( 'c' <3> 'it''s':*A | 'd' )`, `'\\'`}},
	{"point", []string{"(-0,0.1)", "(NaN,Infinity)", "(1e-300,0.30000000000000004)"}},
	{"line", []string{"{1,-1,0.1}"}},
	{"lseg", []string{"[(0,0),(1,0.1)]"}},
	{"box", []string{"(1,1),(0,0.1)"}},
	{"path", []string{"((0,0),(1,0.1))", "[(0,0),(1,0.1)]"}},
	{"polygon", []string{"((0,0),(1,0.1),(2,2))"}},
	{"circle", []string{"<(0,0.1),3>"}},
	{"int4range", []string{"empty", "[1,5)", "(,)", "[,5)", "[2147483646,2147483647)"}},
	{"numrange", []string{"empty", "[1.50,2]", "(,NaN]", "(-Infinity,]"}},
	{"tstzrange", []string{"[-infinity,infinity]", `["2024-10-27 01:30+00",)`}},
	{"daterange", []string{"[2024-01-01,infinity]", "empty"}},
	{"int4multirange", []string{"{}", "{[1,2),[5,)}"}},
	{"int2vector", []string{"", "1 2 -3"}},
	{"oidvector", []string{"", "1 4294967295"}},
	{"boolean[]", []string{"{t,NULL,f}"}},
	{"smallint[]", []string{"{-32768,32767}"}},
	{"integer[]", []string{"{}", "{NULL,1}", "[0:1]={1,2}", "{{1},{2}}", "{-2147483648,16777217,155}"}},
	{"bigint[]", []string{"{}", "[5:6]={-9223372036854775808,NULL}", "{9007199254740993}"}},
	{"real[]", []string{"{-0,NaN,3.4028235e38,1.00000012}"}},
	{"numeric(12,2)[]", []string{"{9999999999.99}"}},
	{"numeric(10,0)[]", []string{"{9999999999}"}},
	{"character varying(3)[]", []string{`{"","   ","ab ",NULL,"NULL"}`}},
	{"character varying(5)[]", []string{`{}`, `[0:0]={abcde}`, `{{"ab ","     "},{"","\"\\"}}`}},
	{"character varying(9)[]", []string{`{"ab ","123456789"}`}},
	{"character varying(11)[]", []string{`{"ab ","12345678901"}`}},
	{"character varying[]", []string{`{"",NULL,"NULL","a,b ","\"\\",longerthaneleven}`}},
	{"character(3)[]", []string{`{"ab "}`}},
	{"bpchar[]", []string{`{"ab ",abcdef}`}},
	{"uuid[]", []string{"{ffffffff-ffff-ffff-ffff-ffffffffffff}"}},
	{"date[]", []string{"{-infinity,infinity,5874897-12-31,2024-02-29}", "{4713-01-01 BC}"}},
	{"timestamp without time zone[]", []string{`{-infinity,"2024-03-31 02:30","294276-12-31 23:59:59.999999"}`}},
	{"timestamp(3) without time zone[]", []string{`{"2024-03-31 02:30:59.999"}`}},
	{"timestamp with time zone[]", []string{`{infinity,"2024-10-27 01:30:59.999999+00"}`}},
	{"json[]", []string{`{"{\"b\": 1,  \"a\": 1}"}`}},
	{"jsonb[]", []string{`{"{\"b\": 1,  \"a\": 1}",NULL}`}},
	{"inet[]", []string{"{10.1.2.3/8}"}},
	{"bit(3)[]", []string{"{101}"}},
	{"bit varying(3)[]", []string{"{1,101}"}},
	{"mood[]", []string{`{sad,""," b ","Glad, \"very\""}`}},
	{"pair[]", []string{`{"(,)","(1,\"\")"}`}},
	{"shorttext[]", []string{`{"ab ","abc"}`}},
	{"padded[]", []string{`{"ab "}`}},
	{"positive[]", []string{`{5}`}},
	{"regproc[]", []string{"{now,1299}", "{1181}"}},
	{"text[]", []string{"{}", `{"",NULL,"NULL","a,b ","\"\\",longerthaneleven}`}},
	{"double precision[]", []string{"{-0,NaN,0.1}"}},
	{"numeric(10,2)[]", []string{"{1.50,NaN}"}},
	{"numeric[]", []string{"{1.505,Infinity}", "{123456789.123456789123456789}"}},
	{"character(5)[]", []string{`{"ab   ",abcde}`}},
	{"box[]", []string{"{(1,1),(0,0);(2,2),(1,1)}"}},
	{"regclass", []string{"-", "pg_class", "4294967295"}},
	{"regtype", []string{"-", `"char"`, "timestamp with time zone", "character varying", "integer[]", "4294967295"}},
	{"regproc", []string{"-", "pg_catalog.now", "1299", "1181", "4294967295"}},
	{"regprocedure", []string{"-", "pg_catalog.now()", "pg_catalog.abs(integer)", "4294967295"}},
	{"regoper", []string{"0", "551", "4294967295"}},
	{"regoperator", []string{"0", "+(integer,integer)", "-(NONE,integer)", "4294967295"}},
	{"regrole", []string{"-", "pg_monitor", "4294967295"}},
	{"regnamespace", []string{"-", "pg_catalog", "4294967295"}},
	{"regcollation", []string{"-", `"C"`, "4294967295"}},
	{"regconfig", []string{"-", "english", "4294967295"}},
	{"regdictionary", []string{"-", "simple", "4294967295"}},
	{"pg_snapshot", []string{"10:20:10,14,15"}},
	{"mood", []string{"sad", "", " b ", "Glad, \"very\""}},
	{"pair", []string{"(,)", `(1,"")`, `(-5,"a ""b"" \\,")`}},
	{"shorttext", []string{"", "ab ", "abc"}},
	{"padded", []string{"", "ab ", "abc"}},
	{"anytext", []string{"", "ab ", "abcdef"}},
	{"cents", []string{"NaN", "1.50"}},
	{"centsagain", []string{"1.50"}},
	{"wholeseconds", []string{"2024-03-31 02:30:59"}},
	{"positive", []string{"5", "2147483647"}},
	{"bits", []string{"101"}},
	{"centlist", []string{"{1.50}"}},
}

// hardScales are those that PostgreSQL has from 15 on.
var hardScales = []hardType{
	{"numeric(5,-2)", []string{"9999900", "0"}},
	{"numeric(12,-2)", []string{"99999999999900"}},
	{"numeric(2,4)", []string{"0.0099"}},
}

// typesOfTheTest are those that the server does not have.
const typesOfTheTest = `CREATE TYPE mood AS ENUM ('sad', '', ' b ', 'Glad, "very"'); CREATE TYPE pair AS (n int, v text);
	CREATE DOMAIN shorttext AS varchar(3); CREATE DOMAIN padded AS char(3); CREATE DOMAIN anytext AS text; CREATE DOMAIN cents AS numeric(10,2);
	CREATE DOMAIN centsagain AS cents; CREATE DOMAIN wholeseconds AS timestamp(0); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN bits AS bit(3); CREATE DOMAIN centlist AS numeric(10,2)[];`

// TestKeptValuesComeBack converts on a server, the oldest and the newest, values of every
// type to every type that is said to keep them, by assignment and by a cast, and back.
func TestKeptValuesComeBack(t *testing.T) {
	t.Parallel()
	for _, major := range []int{pgserver.Versions[0], pgserver.Versions[len(pgserver.Versions)-1]} {
		t.Run(fmt.Sprintf("PostgreSQL_%d", major), func(t *testing.T) {
			t.Parallel()
			dir, err := pgserver.FindVersion(major)
			if err != nil {
				t.Fatal(err)
			}
			db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{BinDir: dir}))
			types := hardValues
			if major >= 15 {
				types = slices.Concat(types, hardScales)
			}
			s := newTypedServer(t, db, types)
			for i, from := range s.columns {
				for _, to := range s.columns {
					if to.Attnum != from.Attnum && s.conversions.keep(from, to) {
						s.thereAndBack(t, from, to, types[i].values)
					}
				}
			}
		})
	}
}

// typedServer has a table t with a column of each type.
type typedServer struct {
	conn        *pgx.Conn
	columns     []schema.Column
	conversions Conversions
}

func newTypedServer(t *testing.T, db *pgtest.DB, types []hardType) typedServer {
	t.Helper()
	columns := make([]string, len(types))
	for i, hard := range types {
		columns[i] = fmt.Sprintf("c%d %s", i+1, hard.typ)
	}
	db.Exec(t, typesOfTheTest+"CREATE TABLE t ("+strings.Join(columns, ", ")+")")
	database, err := pg.Open(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	s := typedServer{conversions: Conversions{UTC: true, Coercible: map[[2]uint32]bool{}, Elements: map[uint32]uint32{}, Unreadable: map[uint32]bool{}}}
	if s.conn, err = database.Connect(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Close(context.Background(), s.conn) })
	oid, err := schema.Resolve(t.Context(), s.conn, "public", "t")
	if err != nil {
		t.Fatal(err)
	}
	table, err := schema.Load(t.Context(), s.conn, oid)
	if err != nil {
		t.Fatal(err)
	}
	s.columns = table.Columns
	for _, pair := range pairsOf(t, db, "SELECT castsource, casttarget FROM pg_cast WHERE castmethod = 'b'") {
		s.conversions.Coercible[pair] = true
	}
	for _, pair := range pairsOf(t, db, "SELECT typarray, oid FROM pg_type WHERE typarray <> 0 AND typtype NOT IN ('c', 'd')") {
		s.conversions.Elements[pair[0]] = pair[1]
		s.conversions.Unreadable[pair[0]] = slices.Contains(Unreadable, pair[1])
	}
	return s
}

func pairsOf(t *testing.T, db *pgtest.DB, sql string) (pairs [][2]uint32) {
	t.Helper()
	for _, pair := range pgtest.Scalar[[][]uint32](t, db, "SELECT array_agg(ARRAY[a, b]) FROM ("+sql+") AS pairs(a, b)") {
		pairs = append(pairs, [2]uint32(pair))
	}
	return pairs
}

// doesNotFit are the errors that abort a run where a type does not take a value: what is
// too large, breaks a check, or needs a USING.
var doesNotFit = []string{"22001", "22003", "22008", "23514", "42804"}

func (s typedServer) thereAndBack(t *testing.T, from, to schema.Column, values []string) {
	t.Helper()
	fitted := 0
	for _, value := range values {
		given := fmt.Sprintf("'%s'::%s", strings.ReplaceAll(value, "'", "''"), from.Type)
		for _, converted := range []string{given, given + "::" + to.Type} {
			var is, was string
			// What format writes is what a client reads; a cast to text takes off the blanks of bpchar.
			err := s.conn.QueryRow(t.Context(), fmt.Sprintf("INSERT INTO public.t (%s) VALUES (%s) RETURNING pg_catalog.format('%%s', %[1]s::%[3]s), pg_catalog.format('%%s', %[4]s)",
				to.Name, converted, from.Type, given)).Scan(&is, &was)
			if pg.Is(err, doesNotFit...) {
				continue
			}
			fitted++
			if err != nil || is != was {
				t.Errorf("%s to %s: %s comes back as %q, %v", from.Type, to.Type, converted, is, err)
			}
		}
	}
	if fitted == 0 {
		t.Errorf("%s to %s: nothing was tried", from.Type, to.Type)
	}
}

// TestLostValues: of types of which it is said that not every value can be had back, some
// hard value is not.
func TestLostValues(t *testing.T) {
	t.Parallel()
	s := newTypedServer(t, pgtest.New(t), hardValues)
	for i, from := range s.columns {
		for _, to := range s.columns {
			if !s.conversions.keep(from, to) && s.conversions.isLoss(from, to) && s.comesBack(t, from, to, hardValues[i].values) {
				t.Errorf("%s to %s: every value has come back", from.Type, to.Type)
			}
		}
	}
}

// comesBack tells whether every value is taken, and is the same when it is had back.
func (s typedServer) comesBack(t *testing.T, from, to schema.Column, values []string) bool {
	t.Helper()
	for _, value := range values {
		var same bool
		given := fmt.Sprintf("'%s'::%s", strings.ReplaceAll(value, "'", "''"), from.Type)
		err := s.conn.QueryRow(t.Context(), fmt.Sprintf("INSERT INTO public.t (%s) VALUES (%s) RETURNING pg_catalog.format('%%s', %[1]s::%[3]s) = pg_catalog.format('%%s', %[2]s)", to.Name, given, from.Type)).Scan(&same)
		if err != nil || !same {
			return false
		}
	}
	return true
}

// TestUnreadableTypes: a type is tried with hard values, or its text is not taken to be
// readable.
func TestUnreadableTypes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var tried []string
	for _, hard := range hardValues {
		tried = append(tried, hard.typ)
	}
	db.Exec(t, typesOfTheTest)
	untried := pgtest.Scalar[[]uint32](t, db, `SELECT array_agg(oid ORDER BY oid) FROM pg_type WHERE typtype = 'b' AND typcategory <> 'A' AND oid < 16384 AND typnamespace = 'pg_catalog'::regnamespace
		AND oid <> ALL (SELECT format_type(name::regtype, NULL)::regtype FROM unnest($1::text[]) AS name) AND oid NOT IN ('refcursor'::regtype, 'txid_snapshot'::regtype)`, tried)
	for _, oid := range untried {
		if !slices.Contains(Unreadable, oid) {
			t.Errorf("the text of type %d is taken to be readable, and is not tried", oid)
		}
	}
}

// TestTypesThatTakeAModifier: they are known for what the server says takes one.
func TestTypesThatTakeAModifier(t *testing.T) {
	t.Parallel()
	oids := pgtest.Scalar[[]uint32](t, pgtest.New(t), "SELECT array_agg(oid ORDER BY oid) FROM pg_type WHERE typmodin <> 0 AND oid < 16384")
	if known := slices.Sorted(slices.Values(limited)); !slices.Equal(oids, known) {
		t.Errorf("known: %v, the server's: %v", known, oids)
	}
}
