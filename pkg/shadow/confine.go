package shadow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// CodeSchema holds the functions through which the owner's code runs. It is the
// login role's, and closed to the owner, who could alter its functions otherwise.
func (n Names) CodeSchema() string { return Prefix + "_" + n.RunID + "_code" }

// SourceSchema holds the view by which the owner reads a table whose row security
// is forced on it.
func (n Names) SourceSchema() string { return Prefix + "_" + n.RunID + "_source" }

// Confined runs statements as the table's owner (INV-6).
func (n Names) Confined(owner, searchPath string) pg.Confined {
	return pg.Confined{Schema: n.CodeSchema(), Role: owner, SearchPath: searchPath}
}

// Confined runs statements as the table's owner, under the plan's search_path.
func (p *Plan) Confined() pg.Confined {
	confined := p.Names.Confined(p.Owner, p.SearchPath)
	confined.Others = p.Others
	return confined
}

// OtherOwners are those who own what is attached to the original, beside its owner and
// the login role. Definitions that are read again run their code too: a literal of a
// type that holds a domain is checked by it.
func OtherOwners(original *schema.Table, login string) []string {
	var roles []string
	for _, view := range original.Attached.Views {
		roles = append(roles, view.Owner)
	}
	for _, other := range original.Attached.Others {
		roles = append(roles, other.Table.Owner)
	}
	for _, key := range append(slices.Clone(original.Attached.References), original.Attached.ReferencedBy...) {
		roles = append(roles, key.Table.Owner)
	}
	slices.Sort(roles)
	return slices.DeleteFunc(slices.Compact(roles), func(role string) bool { return role == original.Owner || role == login })
}

// Source is what the owner reads the original's rows from, for FROM.
func (p *Plan) Source() string {
	if p.Forced {
		return pg.Ident(p.Names.SourceSchema(), p.Names.Table)
	}
	return "ONLY " + p.Original.Quoted()
}

// keyStatements is how many keys, at most, a statement is given: a range and its
// like have two bounds, and classifying a batch takes the batch and two bounds.
const keyStatements = 3

// Confine lists the statements that make what Confined needs. The owner makes the
// functions, so that they are its own, in a schema that is open to it only until
// they are there.
func Confine(original *schema.Table, names Names, login string) []Statement {
	key, _ := ChooseKey(original) // without one no rows are followed, and no statement has parameters
	args := make([]string, keyStatements*max(len(key.Key), 1))
	for i := range args {
		args[i] = fmt.Sprintf("args[%d]", i+1)
	}
	using := "EXECUTE statement USING " + strings.Join(args, ", ") + ";\n"
	run := "DECLARE affected pg_catalog.int8;\n%s\t" + using + "\tGET DIAGNOSTICS affected = ROW_COUNT;\n\tRETURN affected;\nEND"
	code := pg.Ident(names.CodeSchema())
	all := []Statement{
		{Why: "a schema for what runs the owner's code", SQL: "CREATE SCHEMA " + code},
		{Why: "closed, whatever the default privileges are", SQL: fmt.Sprintf("REVOKE ALL ON SCHEMA %s FROM PUBLIC", code)},
	}
	all = append(all, confineRole(names, original.Owner, login, []codeFunction{
		{pg.RunFunction, "pg_catalog.int8", run}, {pg.ReadFunction, "SETOF pg_catalog.record", "%s\tRETURN QUERY " + using + "END"}})...)
	for i, role := range OtherOwners(original, login) {
		all = append(all, confineRole(names, role, login, []codeFunction{{pg.OtherFunction(i), "pg_catalog.int8", run}})...)
	}
	return all
}

// codeFunction is one of the functions; body has a place for how each begins.
type codeFunction struct{ name, result, body string }

func confineRole(names Names, role, login string, functions []codeFunction) []Statement {
	const why = "the owner's code runs within it, and cannot leave the owner's role there"
	const head = "BEGIN\n\tPERFORM pg_catalog.set_config('search_path', path, true);\n"
	const form = `CREATE FUNCTION %s(path pg_catalog.text, statement pg_catalog.text, args pg_catalog.text[]) RETURNS %s
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_temp AS $$
%s
$$`
	code := pg.Ident(names.CodeSchema())
	all := []Statement{{Why: "the functions are the owner's", SQL: fmt.Sprintf("GRANT USAGE, CREATE ON SCHEMA %s TO %s", code, pg.Ident(role))}}
	for _, f := range functions {
		all = append(all, Statement{Why: why, Role: role, SQL: fmt.Sprintf(form, pg.Ident(names.CodeSchema(), f.name), f.result, fmt.Sprintf(f.body, head))})
	}
	for _, f := range functions {
		signature := pg.Ident(names.CodeSchema(), f.name) + "(pg_catalog.text, pg_catalog.text, pg_catalog.text[])"
		all = append(all,
			Statement{Why: "for the login role alone", Role: role, SQL: "REVOKE ALL ON FUNCTION " + signature + " FROM PUBLIC"},
			Statement{Why: "for the login role alone", Role: role, SQL: "GRANT EXECUTE ON FUNCTION " + signature + " TO " + pg.Ident(login)})
	}
	if login != role {
		all = append(all, Statement{Why: "the owner could alter the functions otherwise", SQL: fmt.Sprintf("REVOKE ALL ON SCHEMA %s FROM %s", code, pg.Ident(role))})
	}
	return all
}

// ConfineSource lists the statements that make the view of Source. It belongs to
// the login role, whom row security does not bind, and gives the owner nothing but
// the rows of its own table: whatever is computed from them is computed as the
// owner.
func ConfineSource(original *schema.Table, names Names) []Statement {
	columns := make([]string, len(original.Columns))
	for i, column := range original.Columns {
		columns[i] = column.Name
	}
	source, owner := pg.Ident(names.SourceSchema()), pg.Ident(original.Owner)
	view := pg.Ident(names.SourceSchema(), names.Table)
	const why = "row security is forced on the owner"
	return []Statement{
		{Why: why, SQL: "CREATE SCHEMA " + source},
		{Why: why, SQL: fmt.Sprintf("CREATE VIEW %s AS SELECT %s FROM ONLY %s", view, pg.Idents(columns), original.Quoted()), Lock: "ACCESS SHARE on " + original.Quoted()},
		{Why: why, SQL: fmt.Sprintf("REVOKE ALL ON SCHEMA %s FROM PUBLIC; GRANT USAGE ON SCHEMA %[1]s TO %s", source, owner)},
		{Why: why, SQL: fmt.Sprintf("REVOKE ALL ON %s FROM PUBLIC; GRANT SELECT ON %[1]s TO %s", view, owner)},
	}
}
