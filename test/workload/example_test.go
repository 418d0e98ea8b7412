package workload_test

import (
	"context"
	"log"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/workload"
)

// A test of a change from integer to bigint on the key, a new scale, a renamed and a dropped column.
func Example() {
	ctx, dsn := context.Background(), "postgres://localhost/test"
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	spec := workload.Orders()
	check(spec.Create(ctx, conn, 100_000, workload.CreateOptions{}))

	// The writers keep to the columns that are there before and after, by the same name.
	w, err := workload.Start(ctx, dsn, spec, workload.Options{
		Columns: spec.Columns("status", "note"),
		HoldIn:  []string{"copy"},
	})
	check(err)

	// From the observer of the schema change, at the beginning of each phase: the phase goes on when each kind of write has
	// happened in it at least three times.
	for _, phase := range []string{"copy", "index", "catch up", "verify"} {
		w.Phase(phase)
		check(w.AwaitEach(ctx, 3))
	}
	w.Phase("cutover")
	// ... the swap ...
	w.Phase("after")
	check(w.AwaitEach(ctx, 3))

	stats, err := w.Stop(ctx)
	check(err)
	check(workload.RequireRan(stats, "copy", "index", "catch up", "verify", "after"))
	check(workload.Check(ctx, conn, spec, workload.Mapping{
		"amount": {Mirror: "amount::numeric(14,4)"},
		"status": {Table: "state"},
		"note":   {Skip: true},
	}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
