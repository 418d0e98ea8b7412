package schema_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/schema"
)

// full is a table with something in every field and in every list.
func full(t *testing.T) *schema.Table {
	t.Helper()
	table := &schema.Table{}
	number := 0
	fill(t, reflect.ValueOf(table).Elem(), &number)
	for i := range table.Indexes {
		table.Indexes[i].Usable = true
	}
	return table
}

func fill(t *testing.T, v reflect.Value, number *int) {
	*number++
	switch kind := v.Kind(); {
	case kind == reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), number)
		}
	case kind == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i), number)
		}
	case kind == reflect.Map:
		v.Set(reflect.ValueOf(map[string]int{"1": *number}))
	case kind == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), number)
	case kind == reflect.String:
		v.SetString(fmt.Sprint("s", *number))
	case v.CanInt():
		v.SetInt(int64(*number))
	case v.CanUint():
		v.SetUint(uint64(*number))
	case kind == reflect.Bool:
		v.SetBool(false)
	default:
		t.Fatalf("a field of kind %s: teach the test", kind)
	}
}

// everyChange calls check with each field changed in each way that there is, and
// puts it back.
func everyChange(t *testing.T, path string, v reflect.Value, check func(path string)) {
	before := reflect.New(v.Type()).Elem()
	before.Set(v)
	with := func(how string, changed reflect.Value) {
		v.Set(changed)
		check(path + " " + how)
		v.Set(before)
	}
	switch kind := v.Kind(); {
	case kind == reflect.Struct:
		for i := range v.NumField() {
			everyChange(t, path+"."+v.Type().Field(i).Name, v.Field(i), check)
		}
	case kind == reflect.Slice:
		everyChange(t, path+"[0]", v.Index(0), check) // the others are like the first
		with("emptied", reflect.MakeSlice(v.Type(), 0, 0))
		with("shortened", v.Slice(1, v.Len()))
		with("repeated", reflect.Append(v.Slice3(0, v.Len(), v.Len()), v.Index(0)))
	case kind == reflect.Map:
		with("emptied", reflect.ValueOf(map[string]int{}))
		with("changed", reflect.ValueOf(map[string]int{"1": 1 << 20}))
	case kind == reflect.Pointer:
		with("taken away", reflect.Zero(v.Type()))
		everyChange(t, path, v.Elem(), check)
	case kind == reflect.String:
		with("changed", reflect.ValueOf("another"))
		with("emptied", reflect.ValueOf(""))
	case kind == reflect.Bool:
		with("changed", reflect.ValueOf(!v.Bool()))
	case v.CanInt(), v.CanUint():
		with("changed", reflect.ValueOf(1<<20).Convert(v.Type()))
	default:
		t.Fatalf("%s is of kind %s: teach the test", path, kind)
	}
}

// TestEveryDifferenceIsSaid changes every field of a table in turn: something is
// said exactly when the fingerprint differs, by the name of what was changed.
func TestEveryDifferenceIsSaid(t *testing.T) {
	t.Parallel()
	was, now := full(t), full(t)
	if got := was.Differences(now); got != nil {
		t.Fatalf("of the same facts it says %q", got)
	}
	nameless := map[string]bool{} // fields whose change has no sentence of its own
	changes := 0
	everyChange(t, "", reflect.ValueOf(now).Elem(), func(path string) {
		changes++
		for _, way := range []struct {
			name     string
			from, to *schema.Table
		}{{"", was, now}, {", and back", now, was}} {
			said := way.from.Differences(way.to)
			differs := way.from.Fingerprint() != way.to.Fingerprint()
			if differs != (len(said) > 0) {
				t.Errorf("%s%s: the fingerprint differs %t, and it says %q", path, way.name, differs, said)
			}
			for _, sentence := range said {
				if strings.HasSuffix(sentence, " changed") {
					field, _, _ := strings.Cut(path, " ")
					nameless[field] = true
				}
				if anew := strings.HasSuffix(sentence, "anew"); anew != (path == ".OID changed") {
					t.Errorf("%s%s: it says %q", path, way.name, said)
				}
			}
		}
	})
	if changes < 150 {
		t.Errorf("only %d changes were tried", changes)
	}
	var got []string
	for path := range nameless {
		if !strings.HasPrefix(path, ".Attached.") { // of these the object is named, and that it changed
			got = append(got, path)
		}
	}
	slices.Sort(got)
	// What these say is in another field too: in the type, or in the definition.
	want := []string{".Columns[0].BaseOID", ".Columns[0].BaseType", ".Columns[0].TypeOID", ".Columns[0].Typmod",
		".Constraints[0].Deferrable", ".Constraints[0].Deferred", ".Constraints[0].Type", ".Constraints[0].Valid",
		".Indexes[0].Details.Options", ".Indexes[0].Details.Options[0]", ".Indexes[0].Key", ".Indexes[0].Key[0]", ".Indexes[0].Method", ".Indexes[0].Plain", ".Sequences[0].Attnum"}
	if !slices.Equal(got, want) {
		t.Errorf("without a sentence of their own are\n%q\nwant\n%q", got, want)
	}
}

// TestFactsThatWentThroughJSON are the same facts: a resumed run reads them back
// from its plan.
func TestFactsThatWentThroughJSON(t *testing.T) {
	t.Parallel()
	loaded, _, _ := facts(t)
	hollow := full(t)
	hollow.Grants, hollow.Columns[0].Grants, hollow.Indexes[0].Details.Statistics = nil, []schema.Grant{}, nil
	for name, table := range map[string]*schema.Table{"a loaded table": loaded, "a full one": full(t), "one with empty lists": hollow,
		"one with none": {}, "one with no part": {Columns: []schema.Column{}, Indexes: []schema.Index{}}} {
		document, err := json.Marshal(table)
		must(t, err)
		read := &schema.Table{}
		must(t, json.Unmarshal(document, read))
		if said := table.Differences(read); said != nil || table.Fingerprint() != read.Fingerprint() {
			t.Errorf("%s: it says %q", name, said)
		}
	}
}

// TestOrderDoesNotCount: of grants and options the catalog keeps the order in
// which they were made, and that is no difference.
func TestOrderDoesNotCount(t *testing.T) {
	t.Parallel()
	was, now := full(t), full(t)
	slices.Reverse(now.Grants)
	slices.Reverse(now.Storage.Options)
	slices.Reverse(now.Columns[1].Grants)
	slices.Reverse(now.Columns[1].Details.Options)
	slices.Reverse(now.Sequences[1].Grants)
	slices.Reverse(now.Indexes[1].Details.Options)
	if said := was.Differences(now); said != nil || was.Fingerprint() != now.Fingerprint() {
		t.Errorf("it says %q", said)
	}
	if reflect.DeepEqual(was.Grants, now.Grants) || now.Grants[0] != full(t).Grants[1] {
		t.Error("comparing has put the facts in another order")
	}
}
