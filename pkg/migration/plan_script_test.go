package migration

import "testing"

// TestForPsql: psql looks for variables outside of what is quoted alone.
func TestForPsql(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		`a[1:PORT] = b[2:"n"]::int[]`:           `a[1: PORT] = b[2: "n"]::int[]`,
		`f(x := 1, ':y', "a:b", E'\':z', ':\')`: `f(x := 1, ':y', "a:b", E'\':z', ':\')`,
		"$$ :a $$ || $t$ :b $ $t$ -- :c\n:d":    "$$ :a $$ || $t$ :b $ $t$ -- :c\n: d",
		`date':x' || é$1:e /* :f */`:            `date':x' || é$1: e /* :f */`,
	} {
		if got := forPsql(sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}
