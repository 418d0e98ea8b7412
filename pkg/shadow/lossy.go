package shadow

import (
	"fmt"
	"slices"

	"github.com/pgshadow/pgshadow/pkg/schema"
)

// Loss is a column whose values may not be the same when they are converted back.
type Loss struct {
	Column string `json:"column"` // of the original
	Reason string `json:"reason"`
	// Back converts a value of the new column, for which it has a place, to the type
	// that the column had.
	Back  string `json:"-"`
	Value string `json:"-"` // as the new column stores it
}

// Conversions is what the server says of conversions between types.
type Conversions struct {
	// Coercible are the pairs of types, from and to, of which PostgreSQL takes values of
	// the one for the other as they are (pg_cast, manual section CREATE CAST).
	Coercible map[[2]uint32]bool
	// UTC tells that the session's time zone has no hour twice, and skips none.
	UTC bool
}

// losses finds what the change may lose.
func losses(change *Change, m mapping, conversions Conversions) []Loss {
	var all []Loss
	for _, column := range m.shadow.Columns {
		source, mapped := m.source[column.Attnum]
		if !mapped || column.Generated != "" || !changesValue(change, source, column) {
			continue
		}
		reason := ""
		using, has := change.Using[source.Name]
		switch {
		case !has || using.PlainCast:
			if !conversions.keep(source, column) {
				reason = fmt.Sprintf("not every %s can be had back from %s", source.Type, column.Type)
			}
		case !using.AtUTC || !undoneByUTC(source, column):
			reason = "its USING expression may give one value for several"
		}
		if reason != "" {
			value := storedAs(valueOf(change, source), column)
			all = append(all, Loss{Column: source.Name, Reason: reason, Value: value, Back: fmt.Sprintf("((%s)::%s)::%s", value, column.Type, source.Type)})
		}
	}
	return all
}

// betweenTimestamps tells of the two types of timestamps, with as many digits or more.
func betweenTimestamps(from, to schema.Column) bool {
	is := func(oid uint32) bool { return oid == schema.OIDTimestamp || oid == oidTimestampTZ }
	return is(from.BaseOID) && is(to.BaseOID) && holds(to.BaseOID, from.Typmod, to.Typmod)
}

// undoneByUTC tells whether column AT TIME ZONE 'UTC', from the one type of timestamps
// to the other, is undone by the same. Where the types are alike the server goes on to
// convert what it gives in the session's time zone.
func undoneByUTC(from, to schema.Column) bool {
	return from.BaseOID != to.BaseOID && !limitUnknown(from, to) && betweenTimestamps(from, to)
}

// keep tells whether every value of a column is the same when it is converted to the
// other one's type, and back.
func (c Conversions) keep(from, to schema.Column) bool {
	a, b := from.BaseOID, to.BaseOID
	switch {
	case limitUnknown(from, to):
		return false
	case a == b:
		return holds(a, from.Typmod, to.Typmod)
	case b == schema.OIDText || b == schema.OIDVarchar || b == schema.OIDBpchar:
		return keepsAsText(from, to)
	case c.UTC && betweenTimestamps(from, to):
		return true
	case c.Coercible[[2]uint32{a, b}] && to.Typmod < 0:
		return true
	default:
		return widens(from, to)
	}
}

// keepsAsText is keep for a type that holds text: that of a value reads back as the
// value, but for types that are unreadable.
func keepsAsText(from, to schema.Column) bool {
	switch {
	case to.BaseOID == schema.OIDBpchar:
		return false // blanks at the end are not kept apart from those that fill it up
	case from.BaseOID == schema.OIDBpchar:
		// The blanks at the end are taken off, and filled up again only to a length.
		return from.Typmod >= 0 && (to.Typmod < 0 || to.Typmod >= from.Typmod)
	default:
		return to.Typmod < 0 && !slices.Contains(unreadable, from.BaseOID)
	}
}

// widens looks at what whole numbers hold, and at wider.
func widens(from, to schema.Column) bool {
	a, b := from.BaseOID, to.BaseOID
	switch {
	case a == schema.OIDNumeric && from.Typmod >= 0:
		_, scale := numericSize(from.Typmod)
		return scale <= 0 && wholeDigits(from.Typmod) < digits[b] // one digit less always fits
	case b == schema.OIDNumeric && to.Typmod >= 0:
		_, scale := numericSize(to.Typmod)
		return digits[a] > 0 && scale >= 0 && wholeDigits(to.Typmod) >= digits[a]
	default:
		return slices.Contains(wider[a], b) && (a == schema.OIDDate || holds(b, from.Typmod, to.Typmod))
	}
}

