package workload

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// keyed returns a small Spec with one key column.
func keyed(name, typ, fill string, keyOf func(ord int64) string, edges ...string) *Spec {
	s := small(name)
	s.Key = []Column{{Name: "k", Type: typ, Fill: fill}}
	s.KeyOf = func(ord int64) []string { return []string{keyOf(ord)} }
	for _, e := range edges {
		s.Edges = append(s.Edges, []string{e})
	}
	return s
}

func decimal(ord int64) string { return fmt.Sprint(ord) }

// IntKey has the key "k integer" without a default.
func IntKey() *Spec {
	return keyed("int_key", "integer", "ord", decimal, "-2147483648", "-1", "0", "2147483647")
}

// BigintKey has the key "k bigint".
func BigintKey() *Spec {
	return keyed("bigint_key", "bigint", "ord", decimal, "-9223372036854775808", "0", "9223372036854775807")
}

// UUIDKey has the key "k uuid".
func UUIDKey() *Spec {
	return keyed("uuid_key", "uuid", "(lpad(to_hex(ord), 8, '0') || substr(md5(ord::text), 9))::uuid", func(ord int64) string {
		h := fmt.Sprintf("%08x", ord) + md5Hex(decimal(ord))[8:]
		return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
	}, "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff")
}

// TextKey has the key "k text" in the ICU collation en-x-icu, with keys that the C collation orders differently.
func TextKey() *Spec {
	s := keyed("text_key", "text", accentedSQL, accented, "", "-", "Ω☃")
	s.Key[0].Def = `text COLLATE "en-x-icu" NOT NULL`
	return s
}

// NondeterministicKey has the key "k text" in an ICU collation to which letters with and without accents, large and
// small, are equal.
func NondeterministicKey() *Spec {
	s := keyed("nondeterministic_key", "text", accentedSQL, accented, "", "Ω☃")
	s.Before = []string{"CREATE COLLATION IF NOT EXISTS workload_base (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"}
	s.Key[0].Def = "text COLLATE workload_base NOT NULL"
	s.Respell = func(r *rand.Rand, key []string) []string {
		for _, letter := range accents {
			if rest, ok := strings.CutPrefix(key[0], letter); ok {
				return []string{accents[r.IntN(len(accents))] + rest}
			}
		}
		return key
	}
	return s
}

const accentedSQL = "(ARRAY['e','E','é','É'])[1 + ord % 4] || lpad(ord::text, 10, '0')"

var accents = []string{"e", "E", "é", "É"}

// accented returns the ordinal behind a letter that counts less than the digits, in ICU's order.
func accented(ord int64) string { return fmt.Sprintf("%s%010d", accents[ord%4], ord) }

// CitextKey has the key "k citext". Needs the extension's files on the server.
func CitextKey() *Spec {
	s := keyed("citext_key", "citext", "(ARRAY['k','K'])[1 + ord % 2] || lpad(ord::text, 10, '0')", func(ord int64) string {
		return fmt.Sprintf("%c%010d", "kK"[ord%2], ord)
	}, "", "zz")
	s.Before = []string{"CREATE EXTENSION IF NOT EXISTS citext"}
	s.Respell = func(r *rand.Rand, key []string) []string {
		if r.IntN(2) == 0 {
			return []string{strings.ToUpper(key[0])}
		}
		return []string{strings.ToLower(key[0])}
	}
	return s
}

