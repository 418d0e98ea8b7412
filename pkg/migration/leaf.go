package migration

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// leafRefusals are about what the swap of a leaf partition does to its parent.
func (m *Migration) leafRefusals(ctx context.Context, table *schema.Table) ([]*shadow.Refusal, error) {
	if table.Leaf == nil {
		return nil, nil
	}
	var all []*shadow.Refusal
	for _, index := range table.Leaf.Indexes {
		if index.Leaf == "" {
			all = append(all, &shadow.Refusal{Check: "partition", Reason: fmt.Sprintf("index %s of %s has no partition on %s, and PostgreSQL would build it under the lock", pg.Readable(index.Name), table.Leaf.Parent(), table),
				Remedy: "CREATE INDEX CONCURRENTLY on the leaf, and ALTER INDEX ... ATTACH PARTITION; or drop the index of the parent"})
		}
	}
	parent := table.Leaf.Parent()
	role, err := m.attacher(ctx, table)
	if err != nil {
		return nil, err
	}
	if role == "" {
		return append(all, &shadow.Refusal{Check: "rights", Reason: fmt.Sprintf("%s belongs to %s and its parent %s to %s, and neither role has the other's rights, as ATTACH PARTITION needs", table, table.Owner, parent, parent.Owner),
			Remedy: "GRANT " + pg.Ident(table.Owner) + " TO " + pg.Ident(parent.Owner)}), nil
	}
	for _, name := range slices.Compact([]string{table.Schema, parent.Schema}) {
		may, err := m.allows(ctx, "SELECT pg_catalog.has_schema_privilege($1::pg_catalog.name, $2, 'USAGE')", role, name)
		if err != nil {
			return nil, err
		}
		if !may {
			all = append(all, &shadow.Refusal{Check: "rights", Reason: fmt.Sprintf("%s, who attaches the new table to %s, lacks USAGE ON SCHEMA %s", role, parent, pg.Ident(name)),
				Remedy: "GRANT USAGE ON SCHEMA " + pg.Ident(name) + " TO " + pg.Ident(role)})
		}
	}
	return all, nil
}

// attacher is the role that detaches the leaf and attaches the new table: one of the
// two owners that has the rights of the other, or empty. It is never the login role,
// which may have more (INV-6).
func (m *Migration) attacher(ctx context.Context, table *schema.Table) (string, error) {
	parent := table.Leaf.Parent().Owner
	for _, pair := range [][2]string{{table.Owner, parent}, {parent, table.Owner}} {
		may, err := m.allows(ctx, "SELECT pg_catalog.pg_has_role($1::pg_catalog.name, $2::pg_catalog.name, 'USAGE')", pair[0], pair[1])
		if err != nil {
			return "", err
		}
		if may {
			return pair[0], nil
		}
	}
	return "", nil
}

// leafTrial prepares the trial of a leaf partition.
func (m *Migration) leafTrial(ctx context.Context, tx pgx.Tx, names shadow.Names) (*shadow.LeafTrial, error) {
	leaf := m.target.table.Leaf
	role, err := m.attacher(ctx, m.target.table)
	if err != nil {
		return nil, err
	}
	parent, err := schema.Load(ctx, tx, leaf.Parent().OID)
	if err != nil {
		return nil, err
	}
	var beside *schema.Table
	if leaf.Beside != nil {
		if beside, err = schema.Load(ctx, tx, leaf.Beside.Table.OID); err != nil {
			return nil, err
		}
	}
	return shadow.NewLeafTrial(m.target.table, names, role, parent, beside), nil
}

// tryAlters runs texts of the user's ALTERs on the shadow as a partition, which PostgreSQL
// allows less than a table of its own, and undoes them.
func (m *Migration) tryAlters(ctx context.Context, tx pgx.Tx, names shadow.Names, texts []string) error {
	if m.target.table.Leaf == nil {
		return nil
	}
	trial, err := m.leafTrial(ctx, tx, names)
	if err != nil {
		return err
	}
	return undone(ctx, tx, func(tx pgx.Tx) error {
		if err := execAll(ctx, tx, m.confined(names), trial.Open()); err != nil {
			return m.refuseLeaf(err)
		}
		for _, text := range texts {
			if err := m.alter(ctx, tx, names, text); err != nil {
				return err
			}
		}
		return nil
	})
}