// limitUnknown tells that a column becomes one of a domain whose type may have a length,
// digits or fields: the column does not say which.
func limitUnknown(from, to schema.Column) bool {
	const firstOfUsers = 16384 // the lowest OID of what is not PostgreSQL's own
	return to.TypeOID != from.TypeOID && to.TypeOID != to.BaseOID && (to.BaseOID >= firstOfUsers || slices.Contains(limited, to.BaseOID))
}

// OIDs of types in pg_catalog, which never change.
const (
	oidBool        = 16
	oidRegproc     = 24
	oidOID         = 26
	oidJSON        = 114
	oidFloat4      = 700
	oidFloat8      = 701
	oidMacaddr8    = 774
	oidMacaddr     = 829
	oidTime        = 1083
	oidTimestampTZ = 1184
	oidInterval    = 1186
	oidTimeTZ      = 1266
	oidRegoper     = 2203
	oidRegclass    = 2205
	oidJSONB       = 3802
)

// limited are PostgreSQL's own types that take a modifier, and their arrays.
var limited = []uint32{
	schema.OIDBpchar, schema.OIDVarchar, schema.OIDBit, schema.OIDVarbit, schema.OIDNumeric,
	oidTime, oidTimeTZ, schema.OIDTimestamp, oidTimestampTZ, oidInterval,
	1014, 1015, 1561, 1563, 1231, 1183, 1270, 1115, 1185, 1187,
}

// unreadable are the types whose text may not be read back: a name that several
// functions or operators have, the number of a table that is gone.
var unreadable = []uint32{oidRegproc, oidRegoper, oidRegclass}

// wider are the types that hold every value of another one.
var wider = map[uint32][]uint32{
	oidBool:        {schema.OIDInt4},
	schema.OIDInt2: {schema.OIDInt4, schema.OIDInt8, schema.OIDNumeric, oidFloat4, oidFloat8},
	schema.OIDInt4: {schema.OIDInt8, schema.OIDNumeric, oidFloat8},
	schema.OIDInt8: {schema.OIDNumeric},
	oidOID:         {schema.OIDInt8},
	oidFloat4:      {oidFloat8},
	schema.OIDDate: {schema.OIDTimestamp},
	schema.OIDBit:  {schema.OIDVarbit},
	oidMacaddr:     {oidMacaddr8},
	oidJSONB:       {oidJSON},
}

// digits are how many a whole number has at most.
var digits = map[uint32]int{schema.OIDInt2: 5, schema.OIDInt4: 10, schema.OIDInt8: 19}

// wholeDigits are those before the point of a numeric; a scale below zero is of zeros
// beyond its precision.
func wholeDigits(typmod int32) int {
	precision, scale := numericSize(typmod)
	return precision - scale
}

func numericSize(typmod int32) (precision, scale int) {
	size := typmod - 4
	scale = int(size & 0x7ff)
	if scale > 1000 { // from PostgreSQL 15 on it may be less than zero
		scale -= 2048
	}
	return int(size >> 16 & 0xffff), scale
}

// holds tells whether a type with one modifier holds every value that it holds with
// another (PostgreSQL manual section 8).
func holds(base uint32, from, to int32) bool {
	if to < 0 || from == to {
		return true
	}
	isLimited := from >= 0
	switch base {
	case schema.OIDNumeric:
		return isLimited && holdsNumeric(from, to)
	case schema.OIDVarchar, schema.OIDBpchar, schema.OIDVarbit:
		return isLimited && to >= from
	case oidTime, oidTimeTZ, schema.OIDTimestamp, oidTimestampTZ:
		return to >= 6 || isLimited && to >= from
	case oidInterval:
		return holdsInterval(isLimited, from, to)
	default:
		return false
	}
}

// holdsNumeric looks at the digits on both sides of the point.
func holdsNumeric(from, to int32) bool {
	_, was := numericSize(from)
	_, is := numericSize(to)
	return is >= was && wholeDigits(to) >= wholeDigits(from)
}

// holdsInterval looks at which fields an interval has, and at its digits.
func holdsInterval(isLimited bool, from, to int32) bool {
	const everyField, digits = 0x7fff, 0xffff
	return to>>16&everyField == everyField && (to&digits >= 6 || isLimited && to&digits >= from&digits)
}
