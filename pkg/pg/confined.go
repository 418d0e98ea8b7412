package pg

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// RunFunction and ReadFunction are the two functions of a Confined's schema. Both
// belong to the role and are SECURITY DEFINER, and take a search_path, a statement,
// and the text of each of its parameters. One returns how many rows the statement
// took in, the other the rows.
const (
	RunFunction  = "run"
	ReadFunction = "read"
)

// Confined runs statements as a role that the code which they set off cannot leave
// (INV-6). Defaults, generated columns, CHECKs, domains and index expressions are
// such code, and under SET ROLE it could say RESET ROLE. The server refuses that
// within a SECURITY DEFINER function, so every statement goes through one.
type Confined struct {
	Schema     string // of the two functions; closed to the role
	Role       string
	SearchPath string // of each statement, as SET takes it
	// Others are roles with a function each, OtherFunction, by which ExecAs runs their
	// statements. They are like RunFunction, but belong to them.
	Others []string
}

// OtherFunction is that of the i-th of Others.
func OtherFunction(i int) string { return RunFunction + strconv.Itoa(i+1) }

// Exec runs a statement whose parameters are string or []string, for
// $n::pg_catalog.text and $n::pg_catalog.text[], and tells how many rows it took in.
func (c Confined) Exec(ctx context.Context, tx pgx.Tx, sql string, args ...any) (rows int64, err error) {
	texts, err := texts(tx.Conn().TypeMap(), args)
	if err != nil {
		return 0, err
	}
	err = tx.QueryRow(ctx, "SELECT "+Ident(c.Schema, RunFunction)+"($1, $2, $3)", c.SearchPath, sql, texts).Scan(&rows)
	return rows, err
}

// Query runs a statement, with parameters as Exec takes them, whose columns have
// the types given by their names in pg_catalog: text, int8, bool.
func (c Confined) Query(ctx context.Context, tx pgx.Tx, types []string, sql string, args ...any) (pgx.Rows, error) {
	texts, err := texts(tx.Conn().TypeMap(), args)
	if err != nil {
		return nil, err
	}
	columns := make([]string, len(types))
	for i, name := range types {
		columns[i] = fmt.Sprintf("c%d %s", i+1, Ident("pg_catalog", name))
	}
	from := fmt.Sprintf("SELECT * FROM %s($1, $2, $3) AS r(%s)", Ident(c.Schema, ReadFunction), strings.Join(columns, ", "))
	return tx.Query(ctx, from, c.SearchPath, sql, texts) //nolint:rowserrcheck // the caller reads them
}

// texts gives each parameter in the form in which the server reads its type.
func texts(types *pgtype.Map, args []any) ([]string, error) {
	all := make([]string, len(args))
	for i, arg := range args {
		switch value := arg.(type) {
		case string:
			all[i] = value
		case []string:
			text, err := types.Encode(pgtype.TextArrayOID, pgtype.TextFormatCode, value, nil)
			if err != nil {
				return nil, fmt.Errorf("encoding parameter %d: %w", i+1, err)
			}
			all[i] = string(text)
		default:
			return nil, fmt.Errorf("encoding parameter %d: a %T is neither text nor an array of it", i+1, arg)
		}
	}
	return all, nil
}

// ExecAs is ExecAs for a statement of any role: those of the Confined's own, and of
// Others, go through the function.
func (c Confined) ExecAs(ctx context.Context, tx pgx.Tx, role string, settings map[string]string, sql string) error {
	if i := slices.Index(c.Others, role); i >= 0 {
		return c.execOther(ctx, tx, OtherFunction(i), settings, sql)
	}
	if role != c.Role {
		if _, err := tx.Exec(ctx, ownTerms); err != nil {
			return fmt.Errorf("taking back the settings: %w", err)
		}
		return ExecAs(ctx, tx, role, settings, sql)
	}
	for name, value := range settings {
		if _, err := tx.Exec(ctx, "SELECT pg_catalog.set_config($1, $2, true)", name, value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	if _, err := c.Exec(ctx, tx, sql); err != nil {
		return err
	}
	for name := range settings {
		if _, err := tx.Exec(ctx, "SET LOCAL "+Ident(name)+" TO DEFAULT"); err != nil {
			return fmt.Errorf("setting %s back: %w", name, err)
		}
	}
	return nil
}

// execOther keeps the code of two roles apart: what either has deferred runs before
// anything of the other's does.
func (c Confined) execOther(ctx context.Context, tx pgx.Tx, function string, settings map[string]string, sql string) error {
	script := []string{c.immediate(RunFunction), ownTerms}
	for name, value := range settings {
		script = append(script, "SET LOCAL "+Ident(name)+" = "+Literal(value))
	}
	script = append(script, c.call(function, sql), c.immediate(function), ownTerms)
	for name := range settings {
		script = append(script, "SET LOCAL "+Ident(name)+" TO DEFAULT")
	}
	_, err := tx.Exec(ctx, strings.Join(script, "; "))
	return err
}

// ownTerms takes back what code may have set that decides how the session's next
// statements are read. Temporary objects come last: where the path does not name
// them, a temporary domain would hide a type of the system's. No string of it has
// a backslash, so it is read the same whatever was set.
const ownTerms = "SET search_path = pg_temp; SET standard_conforming_strings = on"

// Leave has what the statements so far deferred run now, still as the role, and
// makes the session fit for statements of pgshadow's own. They go on to be the
// session's role's: Exec never changed it.
func (c Confined) Leave(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, c.immediate(RunFunction)+"; "+ownTerms); err != nil {
		return fmt.Errorf("running what was deferred: %w", err)
	}
	return nil
}

// immediate runs deferred triggers, which otherwise the COMMIT would, as whoever
// commits.
func (c Confined) immediate(function string) string {
	return c.call(function, "SET CONSTRAINTS ALL IMMEDIATE")
}

// call is a statement that runs another, without parameters, by one of the functions.
func (c Confined) call(function, sql string) string {
	return fmt.Sprintf("SELECT %s(%s, %s, '{}')", Ident(c.Schema, function), Literal(c.SearchPath), Literal(sql))
}

// Settle is the last statement before a COMMIT: nothing that the code has left runs
// in it, or after it. Deferred triggers run now. One that defers others again gets
// no further than that, for the second time nothing can be written to which a
// trigger could be: temporary tables are gone, and the transaction is read-only.
// Cursors WITH HOLD, whose query the COMMIT would run, are closed.
func (c Confined) Settle(ctx context.Context, tx pgx.Tx) error {
	script := []string{c.immediate(RunFunction), "DISCARD TEMP", "SET TRANSACTION READ ONLY", c.immediate(RunFunction), "CLOSE ALL", ownTerms}
	if _, err := tx.Exec(ctx, strings.Join(script, "; ")); err != nil {
		return fmt.Errorf("running what was deferred, before the commit: %w", err)
	}
	return nil
}

// InTx is InTx for work that uses Exec and Query: it ends with Settle.
func (c Confined) InTx(ctx context.Context, conn *pgx.Conn, options pgx.TxOptions, work func(tx pgx.Tx) error) error {
	return InTx(ctx, conn, options, func(tx pgx.Tx) error {
		if err := work(tx); err != nil {
			return err
		}
		return c.Settle(ctx, tx)
	})
}