// refuseLeaf makes a refusal of the server's no to the shadow as a partition.
func (m *Migration) refuseLeaf(err error) error {
	pgErr := pg.Judged(err)
	if pgErr == nil || pg.Is(err, pg.InsufficientRights) {
		return err
	}
	return &shadow.Refusal{Check: "partition", Reason: strings.TrimSpace(fmt.Sprintf("the changed table cannot be a partition of %s: %s %s", m.target.table.Leaf.Parent(), pgErr.Message, pgErr.Detail)),
		Remedy: "make a change that the partition can have on its own; what concerns all partitions is for ALTER TABLE on the partitioned table"}
}

// membership finds out how the shadow, with the user's ALTERs made, takes the leaf's
// place, and refuses it unless that reads no rows and builds nothing.
func (m *Migration) membership(ctx context.Context, tx pgx.Tx, names shadow.Names) (member shadow.Membership, err error) {
	if m.target.table.Leaf == nil {
		return member, nil
	}
	if member.Role, err = m.attacher(ctx, m.target.table); err != nil {
		return member, err
	}
	if member.Constraint, err = bound(ctx, tx, schema.Relation{Schema: m.target.table.Schema, Name: m.target.table.Name}); err != nil {
		return member, err
	}
	trial, err := m.leafTrial(ctx, tx, names)
	if err != nil {
		return member, err
	}
	return member, undone(ctx, tx, func(tx pgx.Tx) error { return m.tryAttach(ctx, tx, trial, names) })
}

// byName is the OID of a relation in a schema that the session's role may not look into.
const byName = "(SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2)"

func shadowOf(names shadow.Names) schema.Relation {
	return schema.Relation{Schema: names.ShadowSchema(), Name: names.Table}
}

// bound is the partition constraint of a partition.
func bound(ctx context.Context, tx pgx.Tx, table schema.Relation) (text string, err error) {
	err = tx.QueryRow(ctx, "SELECT coalesce(pg_catalog.pg_get_partition_constraintdef("+byName+"), '')", table.Schema, table.Name).Scan(&text)
	if err != nil {
		return "", fmt.Errorf("reading the partition constraint of %s: %w", table, err)
	}
	return text, nil
}

// scans counts how often the transaction has begun to read all of a table: a
// constraint that is checked, a foreign key that is validated, an index that is built.
func scans(ctx context.Context, tx pgx.Tx, table schema.Relation) (n int64, err error) {
	err = tx.QueryRow(ctx, "SELECT pg_catalog.pg_stat_get_xact_numscans("+byName+")", table.Schema, table.Name).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting how often %s was read: %w", table, err)
	}
	return n, nil
}

// tryAttach attaches the shadow to stand-ins for the tree: once to learn how its bound
// reads there, and again with that as a check, which is as the swap will do it.
func (m *Migration) tryAttach(ctx context.Context, tx pgx.Tx, trial *shadow.LeafTrial, names shadow.Names) error {
	if err := execAll(ctx, tx, m.confined(names), trial.Open()); err != nil {
		return m.refuseLeaf(err)
	}
	within, err := bound(ctx, tx, shadowOf(names))
	if err != nil {
		return err
	}
	if err := execAll(ctx, tx, m.confined(names), trial.Raise()); err != nil {
		return m.refuseLeaf(err)
	}
	whole, err := bound(ctx, tx, shadowOf(names))
	if err != nil {
		return err
	}
	before, err := scans(ctx, tx, shadowOf(names))
	if err != nil {
		return err
	}
	if err := execAll(ctx, tx, m.confined(names), append([]shadow.Statement{trial.Detach()}, trial.Bind(m.target.table, whole)...)); err != nil {
		return m.refuseLeaf(err)
	}
	bindingScans, err := scans(ctx, tx, shadowOf(names))
	if err != nil {
		return err
	}
	if whole != "" && bindingScans == before {
		return &shadow.Refusal{Check: "track_counts", Reason: "track_counts is off, so there is no telling what PostgreSQL reads when it attaches a partition", Remedy: "ALTER SYSTEM SET track_counts = 'on', and SELECT pg_reload_conf()"}
	}
	return m.measureAttach(ctx, tx, trial, names, within)
}

