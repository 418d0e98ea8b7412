package shadow

import (
	"testing"

	"github.com/pgshadow/pgshadow/pkg/schema"
)

func TestKeep(t *testing.T) {
	t.Parallel()
	column := func(oid uint32, typmod int32) schema.Column {
		return schema.Column{TypeOID: oid, BaseOID: oid, Typmod: typmod}
	}
	of := func(oid uint32) schema.Column { return column(oid, -1) }
	numeric := func(precision, scale int32) schema.Column {
		return column(schema.OIDNumeric, precision<<16+scale&0x7ff+4)
	}
	domain := func(base uint32) schema.Column { return schema.Column{TypeOID: 16400, BaseOID: base, Typmod: -1} }
	const int4s, int8s, varchars, regprocs = 1007, 1016, 1015, 1008 // arrays
	const everyField, hourToMinute, hourToSecond, dayToSecond = 0x7fff, 1<<10 | 1<<11, 1<<10 | 1<<11 | 1<<12, 1<<3 | 1<<10 | 1<<11 | 1<<12
	interval := func(fields, digits int32) schema.Column { return column(oidInterval, fields<<16|digits) }
	c := Conversions{Elements: map[uint32]uint32{int4s: schema.OIDInt4, int8s: schema.OIDInt8, varchars: schema.OIDVarchar, regprocs: oidRegproc}, Unreadable: map[uint32]bool{regprocs: true}, Coercible: map[[2]uint32]bool{{schema.OIDVarchar, schema.OIDText}: true, {schema.OIDText, schema.OIDVarchar}: true, {schema.OIDText, schema.OIDBpchar}: true,
		{schema.OIDVarbit, schema.OIDBit}: true, {schema.OIDBit, schema.OIDVarbit}: true}}
	for _, test := range []struct {
		from, to schema.Column
		keeps    bool
	}{
		{of(schema.OIDInt4), of(schema.OIDInt8), true},
		{of(schema.OIDInt8), of(schema.OIDInt4), false},
		{of(schema.OIDInt4), of(schema.OIDText), true},
		{of(schema.OIDText), of(schema.OIDInt4), false},
		{of(schema.OIDInt4), numeric(10, 0), true},
		{of(schema.OIDInt4), numeric(9, 0), false},
		{of(schema.OIDInt8), of(oidFloat8), false},
		{of(schema.OIDInt4), of(oidFloat4), false},
		{of(schema.OIDInt4), of(oidFloat8), true},
		{numeric(10, 2), numeric(12, 2), true},
		{numeric(10, 2), numeric(11, 3), true},
		{numeric(10, 2), numeric(10, 3), false},
		{numeric(10, 2), numeric(12, 1), false},
		{numeric(10, 2), of(schema.OIDNumeric), true},
		{of(schema.OIDNumeric), numeric(30, 10), false},
		{numeric(5, -2), numeric(7, 0), true},
		{numeric(5, -2), numeric(6, 0), false},
		{numeric(7, 0), numeric(7, -2), false},
		{of(schema.OIDInt4), numeric(12, -2), false},
		{of(schema.OIDInt4), numeric(10, 1), false},
		{numeric(9, 0), of(schema.OIDInt4), true},
		{numeric(10, 0), of(schema.OIDInt4), false},
		{numeric(9, 1), of(schema.OIDInt8), false},
		{numeric(9, 0), of(schema.OIDText), true},
		{numeric(3, 0), of(oidFloat8), false},
		{of(schema.OIDNumeric), of(schema.OIDInt8), false},
		{column(schema.OIDVarchar, 24), column(schema.OIDVarchar, 14), false},
		{column(schema.OIDVarchar, 14), column(schema.OIDVarchar, 24), true},
		{column(schema.OIDVarchar, 14), of(schema.OIDText), true},
		{of(schema.OIDText), column(schema.OIDVarchar, 14), false},
		{of(schema.OIDText), of(schema.OIDVarchar), true},
		{of(schema.OIDText), column(schema.OIDBpchar, 14), false},
		{column(schema.OIDBpchar, 9), of(schema.OIDText), true},
		{column(schema.OIDBpchar, 9), of(schema.OIDVarchar), true},
		{column(schema.OIDBpchar, 9), column(schema.OIDVarchar, 9), true},
		{column(schema.OIDBpchar, 9), column(schema.OIDVarchar, 8), false},
		{column(schema.OIDBpchar, 9), of(schema.OIDBpchar), true},
		{of(schema.OIDBpchar), of(schema.OIDText), false},
		{column(schema.OIDBit, 5), column(schema.OIDVarbit, 5), true},
		{column(schema.OIDVarbit, 5), column(schema.OIDBit, 5), false},
		{column(schema.OIDBit, 5), column(schema.OIDVarbit, 3), false},
		{column(schema.OIDVarbit, 5), of(schema.OIDBit), true},
		{of(oidRegclass), of(schema.OIDText), false},
		{of(schema.OIDNumeric), domain(schema.OIDNumeric), false},
		{domain(schema.OIDNumeric), of(schema.OIDNumeric), true},
		{domain(schema.OIDNumeric), domain(schema.OIDNumeric), true},
		{of(schema.OIDText), domain(schema.OIDVarchar), false},
		{of(schema.OIDInt4), domain(schema.OIDText), true},
		{of(16390), domain(16390), false},
		{domain(16390), of(16390), true},
		{of(schema.OIDDate), column(schema.OIDTimestamp, 0), true},
		{column(schema.OIDTimestamp, 3), of(schema.OIDTimestamp), true},
		{of(schema.OIDTimestamp), column(schema.OIDTimestamp, 3), false},
		{of(schema.OIDTimestamp), of(schema.OIDDate), false},
		{of(schema.OIDDate), of(schema.OIDTimestamp), true},
		{of(schema.OIDTimestamp), of(oidTimestampTZ), false},
		{of(oidACLItem), of(schema.OIDText), false},
		{of(oidNodeTree), of(schema.OIDText), false},
		{of(schema.OIDInt2), column(schema.OIDVarchar, 10), true},
		{of(schema.OIDInt4), column(schema.OIDVarchar, 15), true},
		{of(schema.OIDInt4), column(schema.OIDVarchar, 14), false},
		{of(schema.OIDInt8), column(schema.OIDVarchar, 24), true},
		{of(schema.OIDInt8), column(schema.OIDVarchar, 23), false},
		{of(oidBool), column(schema.OIDVarchar, 9), true},
		{of(oidBool), column(schema.OIDVarchar, 8), false},
		{of(oidUUID), column(schema.OIDVarchar, 40), true},
		{of(oidUUID), column(schema.OIDVarchar, 39), false},
		{of(schema.OIDDate), column(schema.OIDVarchar, 40), false},
		{of(int4s), of(int8s), true},
		{of(int8s), of(int4s), false},
		{of(int4s), column(varchars, 15), true},
		{of(int4s), column(varchars, 14), false},
		{column(varchars, 9), column(varchars, 13), true},
		{column(varchars, 13), column(varchars, 9), false},
		{column(varchars, 9), of(varchars), true},
		{of(regprocs), of(varchars), false},
		{of(regprocs), of(schema.OIDText), false},
		{of(varchars), domain(varchars), false},
		{interval(dayToSecond, 3), interval(dayToSecond, 6), true},
		{interval(dayToSecond, 6), interval(dayToSecond, 3), false},
		{interval(hourToMinute, 0xffff), interval(hourToSecond, 0xffff), true},
		{interval(hourToMinute, 0xffff), interval(dayToSecond, 0), true},
		{interval(hourToSecond, 0xffff), interval(hourToMinute, 0xffff), false},
		{interval(hourToSecond, 0xffff), interval(dayToSecond, 0xffff), true},
		{of(oidInterval), interval(dayToSecond, 0xffff), true},
		{of(oidInterval), interval(everyField, 5), false},
		{interval(everyField, 3), interval(everyField, 5), true},
	} {
		if got := c.keep(test.from, test.to); got != test.keeps {
			t.Errorf("from %d (%d) to %d (%d): %v", test.from.BaseOID, test.from.Typmod, test.to.BaseOID, test.to.Typmod, got)
		}
	}
	c.UTC = true
	if !c.keep(of(schema.OIDTimestamp), of(oidTimestampTZ)) || c.keep(of(schema.OIDTimestamp), column(oidTimestampTZ, 0)) {
		t.Error("in UTC only the digits count")
	}
}

