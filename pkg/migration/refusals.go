package migration

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

func kindRefusals(table *schema.Table) []*shadow.Refusal {
	name := table.String()
	kinds := map[string]string{"v": "a view", "m": "a materialized view", "p": "a partitioned table", "f": "a foreign table",
		"S": "a sequence", "i": "an index", "I": "a partitioned index", "c": "a composite type", "t": "a TOAST table"}
	remedies := map[string]string{"v": "change the table behind it", "m": "change the tables behind it",
		"p": "change its leaf partitions one by one, and what is instant with a plain ALTER TABLE on it"}
	switch {
	case table.Storage.Kind != "r":
		remedy := remedies[table.Storage.Kind]
		if remedy == "" {
			remedy = "name an ordinary table"
		}
		return []*shadow.Refusal{{Check: "table", Reason: fmt.Sprintf("%s is %s", name, kinds[table.Storage.Kind]), Remedy: remedy}}
	case table.Storage.Persistence != "p":
		return []*shadow.Refusal{{Check: "unlogged", Reason: fmt.Sprintf("%s is unlogged or temporary, so its writes are not in the WAL", name),
			Remedy: "ALTER TABLE ... SET LOGGED first"}}
	case table.Schema == "pg_catalog" || table.Schema == "information_schema" || strings.HasPrefix(table.Schema, shadow.Prefix):
		return []*shadow.Refusal{{Check: "table", Reason: fmt.Sprintf("%s belongs to the system or to pgshadow itself", name), Remedy: "name a table of your own"}}
	default:
		return nil
	}
}

// nativeRefusals are the reasons for which PostgreSQL cannot be led through a change of
// the table itself either. They need no remedy: a shadow's refusals say all.
func nativeRefusals(server *schema.Server, table *schema.Table) []*shadow.Refusal {
	all := slices.DeleteFunc(kindRefusals(table), func(r *shadow.Refusal) bool { return r.Check == "unlogged" })
	all = append(all, slices.DeleteFunc(serverRefusals(server, table), func(r *shadow.Refusal) bool {
		return !slices.Contains([]string{"version", "standby"}, r.Check)
	})...)
	rights := server.Rights
	if !rights.CreateOnDatabase || !rights.MemberOfOwner || !rights.SetOwner {
		all = append(all, rightsRefusals(server, table)...)
	}
	return all
}

func unplanned(format string, args ...any) error {
	return &shadow.Refusal{Check: "plan", Reason: fmt.Sprintf(format, args...), Remedy: "look at a new plan: pgshadow plan --output json"}
}

// refuseOtherPlan refuses a plan of another table or change. A run that is taken up again
// keeps its table, whatever it is called by now.
func (m *Migration) refuseOtherPlan() error {
	plan := m.config.Expect
	switch {
	case plan == nil:
		return nil
	case !m.recovery.again && plan.Table != m.target.table.String():
		return unplanned("it is the plan of %s, and not of %s", plan.Table, m.target.table)
	case !slices.Equal(plan.Alters, m.config.Alters) || !maps.Equal(plan.Set, m.config.Set):
		return unplanned("the plan is for another change: %s", strings.Join(plan.Alters, "; "))
	default:
		return nil
	}
}

// refuseUnexpected refuses what was not planned for. A run that goes on was planned for
// when it began: it is the change itself that has changed the table since.
func (m *Migration) refuseUnexpected() error {
	plan := m.config.Expect
	if plan == nil || m.target.resumes && m.target.found.EndedAt != nil { // it is done
		return nil
	}
	if open := m.target.found; open != nil && open.EndedAt == nil && !m.config.Restart {
		if planned := plan.Facts.Fingerprint(); planned != open.Fingerprint {
			return unplanned("run %s, which is not finished, began with another table than the plan's (fingerprint %s, the plan's is %s)", open.ID, open.Fingerprint, planned)
		}
		return nil
	}
	if plan.Facts.Fingerprint() != m.target.table.Fingerprint() {
		return unplanned("%s has changed since the plan: %s", m.target.table, strings.Join(plan.Facts.Differences(m.target.table), "; "))
	}
	method := checkpoint.MethodShadow
	if m.target.recipe != nil {
		method = checkpoint.MethodNative
	}
	if plan.Method != "" && string(plan.Method) != method {
		return unplanned("by the plan the method is %s, and now it would be %s", plan.Method, method)
	}
	return nil
}

