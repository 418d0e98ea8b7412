package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/bench/alter"
	"github.com/pgshadow/pgshadow/test/workload"
)

const (
	// afterwards is the phase after pgshadow has ended.
	afterwards = "after"
	// lookEvery is how often pgshadow's state row is read. A write is counted to the phase before by this much at most.
	lookEvery = 10 * time.Millisecond
)

// follow runs pgshadow and tells the writers which phase it is in, from the row that it keeps of its run. Writers that
// fail stop it.
func (d *demo) follow(ctx context.Context, writers *workload.Workload, command alter.Command) (alter.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	followed := make(chan error, 1)
	go func() { followed <- d.followPhases(ctx, writers) }()
	stopWatching := make(chan struct{})
	defer close(stopWatching)
	go func() {
		select {
		case <-writers.Done():
			cancel()
		case <-stopWatching:
		}
	}()
	result, err := command.Run(ctx)
	cancel()
	following := <-followed
	if err := errors.Join(writers.Err(), err); err != nil {
		return result, err
	}
	return result, following
}

// followPhases returns when ctx ends.
func (d *demo) followPhases(ctx context.Context, writers *workload.Workload) (err error) {
	conn, err := pgx.Connect(ctx, d.server.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to follow the run: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return seen(last)
		case <-ticker.C:
		}
		var phase string
		err := conn.QueryRow(ctx, "SELECT phase FROM pgshadow.run ORDER BY created_at DESC LIMIT 1").Scan(&phase)
		switch {
		case ctx.Err() != nil:
			return seen(last)
		case errors.Is(err, pgx.ErrNoRows) || pg.Is(err, pg.UndefinedTable):
			continue // the run is not recorded yet
		case err != nil:
			return fmt.Errorf("reading the phase of the run: %w", err)
		}
		if phase == migration.Ended.String() {
			phase = afterwards
		}
		if phase != last {
			writers.Phase(phase)
			last = phase
		}
	}
}

// seen complains when not a single phase was found.
func seen(last string) error {
	if last == "" {
		return errors.New("following the run: pgshadow.run has never told its phase")
	}
	return nil
}
