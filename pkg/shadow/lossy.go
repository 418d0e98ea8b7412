package shadow

import (
	"fmt"
	"slices"
	"strings"

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
	// Elements has, of an array type, the type of its elements.
	Elements map[uint32]uint32
	// Unreadable are types that have a part of one of the types Unreadable.
	Unreadable map[uint32]bool
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
				reason = conversions.whyLost(source, column)
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
	return areTimestamps(from, to) && holds(to.BaseOID, from.Typmod, to.Typmod)
}

func areTimestamps(from, to schema.Column) bool {
	is := func(oid uint32) bool { return oid == schema.OIDTimestamp || oid == oidTimestampTZ }
	return is(from.BaseOID) && is(to.BaseOID)
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
	if limitUnknown(from, to) {
		return false
	}
	if ofFrom, ofTo, arrays := c.elements(from, to); arrays {
		return c.keep(ofFrom, ofTo)
	}
	a, b := from.BaseOID, to.BaseOID
	switch {
	case a == b:
		return holds(a, from.Typmod, to.Typmod)
	case b == schema.OIDText || b == schema.OIDVarchar || b == schema.OIDBpchar:
		return c.keepsAsText(from, to)
	case c.UTC && betweenTimestamps(from, to):
		return true
	case c.Coercible[[2]uint32{a, b}] && to.Typmod < 0:
		return true
	default:
		return widens(from, to)
	}
}

// elements of two arrays, which are converted one by one: an array's modifier is theirs.
func (c Conversions) elements(from, to schema.Column) (ofFrom, ofTo schema.Column, arrays bool) {
	a, b := c.Elements[from.BaseOID], c.Elements[to.BaseOID]
	return schema.Column{TypeOID: a, BaseOID: a, Typmod: from.Typmod}, schema.Column{TypeOID: b, BaseOID: b, Typmod: to.Typmod}, a != 0 && b != 0
}

// keepsAsText is keep for a type that holds text: that of a value reads back as the
// value, but for types that are unreadable.
func (c Conversions) keepsAsText(from, to schema.Column) bool {
	longest, known := textLength[from.BaseOID]
	switch {
	case to.BaseOID == schema.OIDBpchar:
		return false // blanks at the end are not kept apart from those that fill it up
	case from.BaseOID == schema.OIDBpchar:
		// The blanks at the end are taken off, and filled up again only to a length.
		return from.Typmod >= 0 && (to.Typmod < 0 || to.Typmod >= from.Typmod)
	case known && to.Typmod >= 0:
		return to.Typmod-varHeader >= longest
	default:
		return to.Typmod < 0 && !c.unreadable(from)
	}
}

func (c Conversions) unreadable(column schema.Column) bool {
	return c.Unreadable[column.TypeOID] || slices.Contains(Unreadable, column.BaseOID)
}

// whyLost is for columns that do not keep every value, as far as is known.
func (c Conversions) whyLost(from, to schema.Column) string {
	reason := fmt.Sprintf("not every %s can be had back from %s", from.Type, to.Type)
	if !c.isLoss(from, to) {
		return "it is not known that every" + strings.TrimPrefix(reason, "not every")
	}
	return reason
}

// isLoss tells of columns that do not keep every value whether some value is known not to
// be kept. Of a domain it is not known which values its CHECK lets in.
func (c Conversions) isLoss(from, to schema.Column) bool {
	return from.TypeOID == from.BaseOID && !limitUnknown(from, to) && c.loses(from, to)
}

// loses is isLoss but for domains.
func (c Conversions) loses(from, to schema.Column) bool {
	if ofFrom, ofTo, arrays := c.elements(from, to); arrays {
		return c.loses(ofFrom, ofTo)
	}
	a, b := from.BaseOID, to.BaseOID
	switch {
	case a == b:
		return a < firstOfUsers && c.Elements[a] == 0
	case slices.Contains(textTypes, b):
		return c.losesAsText(from, to)
	case areTimestamps(from, to):
		return !holds(b, from.Typmod, to.Typmod)
	case b == schema.OIDNumeric && digits[a] > 0:
		return true
	case a == schema.OIDNumeric && from.Typmod >= 0:
		return digits[b] > 0
	default:
		return slices.Contains(narrower[a], b)
	}
}

// losesAsText is loses for a type that holds text.
func (c Conversions) losesAsText(from, to schema.Column) bool {
	_, known := textLength[from.BaseOID]
	return slices.Contains(textTypes, from.BaseOID) || known && to.BaseOID == schema.OIDVarchar || to.BaseOID != schema.OIDBpchar && c.unreadable(from)
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
	return to.TypeOID != from.TypeOID && to.TypeOID != to.BaseOID && (to.BaseOID >= firstOfUsers || slices.Contains(limited, to.BaseOID))
}
