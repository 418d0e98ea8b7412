package shadow

import "github.com/pgshadow/pgshadow/pkg/pg"

// RejectedError says that the new schema, or code of the table's owner in it,
// refuses data of the original: it would refuse the same data again.
type RejectedError struct{ Cause error }

func (e *RejectedError) Error() string { return e.Cause.Error() }

func (e *RejectedError) Unwrap() error { return e.Cause }

// Rejected makes a *RejectedError of an error of a statement that writes or reads
// rows of the user's, where the server refused a value. Statements of pgshadow's
// own may fail with the same codes, and say nothing of the user's data.
func Rejected(err error) error {
	if pg.IsData(err) {
		return &RejectedError{Cause: err}
	}
	return err
}