func serverRefusals(server *schema.Server, table *schema.Table) []*shadow.Refusal {
	var all []*shadow.Refusal
	refuse := func(wrong bool, check, reason, remedy string) {
		if wrong {
			all = append(all, &shadow.Refusal{Check: check, Reason: reason, Remedy: remedy})
		}
	}
	refuse(server.Version < minVersion, "version", "the server is PostgreSQL "+server.VersionText, "pgshadow works from PostgreSQL 14 on")
	refuse(server.InRecovery, "standby", "the server is a hot standby", "connect to the primary")
	refuse(server.WALLevel != "logical", "wal_level", "wal_level is "+server.WALLevel,
		"ALTER SYSTEM SET wal_level = 'logical' and restart the server (on managed servers: rds.logical_replication, cloudsql.logical_decoding)")
	refuse(server.FreeSlots < 1, "max_replication_slots", "no replication slot is free", "drop an unused slot, or raise max_replication_slots and restart the server")
	refuse(server.FreeSenders < 1, "max_wal_senders", "no WAL sender is free", "raise max_wal_senders and restart the server")
	return append(append(all, rightsRefusals(server, table)...), rowSecurityRefusals(server, table)...)
}

// identityRefusals keeps the application writing: see publishesGenerated. Virtual
// columns cannot be published at all.
func identityRefusals(table *schema.Table) []*shadow.Refusal {
	if table.Storage.ReplicaIdentity != "f" || !table.HasGenerated("v") {
		return nil
	}
	return []*shadow.Refusal{{Check: "replica identity",
		Reason: fmt.Sprintf("%s has REPLICA IDENTITY FULL and a virtual generated column: once it is published, PostgreSQL refuses every UPDATE and DELETE on it", table),
		Remedy: "ALTER TABLE ... REPLICA IDENTITY DEFAULT (with a primary key) or USING INDEX, at least for the change"}}
}

// obstacleRemedies say what to do about each kind of object that the shadow
// does not carry over.
var obstacleRemedies = map[string]string{
	"foreign key":                          "drop it before the change and add it again after",
	"disabled constraint trigger":          "ALTER TABLE ... ENABLE TRIGGER ALL before the change, and DISABLE TRIGGER again after",
	"materialized view":                    "give --matviews=recreate, with which it is empty from the swap until it is refreshed after it; or drop it before the change and create it again after",
	"inheritance":                          "detach the table from its parent or children first",
	"partition being detached":             "finish it first: ALTER TABLE ... DETACH PARTITION ... FINALIZE",
	"foreign key of the partitioned table": "PostgreSQL would validate it under the lock, row by row: give each leaf a foreign key of its own and drop that of the partitioned table; added again after the change, it takes those over without reading rows",
	"foreign key to the partitioned table": "PostgreSQL does not let a partition go whose rows are referenced: drop it before the change and add it again after",
	"renamed trigger":                      "give the trigger the name that it has on the partitioned table",
	"typed table":                          "ALTER TABLE ... NOT OF first",
	"publication":                          "replace it by one that lists its tables, or their schemas: it would publish the copy, and subscribers have no such table; or drop the slot, if nobody reads it",
	"extension member":                     "the table is the extension's: change it by updating the extension",
	"row type user":                        "drop what uses the table's row type, and create it again after",
	"function":                             "drop the function before the change and create it again after",
	"dependent object":                     "drop it before the change and create it again after",
	"statistics of another role":           "ALTER STATISTICS ... OWNER TO the owner of the table",
	"security label":                       "remove the label for the change, and set it again after",
	"subscription":                         "take the table out of the subscription first",
}

// inTheWay leaves out what the operator wants to be made again.
func (m *Migration) inTheWay(obstacles []schema.Obstacle) []schema.Obstacle {
	return slices.DeleteFunc(obstacles, func(o schema.Obstacle) bool {
		return o.Check == "materialized view" && m.config.MatViews == RecreateMatViews
	})
}

func obstacleRefusals(attached []schema.Obstacle) []*shadow.Refusal {
	objects := map[string][]string{}
	var checks []string
	for _, a := range attached {
		if objects[a.Check] == nil {
			checks = append(checks, a.Check)
		}
		if !slices.Contains(objects[a.Check], a.Object) {
			objects[a.Check] = append(objects[a.Check], a.Object)
		}
	}
	var all []*shadow.Refusal
	for _, check := range checks {
		all = append(all, &shadow.Refusal{Check: check,
			Reason: fmt.Sprintf("attached to the table, and cannot be carried over: %s %s", check, strings.Join(objects[check], ", ")),
			Remedy: obstacleRemedies[check]})
	}
	return all
}
