package pgtest

import (
	"fmt"
	"testing"

	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/seclabel"
)

// TestDumpSeesLabels in what the catalogs hold, and in what pg_dump prints, where there is one for the server.
func TestDumpSeesLabels(t *testing.T) {
	t.Parallel()
	server := NewServer(t, pgserver.Options{})
	db := NewOn(t, server)
	library, err := seclabel.Build(t.Context(), server, "labels")
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY); CREATE VIEW v AS SELECT id FROM t; CREATE MATERIALIZED VIEW m AS SELECT id FROM t; CREATE SCHEMA pgshadow_x; CREATE TABLE pgshadow_x.t (id int)")
	looks := map[string]func() string{
		"the dump": func() string { return Dump(t, db) },
		"the catalogs": func() string {
			text, err := catalogs(t.Context(), db.DSN)
			if err != nil {
				t.Fatal(err)
			}
			return text
		},
	}
	before := map[string]string{}
	for name, look := range looks {
		before[name] = look()
	}
	for _, object := range []string{"TABLE t", "COLUMN t.id", "SEQUENCE t_id_seq", "VIEW v", "COLUMN v.id", "MATERIALIZED VIEW m"} {
		for i, provider := range []string{seclabel.Provider, seclabel.Provider, seclabel.Other} {
			db.Exec(t, fmt.Sprintf(`LOAD '%s'; SECURITY LABEL FOR "%s" ON %s IS 'label %d'`, library, provider, object, i))
			for name, look := range looks {
				after := look()
				if after == before[name] {
					t.Errorf("%s does not show label %d of %s", name, i, object)
				}
				before[name] = after
			}
		}
	}
	db.Exec(t, fmt.Sprintf("LOAD '%s'; SECURITY LABEL FOR %s ON TABLE pgshadow_x.t IS 'x'; SECURITY LABEL FOR %[2]s ON COLUMN pgshadow_x.t.id IS 'x'", library, seclabel.Provider))
	for name, look := range looks {
		if look() != before[name] {
			t.Errorf("%s shows a label in a schema of pgshadow:\n%s\nbefore:\n%s", name, look(), before[name])
		}
	}
}
