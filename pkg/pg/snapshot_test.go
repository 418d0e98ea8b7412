package pg

import (
	"encoding/json"
	"testing"
)

func TestSnapshotSees(t *testing.T) {
	const epoch = 3 << 32
	for _, c := range []struct {
		name, snapshot string
		xid            uint32
		want           bool
	}{
		{"no transaction", "100:200:150", 0, true},
		{"before xmin", "100:200:150", 99, true},
		{"xmin itself, ended", "100:200:150", 100, true},
		{"in the list", "100:200:150", 150, false},
		{"between, ended", "100:200:150", 151, true},
		{"xmax", "100:200:150", 200, false},
		{"beyond xmax", "100:200:150", 4000, false},
		{"the list is empty", "100:100:", 99, true},
		{"the list is empty, xmax", "100:100:", 100, false},
		{"a later epoch", "12884901988:12884902088:12884902038", 150, false}, // 3<<32 + 100:200:150
		{"a later epoch, ended", "12884901988:12884902088:12884902038", 120, true},
		{"wrapped: begun before the epoch's end", "12884901888:12884901898:", 4294967290, true},
		{"wrapped: not yet seen, of the next epoch", "12884901880:12884901885:", 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			snapshot, err := ParseSnapshot(c.snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if got := snapshot.Sees(c.xid); got != c.want {
				t.Errorf("%s sees %d: %v, want %v", c.snapshot, c.xid, got, c.want)
			}
		})
	}
	if snapshot, _ := ParseSnapshot("12884901988:12884902088:"); snapshot.Xmax() != epoch+200 {
		t.Errorf("xmax is %d", snapshot.Xmax())
	}
}

func TestParseSnapshotRejects(t *testing.T) {
	for _, text := range []string{"", "1:2", "1:2:3:4", "a:2:", "1:b:", "1:2:c"} {
		if _, err := ParseSnapshot(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestLSN(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1} {
		got, err := ParseLSN(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s gives %v (%s), %v", text, uint64(got), got, err)
		}
	}
	for _, text := range []string{"", "16", "x/y"} {
		if _, err := ParseLSN(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	document, err := json.Marshal(LSN(0x16B374D848))
	var back LSN
	if err != nil || json.Unmarshal(document, &back) != nil || back != 0x16B374D848 {
		t.Errorf("%s comes back as %s, %v", document, back, err)
	}
}

func TestReadableAndIdent(t *testing.T) {
	for _, c := range []struct{ parts, quoted, readable string }{
		{"orders", `"orders"`, "orders"},
		{`Ta"ble`, `"Ta""ble"`, `"Ta""ble"`},
		{"with space", `"with space"`, `"with space"`},
		{"näme", `"näme"`, `"näme"`},
	} {
		if Ident(c.parts) != c.quoted || Readable(c.parts) != c.readable {
			t.Errorf("%q: %s and %s", c.parts, Ident(c.parts), Readable(c.parts))
		}
	}
	if got := Literal("it's '' \\"); got != `E'it''s '''' \\'` {
		t.Errorf("literal %s", got)
	}
}
