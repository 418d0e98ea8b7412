package schema

import "testing"

func TestCastType(t *testing.T) {
	for _, c := range []struct {
		column       Column
		cast, stored string
		cuts         bool
	}{
		{Column{Type: "integer", BaseType: "integer", TypeOID: OIDInt4, Typmod: -1}, "integer", "integer", false},
		{Column{Type: "numeric(10,2)", BaseType: "numeric", TypeOID: OIDNumeric, Typmod: 655366}, "numeric", "numeric(10,2)", false},
		{Column{Type: "character(3)", BaseType: "character", TypeOID: OIDBpchar, Typmod: 7}, "pg_catalog.bpchar", "pg_catalog.bpchar", true},
		{Column{Type: "bpchar", BaseType: "character", TypeOID: OIDBpchar, Typmod: -1}, "pg_catalog.bpchar", "bpchar", false},
		{Column{Type: "character varying(5)", BaseType: "character varying", TypeOID: OIDVarchar, Typmod: 9}, `pg_catalog."varchar"`, `pg_catalog."varchar"`, true},
		{Column{Type: "character varying", BaseType: "character varying", TypeOID: OIDVarchar, Typmod: -1}, `pg_catalog."varchar"`, "character varying", false},
		{Column{Type: "bit(3)", BaseType: "bit", TypeOID: OIDBit, Typmod: 3}, `pg_catalog."bit"`, `pg_catalog."bit"`, true},
		{Column{Type: "bit varying(3)", BaseType: "bit varying", TypeOID: OIDVarbit, Typmod: 3}, "pg_catalog.varbit", "pg_catalog.varbit", true},
	} {
		if c.column.CastType() != c.cast || c.column.StoredType() != c.stored || c.column.TruncatesOnCast() != c.cuts {
			t.Errorf("%s: cast to %s, stored as %s, cuts %t", c.column.Type, c.column.CastType(), c.column.StoredType(), c.column.TruncatesOnCast())
		}
	}
}

func TestSameOrder(t *testing.T) {
	of := func(oid uint32) Column { return Column{BaseOID: oid} }
	c := func(collation string) Column { return Column{BaseOID: OIDText, Collation: collation} }
	for _, p := range []struct {
		from, to Column
		want     bool
	}{
		{of(OIDInt4), of(OIDInt4), true},
		{of(OIDInt2), of(OIDInt8), true},
		{of(OIDInt8), of(OIDInt4), true}, // it fits or it fails
		{of(OIDInt4), of(OIDNumeric), true},
		{of(OIDText), of(OIDVarchar), true},
		{of(OIDDate), of(OIDTimestamp), true},
		{of(OIDInt4), of(OIDText), false},
		{of(OIDText), of(OIDInt4), false},
		{of(OIDBpchar), of(OIDText), false}, // trailing blanks count in one of them
		{of(OIDTimestamp), of(OIDDate), false},
		{of(OIDVarbit), of(OIDBit), false},
		{c(`"C"`), c(`"C"`), true},
		{c(`"C"`), c(""), false},
	} {
		if got := SameOrder(p.from, p.to); got != p.want {
			t.Errorf("from %+v to %+v: %t", p.from, p.to, got)
		}
	}
}
