package e2e

import (
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgshadow/pgshadow/test/pgtest"
)

// roleEnv has every test run pgshadow as one kind of role: one of the kinds below.
const roleEnv = "PGSHADOW_TEST_ROLE"

// The kinds of role that pgshadow logs in as. All but the last are plain.
const (
	asOwner     = "owner"     // the owner of the table
	asMember    = "member"    // a member of the owner, with its rights
	asNoInherit = "noinherit" // a member of the owner that has its rights by SET ROLE alone
	asSuperuser = "superuser"
)

var plainRoles = []string{asOwner, asMember, asNoInherit}

// logins has the DSNs of login, by the database's name.
var logins sync.Map

// login is the DSN by which pgshadow logs in: as a plain role, of a kind that follows
// from the test's name. The first call hands everything that is in the database by
// then to the table's owner. The test's own sessions are a superuser's.
func login(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	if dsn, known := logins.Load(db.Name); known {
		return dsn.(string)
	}
	kind := os.Getenv(roleEnv)
	if kind == "" {
		kind = plainRole(t)
	}
	return loginAs(t, db, kind)
}

// plainRole is the kind of plain role that follows from the test's name.
func plainRole(t *testing.T) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(t.Name()))
	return plainRoles[hash.Sum32()%uint32(len(plainRoles))]
}

// superuser has pgshadow log in as one, for the reason given.
func superuser(t *testing.T, db *pgtest.DB, reason string) string {
	t.Helper()
	t.Logf("as superuser: %s", reason)
	return loginAs(t, db, asSuperuser)
}

// loginAs makes the roles of a kind, with no right that docs/operations.md does not
// ask for.
func loginAs(t *testing.T, db *pgtest.DB, kind string) string {
	t.Helper()
	dsn := db.DSN
	switch {
	case kind == asOwner:
		owner := db.Role(t, "owner", "LOGIN REPLICATION")
		handOver(t, db, owner, owner)
		dsn = db.As(owner)
	case kind == asMember, kind == asNoInherit:
		owner := db.Role(t, "owner", "")
		member := db.Role(t, "login", "LOGIN REPLICATION "+map[string]string{asMember: "INHERIT", asNoInherit: "NOINHERIT"}[kind])
		handOver(t, db, owner, member)
		if kind == asNoInherit {
			db.Exec(t, "GRANT CREATE ON DATABASE "+db.Name+" TO "+owner)
		}
		dsn = db.As(member)
	case kind != asSuperuser:
		t.Fatalf("%s=%s: want one of %s, or %s", roleEnv, kind, strings.Join(plainRoles, ", "), asSuperuser)
	}
	t.Logf("pgshadow logs in as %s", kind)
	logins.Store(db.Name, dsn)
	t.Cleanup(func() { logins.Delete(db.Name) })
	return dsn
}

// handOver makes owner the owner of all tables, and member able to change them.
func handOver(t *testing.T, db *pgtest.DB, owner, member string) {
	t.Helper()
	db.Exec(t, "GRANT CREATE ON DATABASE "+db.Name+" TO "+member)
	if member != owner {
		db.Exec(t, "GRANT "+owner+" TO "+member)
	}
	reown(t, db, owner)
	// Whose tables there are, and who has granted something on them.
	others := pgtest.Scalar[[]string](t, db, `SELECT coalesce(array_agg(DISTINCT role::regrole::text), '{}') FROM (
		SELECT relowner AS role FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND oid >= 16384
		UNION ALL SELECT x.grantor FROM pg_class c, aclexplode(relacl) x WHERE c.oid >= 16384
		UNION ALL SELECT x.grantor FROM pg_attribute, aclexplode(attacl) x WHERE attrelid >= 16384) AS roles WHERE role >= 16384`)
	for _, other := range others {
		if !slices.Contains([]string{owner, member}, other) {
			db.Exec(t, fmt.Sprintf("GRANT %[1]s TO %[2]s; GRANT CREATE ON DATABASE %[3]s TO %[1]s", other, member, db.Name))
		}
	}
}

// reown gives the relations of a superuser's to owner, who may create in their
// schemas. It must come before a test's session holds a lock on one.
func reown(t *testing.T, db *pgtest.DB, owner string) {
	t.Helper()
	db.Exec(t, fmt.Sprintf(`SET lock_timeout = '10s'; DO $$ DECLARE r record; BEGIN
		FOR r IN SELECT oid::regnamespace AS name FROM pg_namespace WHERE nspname = 'public' OR oid >= 16384 AND nspname !~ '^(pg_|pgshadow)' LOOP
			EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %%s TO %[1]s', r.name); END LOOP;
		FOR r IN SELECT c.oid::regclass AS name, relkind FROM pg_class c JOIN pg_roles o ON o.oid = relowner
			WHERE c.oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f') AND rolsuper AND relnamespace::regnamespace::text !~ '^pg_' LOOP
			EXECUTE format('ALTER %%s %%s OWNER TO %[1]s', CASE r.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, r.name); END LOOP;
		FOR r IN SELECT format('%%I.%%I', stxnamespace::regnamespace::text, stxname) AS name FROM pg_statistic_ext JOIN pg_roles o ON o.oid = stxowner WHERE rolsuper LOOP
			EXECUTE format('ALTER STATISTICS %%s OWNER TO %[1]s', r.name); END LOOP;
		FOR r IN SELECT format('%%I', pubname) AS name FROM pg_publication JOIN pg_roles o ON o.oid = pubowner WHERE rolsuper AND NOT puballtables LOOP
			EXECUTE format('GRANT CREATE ON DATABASE %%I TO %[1]s; ALTER PUBLICATION %%s OWNER TO %[1]s', current_database(), r.name); END LOOP;
	END $$`, owner))
}
