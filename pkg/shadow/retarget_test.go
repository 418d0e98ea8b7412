package shadow

import (
	"fmt"
	"testing"
)

func TestRenaming(t *testing.T) {
	t.Parallel()
	r := renaming{{"public", "orders"}: {"run", "orders"}, {"Odd \"s", "T t"}: {"trial", "T t"}}
	for _, c := range []struct{ sql, want string }{
		{`SELECT orders.id FROM public.orders`, `SELECT orders.id FROM "run"."orders"`},
		{`SELECT a.id FROM (public.orders a JOIN "Odd ""s"."T t" b USING (id))`, `SELECT a.id FROM ("run"."orders" a JOIN "trial"."T t" b USING (id))`},
		{`SELECT public.orders(1), public.orders_f(x)`, `SELECT public.orders(1), public.orders_f(x)`},
		{`FOREIGN KEY (a) REFERENCES public.orders(id) ON DELETE CASCADE`, `FOREIGN KEY (a) REFERENCES "run"."orders"(id) ON DELETE CASCADE`},
		{`INSERT INTO public.orders (id) VALUES (new.id)`, `INSERT INTO "run"."orders" (id) VALUES (new.id)`},
		{`SELECT 'public.orders'::text, E'it\'s public.orders', '', 'a''public.orders'`, `SELECT 'public.orders'::text, E'it\'s public.orders', '', 'a''public.orders'`},
		{`SELECT 'public.orders'::regclass, '"Odd ""s"."T t"'::regclass, 'public.other'::regclass`, `SELECT '"run"."orders"'::regclass, '"trial"."T t"'::regclass, 'public.other'::regclass`},
		{`SELECT "public.orders", "x"".public".orders FROM public."orders"`, `SELECT "public.orders", "x"".public".orders FROM "run"."orders"`},
		{`SELECT NULL::public.orders, x.public.orders`, `SELECT NULL::"run"."orders", x.public.orders`},
		{`EXECUTE FUNCTION public.orders('public.orders')`, `EXECUTE FUNCTION public.orders('public.orders')`},
		{`SELECT '\' AS a FROM public.orders`, `SELECT '\' AS a FROM "run"."orders"`},
		{`SELECT 'ä' AS "ö" FROM other.orders`, `SELECT 'ä' AS "ö" FROM other.orders`},
	} {
		if got := r.apply(c.sql); got != c.want {
			t.Errorf("%s\nbecomes %s\nwant    %s", c.sql, got, c.want)
		}
		if got := r.inverse().apply(c.want); r.apply(got) != c.want {
			t.Errorf("%s\nleads back to %s", c.want, got)
		}
	}
}

func TestMoveRule(t *testing.T) {
	t.Parallel()
	const rule = "CREATE RULE \" TO public.doc\" AS\n    ON INSERT TO %s\n   WHERE (new.id > ( SELECT max(d.id) FROM public.doc d)) DO  DELETE FROM public.doc;"
	to := relation{"trial", `D "d`}
	if got, want := moveRule(fmt.Sprintf(rule, `"Far away".doc`), to), fmt.Sprintf(rule, to.quoted()); got != want {
		t.Errorf("moved, it is %s\nwant         %s", got, want)
	}
}

func FuzzRenaming(f *testing.F) {
	for _, sql := range []string{`SELECT 'a''b', E'\\', "x""y" FROM public.orders`, `public.orders(`, `'`, `"`, `"".`, `E'`, `''::regclass`} {
		f.Add(sql)
	}
	// Without anything to rename, the text is as it was.
	f.Fuzz(func(t *testing.T, sql string) {
		if got := (renaming{}).apply(sql); got != sql {
			t.Errorf("%q becomes %q", sql, got)
		}
	})
}
