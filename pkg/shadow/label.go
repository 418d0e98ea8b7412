package shadow

import (
	"fmt"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// Security labels are set by a provider, a library of the session. PostgreSQL asks
// for the object's owner; a provider may ask for more, often for a superuser. So a
// superuser sets them as itself: no code of the owner's runs then (INV-6). Any
// other login role is the owner for it.

// Labels lists what gives the freshly created shadow, its columns and the sequences
// of its identity columns the labels of the original: they protect the copy too.
// What the user's ALTERs drop takes its labels along.
func Labels(original *schema.Table, names Names, superuser bool) []Rider {
	l := labeling{owner: labeler(original.Owner, superuser)}
	table := names.Shadow()
	l.relation("TABLE", table, "the table", original.Labels)
	for _, column := range original.Columns {
		l.column(table, column.Name, "column "+pg.Readable(column.Name), column.Details.Labels)
	}
	for _, sequence := range original.Sequences {
		if sequence.Identity {
			l.relation("SEQUENCE", pg.Ident(names.ShadowSchema(), sequence.Name), "sequence "+pg.Readable(sequence.Name), sequence.Labels)
		}
	}
	return l.riders
}

// viewLabels lists what gives views that were made anew their labels. called are
// the same views as the user knows them.
func viewLabels(views, called []schema.View, superuser bool) []Rider {
	var all []Rider
	for i, view := range views {
		l, what := labeling{owner: labeler(view.Owner, superuser)}, "view "+called[i].String()
		l.relation(view.Kind(), view.Quoted(), what, view.Labels)
		for _, column := range view.Columns {
			l.column(view.Quoted(), column.Name, "column "+pg.Readable(column.Name)+" of "+what, column.Labels)
		}
		all = append(all, l.riders...)
	}
	return all
}

func labeler(owner string, superuser bool) string {
	if superuser {
		return ""
	}
	return owner
}

// labeling collects the statements that set labels, one by one: each can be refused.
type labeling struct {
	owner  string
	riders []Rider
}

func (l *labeling) relation(kind, quoted, what string, labels []schema.Label) {
	for _, label := range labels {
		if label.RowType {
			l.set("TYPE", quoted, "the row type of "+what, quoted, label)
		} else {
			l.set(kind, quoted, what, quoted, label)
		}
	}
}

func (l *labeling) column(relation, column, what string, labels []schema.Label) {
	for _, label := range labels {
		l.set("COLUMN", relation+"."+pg.Ident(column), what, relation, label)
	}
}

func (l *labeling) set(kind, quoted, what, locked string, label schema.Label) {
	l.riders = append(l.riders, Rider{Cannot: fmt.Sprintf("the label of %s on %s cannot be set on the new one", pg.Readable(label.Provider), what),
		Statements: []Statement{{Role: l.owner, Why: "security label", Lock: "SHARE UPDATE EXCLUSIVE on " + locked,
			SQL: fmt.Sprintf("SECURITY LABEL FOR %s ON %s %s IS %s", pg.Ident(label.Provider), kind, quoted, pg.Literal(label.Text))}}})
}

// Labels lists what gives the views that are tried their labels.
func (t *Trial) Labels(superuser bool) []Rider {
	return viewLabels(t.attached.Views, t.original.Attached.Views, superuser)
}

// label gives the views that the swap makes anew their labels.
func (p *Plan) label(b *builder, in Inputs) {
	for _, rider := range viewLabels(in.Attached.Views, in.Attached.Views, in.Superuser) {
		b.statements = append(b.statements, rider.Statements...)
	}
}
