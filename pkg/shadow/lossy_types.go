package shadow

import "github.com/pgshadow/pgshadow/pkg/schema"

// firstOfUsers is the lowest OID of what is not PostgreSQL's own.
const firstOfUsers = 16384

// varHeader is what a modifier of varchar and bpchar has beyond the length.
const varHeader = 4

// OIDs of types in pg_catalog, which never change.
const (
	oidBool          = 16
	oidRegproc       = 24
	oidOID           = 26
	oidJSON          = 114
	oidNodeTree      = 194
	oidCIDR          = 650
	oidFloat4        = 700
	oidFloat8        = 701
	oidMacaddr8      = 774
	oidMacaddr       = 829
	oidInet          = 869
	oidACLItem       = 1033
	oidTime          = 1083
	oidTimestampTZ   = 1184
	oidInterval      = 1186
	oidTimeTZ        = 1266
	oidRegoper       = 2203
	oidRegclass      = 2205
	oidUUID          = 2950
	oidNDistinct     = 3361
	oidDependencies  = 3402
	oidGTSVector     = 3642
	oidJSONB         = 3802
	oidBloomSummary  = 4600
	oidMinmaxSummary = 4601
	oidMCVList       = 5017
)

// limited are PostgreSQL's own types that take a modifier, and their arrays.
var limited = []uint32{
	schema.OIDBpchar, schema.OIDVarchar, schema.OIDBit, schema.OIDVarbit, schema.OIDNumeric,
	oidTime, oidTimeTZ, schema.OIDTimestamp, oidTimestampTZ, oidInterval,
	1014, 1015, 1561, 1563, 1231, 1183, 1270, 1115, 1185, 1187,
}

// Unreadable are the types whose text may not be read back: a name that several
// functions or operators have, the number of a table or a grantee that is gone, and what
// the type does not read at all. Nor may that of what has a part of such a type.
var Unreadable = []uint32{oidRegproc, oidRegoper, oidRegclass, oidACLItem, oidNodeTree, oidNDistinct, oidDependencies, oidMCVList,
	oidBloomSummary, oidMinmaxSummary, oidGTSVector}

// textTypes are those that hold any text.
var textTypes = []uint32{schema.OIDText, schema.OIDVarchar, schema.OIDBpchar}

// textLength is that of the longest text of a value, of types that have one.
var textLength = map[uint32]int32{oidBool: 5, schema.OIDInt2: 6, schema.OIDInt4: 11, schema.OIDInt8: 20, oidUUID: 36}

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

// narrower are the types that do not hold every value of another one, or not apart.
var narrower = map[uint32][]uint32{
	schema.OIDInt4:      {schema.OIDInt2, oidFloat4, oidBool},
	schema.OIDInt8:      {schema.OIDInt2, schema.OIDInt4, oidFloat4, oidFloat8, oidOID},
	schema.OIDNumeric:   {schema.OIDInt2, schema.OIDInt4, schema.OIDInt8, oidFloat4, oidFloat8},
	oidFloat4:           {schema.OIDInt2, schema.OIDInt4, schema.OIDInt8, schema.OIDNumeric},
	oidFloat8:           {schema.OIDInt2, schema.OIDInt4, schema.OIDInt8, schema.OIDNumeric, oidFloat4},
	schema.OIDText:      parsed,
	schema.OIDVarchar:   parsed,
	schema.OIDTimestamp: {schema.OIDDate, oidTime},
	oidTimestampTZ:      {schema.OIDDate, oidTime, oidTimeTZ},
	oidTimeTZ:           {oidTime},
	oidInterval:         {oidTime},
	oidJSON:             {oidJSONB},
	oidInet:             {oidCIDR},
	oidMacaddr8:         {oidMacaddr},
}

// parsed are types that make something of a text.
var parsed = []uint32{oidBool, schema.OIDInt2, schema.OIDInt4, schema.OIDInt8, schema.OIDNumeric, oidFloat4, oidFloat8, schema.OIDDate, oidTime, oidTimeTZ,
	schema.OIDTimestamp, oidTimestampTZ, oidInterval, oidUUID, oidJSON, oidJSONB, oidInet, oidCIDR}

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
		return holdsInterval(from, to)
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

// holdsInterval looks at the finest field that an interval has, and at its digits: what
// is coarser is not limited (AdjustIntervalForTypmod in PostgreSQL's timestamp.c).
func holdsInterval(from, to int32) bool {
	was, digitsFrom := finestField(from)
	is, digitsTo := finestField(to)
	return is < was || is == was && digitsTo >= digitsFrom
}

// finestField is counted from the seconds on, which alone have digits.
func finestField(typmod int32) (field int, digits int32) {
	const mask, most = 0xffff, 6
	const second, minute, hour, day, month, year = 12, 11, 10, 3, 1, 2 // bits of the modifier
	if typmod < 0 {
		return 0, most
	}
	for i, bit := range []int{second, minute, hour, day, month, year} {
		if typmod>>16&(1<<bit) != 0 {
			if i == 0 {
				digits = min(typmod&mask, most)
			}
			return i, digits
		}
	}
	return 0, most
}
