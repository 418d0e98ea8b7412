package throttle

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Query makes the run wait while a query of the operator's gives true, or a
// number above zero. Anything but one boolean or number cannot be judged: no row,
// several, NULL, another type.
type Query struct {
	session *session // its own: a slow query holds up no other source, and what it sets is its own
	text    *setting[string]
}

func newQuery(s *session, text string) *Query { return &Query{session: s, text: newSetting(text)} }

// SetText changes the query; "" turns the source off.
func (q *Query) SetText(text string) error {
	if err := validQuery(text); err != nil {
		return err
	}
	q.text.set(text)
	return nil
}

// Name of the source.
func (q *Query) Name() string { return "throttle query" }

// Enabled tells whether there is a query.
func (q *Query) Enabled() bool { return q.text.isSet() }

// Changed is sent to by SetText.
func (q *Query) Changed() <-chan struct{} { return q.text.changed }

// Check runs the query.
func (q *Query) Check(ctx context.Context) (string, error) {
	var value answer
	err := q.session.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		value, err = ask(ctx, conn, q.text.get())
		return err
	})
	if err != nil {
		return "", err
	}
	return value.judge()
}

// answer is one value in PostgreSQL's text form.
type answer struct {
	text string
	kind uint32 // OID of its type; of the base type when it is a domain
}

// ask sends text by the extended protocol, in which the server itself refuses
// more than one statement, and as it is: the text is the operator's.
func ask(ctx context.Context, conn *pgx.Conn, text string) (value answer, err error) {
	result := conn.PgConn().ExecParams(ctx, text, nil, nil, nil, nil)
	var types []uint32
	for _, field := range result.FieldDescriptions() {
		types = append(types, field.DataTypeOID)
	}
	value, shape := single(types, result.NextRow, result.Values)
	if _, err = result.Close(); err != nil {
		return answer{}, fmt.Errorf("running it: %w", err)
	}
	return value, shape
}

// single takes the one value out of a result: the types of its columns, the next
// row, and the values of the row.
func single(types []uint32, next func() bool, values func() [][]byte) (value answer, err error) {
	if len(types) != 1 {
		return value, fmt.Errorf("it gives %d columns: want one", len(types))
	}
	value.kind = types[0]
	if !next() {
		return value, errors.New("it gives no row: want one")
	}
	if values()[0] == nil {
		return value, errors.New("it gives NULL: want a boolean or a number")
	}
	value.text = string(values()[0])
	if next() {
		return value, errors.New("it gives several rows: want one")
	}
	return value, nil
}

func (a answer) judge() (reason string, err error) {
	switch a.kind {
	case pgtype.BoolOID:
		if a.text == "t" {
			return "the throttle query gives true", nil
		}
		return "", nil
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID:
		number, err := strconv.ParseFloat(a.text, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range is an infinity with the right sign
			return "", fmt.Errorf("reading %q as a number: %w", a.text, err)
		}
		switch {
		case number > 0:
			return fmt.Sprintf("the throttle query gives %s (limit 0)", a.text), nil
		case number <= 0:
			return "", nil
		default:
			return "", fmt.Errorf("it gives %s: want a boolean or a number", a.text)
		}
	default:
		return "", errors.New("it gives neither a boolean nor a number")
	}
}
