package pg

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs that pgshadow decides on (PostgreSQL manual appendix A).
const (
	UniqueViolation     = "23505"
	ForeignKeyViolation = "23503"
	ExclusionViolation  = "23P01"
	LockNotAvailable    = "55P03"
	DeadlockDetected    = "40P01"
	QueryCanceled       = "57014"
	UndefinedTable      = "42P01"
	UndefinedObject     = "42704"
	InvalidSchemaName   = "3F000"
	ObjectInUse         = "55006"
	DependentObjects    = "2BP01"
	NotSupported        = "0A000"
	InsufficientRights  = "42501"

	NotInPrerequisiteState = "55000"
)

// Server returns the server's own error behind err, or nil.
func Server(err error) *pgconn.PgError {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr
	}
	return nil
}

// Judged returns the server's own no to a statement: nil where it did not get to
// judge it, for the connection or a lock.
func Judged(err error) *pgconn.PgError {
	if IsConnection(err) || IsLockFailure(err) {
		return nil
	}
	return Server(err)
}

// Is tells whether err carries one of the SQLSTATEs.
func Is(err error, states ...string) bool {
	pgErr := Server(err)
	if pgErr == nil {
		return false
	}
	for _, state := range states {
		if pgErr.Code == state {
			return true
		}
	}
	return false
}

// IsUniqueConflict tells a unique or exclusion violation.
func IsUniqueConflict(err error) bool { return Is(err, UniqueViolation, ExclusionViolation) }

// IsLockFailure tells a lock that was not had in time, or a deadlock: worth
// another attempt.
func IsLockFailure(err error) bool { return Is(err, LockNotAvailable, DeadlockDetected) }

// IsRefused tells that the server did not take a statement for what it says, or not from
// this role, or not with this value (classes 22, 2B and 42).
func IsRefused(err error) bool {
	said := Server(err)
	return said != nil && (strings.HasPrefix(said.Code, "22") || strings.HasPrefix(said.Code, "2B") || strings.HasPrefix(said.Code, "42"))
}

// IsData tells that the server refused a value: a failed conversion (class 22)
// or a violated constraint (class 23). Owner's code that raises (P0001) counts,
// for it too will refuse the same row again.
func IsData(err error) bool {
	pgErr := Server(err)
	if pgErr == nil {
		return false
	}
	class := pgErr.Code
	return strings.HasPrefix(class, "22") || strings.HasPrefix(class, "23") || class == "P0001"
}

// ErrSessionLost says that a session that was thought to be there is not.
var ErrSessionLost = errors.New("the session is lost")

// IsConnection tells that the session is gone, or could not be had: the server
// stopped, restarted, ended the backend, or the network broke.
func IsConnection(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	if pgErr := Server(err); pgErr != nil {
		switch {
		case strings.HasPrefix(pgErr.Code, "08"), strings.HasPrefix(pgErr.Code, "57P"):
			return true
		case strings.HasPrefix(pgErr.Code, "53"): // no connection left, no memory
			var refused *pgconn.ConnectError
			return errors.As(err, &refused)
		default:
			return false
		}
	}
	if errors.Is(err, ErrSessionLost) {
		return true
	}
	var netErr net.Error
	var connErr *pgconn.ConnectError
	return errors.As(err, &connErr) || errors.As(err, &netErr) || pgconn.SafeToRetry(err) || isClosed(err)
}

func isClosed(err error) bool {
	for _, closed := range closedErrors {
		if errors.Is(err, closed) {
			return true
		}
	}
	return false
}