// measureAttach attaches the shadow as the swap will, and refuses it when that reads
// or builds anything, or takes other indexes than the leaf's own.
func (m *Migration) measureAttach(ctx context.Context, tx pgx.Tx, trial *shadow.LeafTrial, names shadow.Names, within string) error {
	leaf := m.target.table.Leaf
	tables := []schema.Relation{shadowOf(names)}
	if leaf.Beside != nil {
		tables = append(tables, trial.Beside())
	}
	counted := make([]int64, len(tables))
	for i, table := range tables {
		var err error
		if counted[i], err = scans(ctx, tx, table); err != nil {
			return err
		}
	}
	if err := execAll(ctx, tx, m.confined(names), []shadow.Statement{trial.Attach()}); err != nil {
		return m.refuseLeaf(err)
	}
	if err := m.refuseOtherIndexes(ctx, tx, names); err != nil {
		return err
	}
	for i, table := range tables {
		now, err := scans(ctx, tx, table)
		switch {
		case err != nil:
			return err
		case now == counted[i]:
		case i > 0:
			return trial.RefuseBeside(within)
		default:
			return &shadow.Refusal{Check: "partition", Reason: fmt.Sprintf("PostgreSQL would read every row of the new table under the lock: it cannot conclude from a check of %s that the rows belong to the partition, as with hash partitions by a column with a collation", within),
				Remedy: "change the table by other means"}
		}
	}
	return nil
}

// refuseOtherIndexes holds the shadow's indexes, now attached, against those of the
// leaf. Which of two that are alike is attached is a matter of chance.
func (m *Migration) refuseOtherIndexes(ctx context.Context, tx pgx.Tx, names shadow.Names) error {
	var attached, twins []string
	err := tx.QueryRow(ctx, `WITH i AS (
		SELECT c.oid, c.relname, c.relispartition, coalesce(k.contype::pg_catalog.text, '') AS contype, coalesce(k.conparentid, 0) <> 0 AS inherited,
			ROW(c.relam, x.indisunique, x.indnatts, x.indnkeyatts, x.indkey::pg_catalog.text, x.indcollation::pg_catalog.text,
				pg_catalog.pg_get_expr(x.indexprs, x.indrelid), pg_catalog.pg_get_expr(x.indpred, x.indrelid),
				(SELECT pg_catalog.array_agg(o.opcfamily ORDER BY n) FROM pg_catalog.unnest(x.indclass::pg_catalog.oid[]) WITH ORDINALITY AS u(oid, n) JOIN pg_catalog.pg_opclass o ON o.oid = u.oid))::pg_catalog.text AS sort
		  FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid
		  LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = c.oid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u', 'x')
		 WHERE x.indrelid = $1::pg_catalog.text::pg_catalog.regclass)
		SELECT (SELECT coalesce(pg_catalog.array_agg(relname::pg_catalog.text ORDER BY relname), '{}') FROM i WHERE relispartition),
			(SELECT coalesce(pg_catalog.array_agg(pg_catalog.format('%I and %I', a.relname, b.relname) ORDER BY a.relname, b.relname), '{}') FROM i a JOIN i b ON a.sort = b.sort AND a.oid <> b.oid
			  WHERE a.relispartition AND (NOT a.inherited OR b.contype = a.contype) AND (NOT b.relispartition OR a.relname < b.relname))`, names.Shadow()).Scan(&attached, &twins)
	if err != nil {
		return fmt.Errorf("looking up the indexes of the shadow as a partition: %w", err)
	}
	if len(twins) > 0 {
		return &shadow.Refusal{Check: "partition", Reason: fmt.Sprintf("%s are alike, so that either could become the partition of an index of %s", strings.Join(twins, ", "), m.target.table.Leaf.Parent()),
			Remedy: "drop one of them, at least for the change"}
	}
	for _, index := range m.target.table.Leaf.Indexes {
		if !slices.Contains(attached, index.Leaf) {
			return &shadow.Refusal{Check: "partition", Reason: fmt.Sprintf("%s would not take index %s of the changed table for its index %s, and build another under the lock", m.target.table.Leaf.Parent(), pg.Readable(index.Leaf), pg.Readable(index.Name)),
				Remedy: "leave the indexes as they are that the partitioned table has too"}
		}
	}
	return nil
}
