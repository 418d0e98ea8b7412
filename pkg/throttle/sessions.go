package throttle

import (
	"context"
	_ "embed" // the catalog query
	"fmt"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/sessions.sql
var sessionsSQL string

// ActiveSessions makes the run wait while the server has more active client
// sessions, pgshadow's own aside, than the limit.
type ActiveSessions struct {
	session *session
	limit   *setting[int]
}

func newActiveSessions(s *session, limit int) *ActiveSessions {
	return &ActiveSessions{session: s, limit: newSetting(limit)}
}

// SetLimit changes the number of sessions; zero turns the source off.
func (a *ActiveSessions) SetLimit(limit int) error {
	if err := validSessions(limit); err != nil {
		return err
	}
	a.limit.set(limit)
	return nil
}

// Name of the source.
func (a *ActiveSessions) Name() string { return "active sessions" }

// Enabled tells whether there is a limit.
func (a *ActiveSessions) Enabled() bool { return a.limit.isSet() }

// Changed is sent to by SetLimit.
func (a *ActiveSessions) Changed() <-chan struct{} { return a.limit.changed }

// Check counts the sessions. The error is a *RightsError when the role may not
// see the state of all.
func (a *ActiveSessions) Check(ctx context.Context) (string, error) {
	var count sessionCount
	err := a.session.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sessionsSQL)
		if err != nil {
			return fmt.Errorf("reading pg_stat_activity: %w", err)
		}
		if count, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[sessionCount]); err != nil {
			return fmt.Errorf("reading pg_stat_activity: %w", err)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return count.judge(a.limit.get())
}

type sessionCount struct {
	Active, Hidden, Disabled int
	Viewer                   string
}

func (c sessionCount) judge(limit int) (reason string, err error) {
	switch {
	case c.Active > limit:
		return fmt.Sprintf("%d active sessions (limit %d)", c.Active, limit), nil
	case c.Hidden > 0:
		return "", &RightsError{Hidden: fmt.Sprintf("what %d other sessions do", c.Hidden), Role: c.Viewer}
	case c.Disabled > 0:
		return "", fmt.Errorf("%d sessions do not report what they do: track_activities is off there", c.Disabled)
	default:
		return "", nil
	}
}
