package schema

// OIDs of the built-in types that need a word of their own (pg_type.dat).
const (
	OIDInt8        = 20
	OIDInt2        = 21
	OIDInt4        = 23
	OIDText        = 25
	OIDBpchar      = 1042
	OIDVarchar     = 1043
	OIDDate        = 1082
	OIDTimestamp   = 1114
	OIDBit         = 1560
	OIDVarbit      = 1562
	OIDNumeric     = 1700
	noSuchTypeName = ""
)

// bareNames spell the types whose SQL name without a modifier means another one
// (character is character(1)), so that a cast never cuts a value short.
func bareName(oid uint32) string {
	switch oid {
	case OIDBpchar:
		return "pg_catalog.bpchar"
	case OIDVarchar:
		return `pg_catalog."varchar"`
	case OIDBit:
		return `pg_catalog."bit"`
	case OIDVarbit:
		return "pg_catalog.varbit"
	default:
		return noSuchTypeName
	}
}

// CastType spells the column's type without any length limit: a cast to it
// neither truncates nor rounds.
func (c Column) CastType() string {
	if name := bareName(c.TypeOID); name != noSuchTypeName {
		return name
	}
	return c.BaseType
}

// TruncatesOnCast tells that an explicit cast to the column's type silently cuts
// what an assignment refuses: the character and bit types with a length.
func (c Column) TruncatesOnCast() bool { return bareName(c.TypeOID) != noSuchTypeName && c.Typmod >= 0 }

// StoredType spells the type that a value takes when it is assigned to the
// column, but for the length limit that an assignment checks and a cast cuts.
func (c Column) StoredType() string {
	if c.TruncatesOnCast() {
		return c.CastType()
	}
	return c.Type
}

// SameOrder tells that values keep their order when they move from one column to
// the other by assignment: then a key range of one is a key range of the other.
func SameOrder(from, to Column) bool {
	if from.Collation != to.Collation {
		return false
	}
	if from.BaseOID == to.BaseOID {
		return true
	}
	within := func(oid uint32, family ...uint32) bool {
		for _, member := range family {
			if oid == member {
				return true
			}
		}
		return false
	}
	for _, family := range [][]uint32{
		{OIDInt2, OIDInt4, OIDInt8, OIDNumeric},
		{OIDText, OIDVarchar},
	} {
		if within(from.BaseOID, family...) && within(to.BaseOID, family...) {
			return true
		}
	}
	return from.BaseOID == OIDDate && to.BaseOID == OIDTimestamp
}
