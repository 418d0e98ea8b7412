package throttle

import (
	"context"
	_ "embed" // the catalog query
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

//go:embed sql/replicas.sql
var replicasSQL string

// ReplicaLag makes the run wait while a physical standby replays the WAL later
// than the limit allows. Logical walsenders, pgshadow's own included, and those
// that only archive the WAL (pg_receivewal) do not count. A standby that goes away
// is a note, not a reason. A standby that is delayed on purpose counts.
type ReplicaLag struct {
	session *session
	limit   *setting[time.Duration]
	note    func(string)

	mu      sync.Mutex
	history history
	present map[string]int // standbys at the last check, by name
}

func newReplicaLag(s *session, limit time.Duration, note func(string)) *ReplicaLag {
	return &ReplicaLag{session: s, limit: newSetting(limit), note: note}
}

// SetLimit changes the lag that is allowed; zero turns the source off.
func (r *ReplicaLag) SetLimit(limit time.Duration) error {
	if err := validLag(limit); err != nil {
		return err
	}
	if limit == 0 {
		r.forget()
	}
	r.limit.set(limit)
	return nil
}

// Name of the source.
func (r *ReplicaLag) Name() string { return "replica lag" }

// Enabled tells whether there is a limit.
func (r *ReplicaLag) Enabled() bool { return r.limit.isSet() }

// Changed is sent to by SetLimit.
func (r *ReplicaLag) Changed() <-chan struct{} { return r.limit.changed }

// Check gives the worst standby. The error is a *RightsError when there is one
// whose lag the role may not see.
func (r *ReplicaLag) Check(ctx context.Context) (string, error) {
	var flushed pg.LSN
	var found []replica
	at := time.Now() // before the position is read, so that no lag is bounded too low
	err := r.session.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		// The position first: what a standby is found to have replayed then is not older.
		if flushed, err = flushPosition(ctx, conn); err != nil {
			return err
		}
		found, err = replicas(ctx, conn)
		return err
	})
	if err != nil {
		return "", err
	}
	reason, gone, err := r.judge(at, flushed, found)
	for _, name := range gone {
		r.note(name + " is no longer connected; the run does not wait for it")
	}
	return reason, err
}

func flushPosition(ctx context.Context, conn *pgx.Conn) (pg.LSN, error) {
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("reading the position of the WAL: %w", err)
	}
	return pg.ParseLSN(text)
}

func replicas(ctx context.Context, conn *pgx.Conn) ([]replica, error) {
	rows, err := conn.Query(ctx, replicasSQL)
	if err != nil {
		return nil, fmt.Errorf("reading pg_stat_replication: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[replica])
	if err != nil {
		return nil, fmt.Errorf("reading pg_stat_replication: %w", err)
	}
	return found, nil
}

// replica is a row of sql/replicas.sql.
type replica struct {
	Name     string
	Address  *string
	Hidden   bool
	Viewer   string
	Reported bool    // a position of some kind
	Replayed *string // LSN; nil: none reported
	LagUS    *int64  `db:"lag_us"` // microseconds; nil: the server has no figure
}

// label names the standby. The names that say nothing come with an address.
func (r replica) label() string {
	name := r.Name
	if name == "" {
		name = "without a name"
	}
	if r.Address != nil && (r.Name == "" || r.Name == "walreceiver") {
		name += " at " + *r.Address
	}
	return "replica " + name
}

// replays tells a standby from what only takes the WAL, such as pg_receivewal.
// One that has said nothing at all yet may be either: it counts.
func (r replica) replays() bool { return r.Replayed != nil || !r.Reported }

// judge looks at all standbys found, and names those that have gone.
func (r *ReplicaLag) judge(at time.Time, flushed pg.LSN, found []replica) (reason string, gone []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.add(at, flushed)
	present := map[string]int{}
	for _, standby := range found {
		if standby.replays() {
			present[standby.label()]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.present)) {
		if present[name] < r.present[name] {
			gone = append(gone, name)
		}
	}
	r.present = present
	reason, err = r.worst(at, flushed, found)
	return reason, gone, err
}

// worst is called with mu held.
func (r *ReplicaLag) worst(at time.Time, flushed pg.LSN, found []replica) (reason string, err error) {
	limit := r.limit.get()
	worst := limit
	for _, standby := range found {
		if standby.Hidden {
			return "", &RightsError{Hidden: "the lag of " + standby.label(), Role: standby.Viewer}
		}
		if !standby.replays() {
			continue
		}
		lag, unknown, err := r.lag(at, flushed, standby)
		switch {
		case err != nil:
			return "", err
		case unknown != "" && reason == "":
			reason = unknown
		case unknown == "" && lag > worst:
			reason, worst = fmt.Sprintf("%s lags %v (limit %v)", standby.label(), readable(lag), limit), lag
		}
	}
	return reason, nil
}

// lag bounds the server's figure by what the history, which ends with flushed,
// shows. It says what is known instead when that is not enough for a figure.
func (r *ReplicaLag) lag(at time.Time, flushed pg.LSN, standby replica) (lag time.Duration, unknown string, err error) {
	if standby.Replayed == nil {
		return 0, standby.label() + " has not reported a position yet", nil
	}
	replayed, err := pg.ParseLSN(*standby.Replayed)
	if err != nil {
		return 0, "", fmt.Errorf("reading the position of %s: %w", standby.label(), err)
	}
	least, most, known := r.history.bounds(at, replayed)
	switch {
	case standby.LagUS != nil && known:
		return min(max(time.Duration(*standby.LagUS)*time.Microsecond, least), most), "", nil
	case standby.LagUS != nil:
		return max(time.Duration(*standby.LagUS)*time.Microsecond, least), "", nil
	case known:
		return most, "", nil
	default:
		return 0, fmt.Sprintf("%s is %d bytes of WAL behind, for how long is not known yet", standby.label(), flushed-replayed), nil
	}
}

// forget drops what was seen, for the source is off for a while.
func (r *ReplicaLag) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.clear()
	r.present = nil
}

// readable keeps the digits that matter.
func readable(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}