// TimestamptzKey has the key "k timestamptz", to the microsecond.
func TimestamptzKey() *Spec {
	base := time.Date(1999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	return keyed("timestamptz_key", "timestamptz",
		"timestamptz '1999-12-31 23:59:59.999999+00' + ord * interval '1.000001 seconds'", func(ord int64) string {
			return base.Add(time.Duration(ord) * 1_000_001 * time.Microsecond).Format("2006-01-02 15:04:05.999999+00")
		}, "-infinity", "infinity", "0044-03-15 12:00:00+00 BC")
}

// NumericKey has the key "k numeric" without precision: 1.5 and 1.500 are the same key. NaN is the last one.
func NumericKey() *Spec {
	s := keyed("numeric_key", "numeric", "ord * 0.125", func(ord int64) string {
		return fmt.Sprintf("%d.%03d", ord/8, ord%8*125)
	}, "-Infinity", "-0.1", "123456789012345678901234567890.5", "NaN")
	s.Respell = func(r *rand.Rand, key []string) []string {
		whole, fraction, ok := strings.Cut(key[0], ".")
		if !ok {
			return key
		}
		fraction = strings.TrimRight(fraction, "0")
		return []string{whole + "." + fraction + strings.Repeat("0", r.IntN(4)+1)}
	}
	return s
}

// DateKey has the key "k date", from before Christ on.
func DateKey() *Spec {
	base := time.Date(-99, 1, 1, 0, 0, 0, 0, time.UTC)
	return keyed("date_key", "date", "date '0100-01-01 BC' + ord::integer", func(ord int64) string {
		t := base.AddDate(0, 0, int(ord))
		if t.Year() <= 0 {
			return fmt.Sprintf("%04d-%02d-%02d BC", 1-t.Year(), t.Month(), t.Day())
		}
		return fmt.Sprintf("%04d-%02d-%02d", t.Year(), t.Month(), t.Day())
	}, "-infinity", "infinity", "4713-01-01 BC")
}

// ByteaKey has the key "k bytea", full of zero bytes.
func ByteaKey() *Spec {
	return keyed("bytea_key", "bytea", "decode('00' || lpad(to_hex(ord), 16, '0') || '00', 'hex')", func(ord int64) string {
		return fmt.Sprintf(`\x00%x00`, binary.BigEndian.AppendUint64(nil, uint64(ord)))
	}, `\x`, `\x0000`, `\xff`)
}

const enumLabels = 2000

// EnumKey has the key "k workload_label", an enum whose order is unlike its labels'. At most 1000 initial rows.
func EnumKey() *Spec {
	label := func(ord int64) string {
		digits := []byte(fmt.Sprintf("%04d", ord))
		digits[0], digits[1], digits[2], digits[3] = digits[3], digits[2], digits[1], digits[0]
		return "L" + string(digits)
	}
	labels := make([]string, 0, enumLabels+2)
	labels = append(labels, "'the first'")
	for ord := range int64(enumLabels) {
		labels = append(labels, "'"+label(ord+1)+"'")
	}
	labels = append(labels, "'a last'")
	s := keyed("enum_key", "workload_label", "('L' || reverse(lpad(ord::text, 4, '0')))::workload_label", label, "the first", "a last")
	s.Limit = enumLabels
	s.Before = []string{createType("CREATE TYPE workload_label AS ENUM (" + strings.Join(labels, ", ") + ")")}
	return s
}

// DomainKey has the key "k workload_number", a domain over bigint with a check.
func DomainKey() *Spec {
	s := keyed("domain_key", "workload_number", "ord", decimal, "-1", "9223372036854775807")
	s.Before = []string{createType("CREATE DOMAIN workload_number AS bigint CHECK (VALUE <> 0)")}
	return s
}

// createType makes a CREATE TYPE or DOMAIN do nothing if it is there.
func createType(sql string) string {
	return "DO $do$ BEGIN " + sql + "; EXCEPTION WHEN duplicate_object THEN NULL; END $do$"
}

// CompositeKey has the key (region, no), text in an ICU collation and smallint, in a table whose columns are in the order
// no, n, region, code, big, note.
func CompositeKey() *Spec {
	s := small("composite_key")
	s.Key = []Column{
		{Name: "region", Type: "text", Def: `text COLLATE "en-x-icu" NOT NULL`, Fill: "(ARRAY['e','E','é','É'])[1 + ord / 100 % 4] || lpad((ord / 100)::text, 10, '0')"},
		{Name: "no", Type: "smallint", Fill: "ord % 100 - 50"},
	}
	s.Layout = []string{"no", "n", "region", "code", "big", "note"}
	s.KeyOf = func(ord int64) []string { return []string{accented(ord / 100), fmt.Sprint(ord%100 - 50)} }
	s.Edges = [][]string{{"", "-32768"}, {"", "0"}, {"e0000000001", "32767"}, {"Ω☃", "0"}}
	return s
}

// UniqueIndexKey has no primary key but a unique index on "k bigint NOT NULL", which is its replica identity.
func UniqueIndexKey() *Spec {
	s := keyed("unique_index_key", "bigint", "ord", decimal, "-9223372036854775808", "0", "9223372036854775807")
	s.UniqueKey = true
	return s
}

// LongTextKey has the key "k text" of about 2 kB that do not compress, so that it can be stored out of line itself. Filling
// is slow (60 hashes per row): keep it to some thousand rows.
func LongTextKey() *Spec {
	s := keyed("long_text_key", "text",
		"lpad(ord::text, 10, '0') || (SELECT string_agg(md5(ord || '/' || j), '' ORDER BY j) FROM generate_series(1, 62) j)",
		func(ord int64) string {
			var b strings.Builder
			fmt.Fprintf(&b, "%010d", ord)
			for j := 1; j <= 62; j++ {
				b.WriteString(md5Hex(fmt.Sprintf("%d/%d", ord, j)))
			}
			return b.String()
		}, "", strings.Repeat("z", 2000))
	return s
}
