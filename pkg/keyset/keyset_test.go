package keyset_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/keyset"
)

var composite = keyset.Columns{{Name: `re"gion`, Type: "pg_catalog.text", Collation: `pg_catalog."C"`}, {Name: "id", Type: "integer"}}

func FuzzKey(f *testing.F) {
	f.Add("", "")
	f.Add("a", "b")
	f.Add(`"`, "\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ContainsRune(a+b, 0) {
			return // PostgreSQL text never holds one
		}
		a, b = strings.ToValidUTF8(a, "?"), strings.ToValidUTF8(b, "?")
		key := keyset.NewKey(a, b)
		if !slices.Equal(key.Values(), []string{a, b}) {
			t.Fatalf("%q, %q come back as %q", a, b, key.Values())
		}
		document, err := json.Marshal(keyset.Range{Lo: &key})
		if err != nil {
			t.Fatal(err)
		}
		var back keyset.Range
		if err := json.Unmarshal(document, &back); err != nil || back.Lo == nil || *back.Lo != key || back.Hi != nil {
			t.Fatalf("%s comes back as %v, %v", document, back, err)
		}
	})
}

func TestPredicate(t *testing.T) {
	lo, hi := keyset.NewKey("eu", "1"), keyset.NewKey("us", "2")
	const tuple = `("o"."re""gion", "o"."id")`
	bound := func(a, b string) string {
		return `((` + a + `::pg_catalog.text::pg_catalog.text COLLATE pg_catalog."C"), ` + b + `::pg_catalog.text::integer)`
	}
	for _, c := range []struct {
		within keyset.Range
		want   string
		args   []any
	}{
		{keyset.Range{}, "true", nil},
		{keyset.Range{Lo: &lo}, tuple + " > " + bound("$3", "$4"), []any{"eu", "1"}},
		{keyset.Range{Hi: &hi}, tuple + " <= " + bound("$3", "$4"), []any{"us", "2"}},
		{keyset.Range{Lo: &lo, Hi: &hi}, tuple + " > " + bound("$3", "$4") + " AND " + tuple + " <= " + bound("$5", "$6"), []any{"eu", "1", "us", "2"}},
	} {
		got, args := composite.Predicate(composite.Tuple("o"), c.within, 3)
		if got != c.want || !slices.Equal(args, c.args) {
			t.Errorf("%s:\n got %s %v\nwant %s %v", c.within, got, args, c.want, c.args)
		}
	}
}

func TestArrays(t *testing.T) {
	args := composite.Arrays([]keyset.Key{keyset.NewKey("eu", "1"), keyset.NewKey("", "2")})
	if len(args) != 2 || !slices.Equal(args[0].([]string), []string{"eu", ""}) || !slices.Equal(args[1].([]string), []string{"1", "2"}) {
		t.Errorf("arrays are %v", args)
	}
}

func TestRangeShown(t *testing.T) {
	key := keyset.NewKey("eu", "7")
	for want, r := range map[string]keyset.Range{
		"(-infinity, +infinity)": {}, "((eu, 7), +infinity)": {Lo: &key}, "(-infinity, (eu, 7)]": {Hi: &key},
	} {
		if got := r.String(); got != want {
			t.Errorf("shown as %s, want %s", got, want)
		}
	}
}