// TestLossOfUsing: what is taken for a conversion that loses nothing, and what is not.
func TestLossOfUsing(t *testing.T) {
	t.Parallel()
	types := map[string]schema.Column{"int": {TypeOID: schema.OIDInt4, Typmod: -1}, "bigint": {TypeOID: schema.OIDInt8, Typmod: -1}, "text": {TypeOID: schema.OIDText, Typmod: -1},
		"varchar(3)": {TypeOID: schema.OIDVarchar, Typmod: 7}, "timestamp": {TypeOID: schema.OIDTimestamp, Typmod: -1}, "timestamptz": {TypeOID: oidTimestampTZ, Typmod: -1},
		"timestamptz(0)": {TypeOID: oidTimestampTZ, Typmod: 0}}
	for _, test := range []struct {
		from, to, using string
		keeps           bool
	}{
		{"int", "bigint", "x", true},
		{"int", "bigint", "t.x::bigint", true},
		{"int", "bigint", "CAST(x AS int8)::bigint", true},
		{"int", "bigint", "x::pg_catalog.int8", true},
		{"int", "bigint", "x::public.int8", false},
		{"int", "bigint", "x::int2", false},
		{"int", "bigint", "x::int2::bigint", false},
		{"int", "bigint", "y::bigint", false},
		{"int", "bigint", "x::bigint[]", false},
		{"int", "bigint", "-x", false},
		{"text", "text", "x::varchar(3)", false},
		{"text", "text", "x::varchar(3)::text", false},
		{"text", "varchar(3)", "x::varchar(3)", false},
		{"varchar(3)", "varchar(3)", "x::varchar(3)", true},
		{"varchar(3)", "varchar(3)", "x::varchar(2)", false},
		{"timestamp", "timestamp", "x::date", false},
		{"timestamp", "timestamptz", "x AT TIME ZONE 'UTC'", true},
		{"timestamptz", "timestamp", "t.x AT TIME ZONE 'gmt'", true},
		{"timestamp", "timestamptz", "(x AT TIME ZONE 'Etc/UTC')::timestamptz", true},
		{"timestamp", "timestamptz(0)", "x AT TIME ZONE 'UTC'", false},
		{"timestamp", "timestamp", "x AT TIME ZONE 'UTC'", false},
		{"timestamp", "timestamptz", "x AT TIME ZONE 'Europe/Berlin'", false},
		{"timestamp", "timestamptz", "y AT TIME ZONE 'UTC'", false},
		{"timestamp", "timestamptz", "x::date AT TIME ZONE 'UTC'", false},
		{"timestamp", "timestamptz", "LEAST(x, y) AT TIME ZONE 'UTC'", false},
		{"timestamp", "timestamptz", "CASE WHEN y > 5 THEN NULL ELSE x END AT TIME ZONE 'UTC'", false},
		{"timestamp", "timestamptz", "timezone('UTC', x)", false},
		{"timestamp", "timestamptz", "public.timezone('UTC', x)", false},
		{"timestamp", "timestamptz", "pg_catalog.timezone()", false},
		{"timestamp", "timestamptz", "x AT TIME ZONE 'UTC' AT TIME ZONE 'Asia/Tokyo' AT TIME ZONE 'UTC'", false},
	} {
		change, err := Parse("t", []string{"ALTER x TYPE " + test.to + " USING " + test.using}, nil)
		if err != nil {
			t.Fatal(err)
		}
		original, changed := &schema.Table{Columns: []schema.Column{types[test.from]}}, &schema.Table{Columns: []schema.Column{types[test.to]}}
		for _, table := range []*schema.Table{original, changed} {
			column := &table.Columns[0]
			column.Name, column.Attnum, column.BaseOID = "x", 1, column.TypeOID
		}
		if found := losses(change, newMapping(original, changed), Conversions{}); (len(found) == 0) != test.keeps {
			t.Errorf("%s to %s USING %s: %+v", test.from, test.to, test.using, found)
		}
	}
}
