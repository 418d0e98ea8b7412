package schema

import (
	"context"
	_ "embed" // the catalog queries
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// Querier runs a query: a session or a transaction of it. Definitions come out
// fully qualified only where search_path is empty; Load sees to that itself.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

var (
	//go:embed sql/table.sql
	tableSQL string
	//go:embed sql/attached.sql
	attachedSQL string
	//go:embed sql/leaf.sql
	leafSQL string
	//go:embed sql/obstacles.sql
	obstaclesSQL string
	//go:embed sql/server.sql
	serverSQL string
	//go:embed sql/size.sql
	sizeSQL string
)

// ErrNoTable says that no relation has the name or OID.
var ErrNoTable = errors.New("no such table")

// ErrNotUTF8 says that a name or an expression of the table is no UTF-8, which only
// a database of encoding SQL_ASCII can hold.
var ErrNotUTF8 = errors.New("a name or an expression of the table is no UTF-8, in a database of encoding SQL_ASCII")

// Resolve finds the OID of a relation by name. An empty schema means the
// session's search_path, as it stood before pgshadow pinned it.
func Resolve(ctx context.Context, q Querier, schemaName, name string) (oid uint32, err error) {
	if schemaName == "" {
		err = q.QueryRow(ctx, `SELECT c.oid FROM pg_catalog.pg_class c
			WHERE c.relname = $1 AND c.relkind IN ('r','p','v','m','f','S','i','I') AND pg_catalog.pg_table_is_visible(c.oid)`, name).Scan(&oid)
	} else {
		err = q.QueryRow(ctx, `SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = $1 AND c.relname = $2`, schemaName, name).Scan(&oid)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, ErrNoTable
	}
	if err != nil {
		return 0, fmt.Errorf("looking up table %q: %w", name, err)
	}
	return oid, nil
}

// Load reads the facts of one table, and of what is attached to it. It returns
// ErrNoTable when the OID is gone, and ErrNotUTF8. The session's search_path must
// be empty, so that definitions are qualified.
func Load(ctx context.Context, q Querier, oid uint32) (*Table, error) {
	table := &Table{}
	if err := loadDocument(ctx, q, tableSQL, oid, table); err != nil {
		return nil, err
	}
	if err := loadDocument(ctx, q, attachedSQL, oid, &table.Attached); err != nil {
		return nil, err
	}
	if table.Leaf == nil {
		return table, nil
	}
	return table, loadDocument(ctx, q, leafSQL, oid, table.Leaf)
}

func loadDocument(ctx context.Context, q Querier, sql string, oid uint32, into any) error {
	var document []byte
	if err := q.QueryRow(ctx, sql, oid).Scan(&document); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoTable
		}
		return fmt.Errorf("reading the catalog facts of table %d: %w", oid, err)
	}
	if !utf8.Valid(document) { // decoding would put something else in its place
		return ErrNotUTF8
	}
	if err := json.Unmarshal(document, into); err != nil {
		return fmt.Errorf("decoding the catalog facts of table %d: %w", oid, err)
	}
	return nil
}

// LoadObstacles lists what hangs on the table and keeps it from being replaced.
func LoadObstacles(ctx context.Context, q Querier, oid uint32) ([]Obstacle, error) {
	rows, err := q.Query(ctx, obstaclesSQL, oid)
	if err != nil {
		return nil, fmt.Errorf("listing what is attached to table %d: %w", oid, err)
	}
	obstacles, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Obstacle])
	if err != nil {
		return nil, fmt.Errorf("listing what is attached to table %d: %w", oid, err)
	}
	return obstacles, nil
}

// LoadServer reads what the server and the session's role allow for a table.
func LoadServer(ctx context.Context, q Querier, oid uint32) (*Server, error) {
	var document []byte
	if err := q.QueryRow(ctx, serverSQL, oid).Scan(&document); err != nil {
		return nil, fmt.Errorf("reading the server's settings and rights: %w", err)
	}
	server := &Server{}
	if err := json.Unmarshal(document, server); err != nil {
		return nil, fmt.Errorf("decoding the server's settings and rights: %w", err)
	}
	return server, nil
}

// LoadSize reads a table's size; the row count is the planner's estimate.
func LoadSize(ctx context.Context, q Querier, oid uint32) (Size, error) {
	var size Size
	if err := q.QueryRow(ctx, sizeSQL, oid).Scan(&size.TableBytes, &size.IndexBytes, &size.ToastBytes, &size.EstimatedRows, &size.GuessedRows); err != nil {
		return Size{}, fmt.Errorf("reading the size of table %d: %w", oid, err)
	}
	return size, nil
}
