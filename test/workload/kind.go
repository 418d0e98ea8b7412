package workload

import "fmt"

// Kind is what one transaction of a writer does. Unless said otherwise every kind runs by itself, as often as every other.
type Kind int

// The kinds of write.
const (
	// Insert adds one row, at a free key anywhere or at the end.
	Insert Kind = iota
	// UpdateEach updates one column of one row; the columns take turns, and so does the spelling of the key if it has several.
	UpdateEach
	// UpdateNull sets one nullable column, that was not NULL, to NULL; the columns take turns.
	UpdateNull
	// KeyUp updates the key of a row to a higher free one, across a random point of the key space.
	KeyUp
	// KeyDown updates the key of a row to a lower free one, across a random point of the key space.
	KeyDown
	// Delete removes one row.
	Delete
	// DeleteReinsert removes a row and inserts another with its key, in one transaction and in two by turns.
	DeleteReinsert
	// Upsert is INSERT ... ON CONFLICT (key) DO UPDATE.
	Upsert
	// Copy adds some rows with the COPY protocol.
	Copy
	// MultiRow inserts, updates and deletes several rows per statement.
	MultiRow
	// SavepointRollback writes, writes more under a savepoint, rolls back to it, and writes on.
	SavepointRollback
	// UniqueSwap swaps the values of the unique column of two rows, by way of NULL.
	UniqueSwap
	// ToastUnchanged updates a row and leaves its value that is stored out of line as it is.
	ToastUnchanged
	// Abort inserts, updates and deletes, and rolls back. It is counted when it has rolled back.
	Abort
	// LongOpen writes, and stays open for Options.OpenFor, or in a phase of Options.HoldIn until that phase ends. It has a
	// connection and rows of its own: it blocks no other writer.
	LongOpen
	// Prepared commits (or, now and then, rolls back) in two phases. Needs max_prepared_transactions. Only when asked for.
	Prepared
	// Big is one transaction of many rows: see [Workload.Big]. Never by itself.
	Big
	// Truncate empties both tables: see [Workload.Truncate]. Never by itself.
	Truncate

	kindCount
)

var kindNames = [kindCount]string{
	"Insert", "UpdateEach", "UpdateNull", "KeyUp", "KeyDown", "Delete", "DeleteReinsert", "Upsert", "Copy", "MultiRow",
	"SavepointRollback", "UniqueSwap", "ToastUnchanged", "Abort", "LongOpen", "Prepared", "Big", "Truncate",
}

// String returns the constant's name.
func (k Kind) String() string {
	if k < 0 || k >= kindCount {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kindNames[k]
}

// DefaultKinds returns the kinds that run when Options.Kinds is empty: all but Prepared, Big and Truncate.
func DefaultKinds() []Kind {
	var kinds []Kind
	for k := Insert; k < Prepared; k++ {
		kinds = append(kinds, k)
	}
	return kinds
}

// lacks returns why kind k cannot run on the spec with the given written value columns, or "".
func (k Kind) lacks(s *Spec, values []Column) string {
	has := func(is func(Column) bool) bool {
		for _, c := range values {
			if is(c) {
				return true
			}
		}
		return false
	}
	switch {
	case k == KeyUp || k == KeyDown:
		if s.FixedKey {
			return "the key cannot be updated"
		}
	case k == UpdateNull && !has(func(c Column) bool { return c.Null }):
		return "there is no nullable column"
	case k == UniqueSwap && !has(func(c Column) bool { return c.Unique && !c.Blind }):
		return "there is no unique column, or it is not compared"
	case k == ToastUnchanged && !has(func(c Column) bool { return c.Toast }):
		return "there is no column stored out of line"
	}
	return ""
}
