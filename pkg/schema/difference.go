package schema

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Differences says what is not as it was, in a short sentence each. There is one
// at least when the Fingerprints differ, and none when they are equal.
func (t *Table) Differences(now *Table) []string {
	was, is := t.compared(now.Owner), now.compared(now.Owner)
	all := is.movedFrom(was)
	all = append(all, changes("the table", was.facts(), is.facts())...)
	all = append(all, was.differingParts(is, (*Table).columns, "was added", "was dropped")...)
	all = append(all, was.differingParts(is, (*Table).indexes, "was created", "was dropped")...)
	all = append(all, was.differingParts(is, (*Table).constraints, "was added", "was dropped")...)
	all = append(all, was.differingParts(is, (*Table).statistics, "was created", "was dropped")...)
	all = append(all, was.differingParts(is, (*Table).sequences, "is a sequence of the table now", "is no sequence of the table any more")...)
	all = append(all, was.differingParts(is, (*Table).attached, "was created", "was dropped")...)
	all = append(all, was.differingParts(is, (*Table).inherited, "was created", "was dropped")...)
	all = append(all, grantChanges("", is.Owner, was.Grants, is.Grants)...)
	if len(all) == 0 && t.Fingerprint() != now.Fingerprint() {
		return []string{"the table was created anew"} // whatever else differs has a sentence
	}
	return all
}

func (t *Table) movedFrom(was *Table) (all []string) {
	if was.Name != t.Name {
		all = append(all, "the table was renamed to "+pg.Readable(t.Name))
	}
	if was.Schema != t.Schema {
		all = append(all, "the table was moved to schema "+pg.Readable(t.Schema))
	}
	return all
}

// fact is one property of an object, in words. Of a quiet one only the name is
// told.
type fact struct {
	name, value string
	quiet       bool
}

// changes compares the same facts of an object, as they were and as they are.
func changes(object string, was, now []fact) (all []string) {
	for i := range was {
		switch {
		case was[i].value == now[i].value:
		case was[i].quiet:
			all = append(all, fmt.Sprintf("%s changed its %s", object, was[i].name))
		default:
			all = append(all, fmt.Sprintf("%s changed its %s from %s to %s", object, was[i].name, orNone(was[i].value), orNone(now[i].value)))
		}
	}
	return all
}

func orNone(value string) string {
	if value == "" {
		return "none"
	}
	return value
}

// part is an object of a table that has a name of its own.
type part struct {
	kind, name string
	identity   string // what stays the same when it changes
	sketch     string // said of a new one
	facts      []fact
	grants     []Grant
	rest       []byte // all that counts but the name
}

func (p part) String() string { return p.kind + " " + p.name }

// differingParts pairs the table's objects of one kind with those that there are
// now: by what identifies them, else by being the same under another name.
func (t *Table) differingParts(now *Table, list func(*Table) []part, added, dropped string) (all []string) {
	old, left := list(t), list(now)
	partner := func(is func(part) bool) (part, bool) {
		i := slices.IndexFunc(left, is)
		if i < 0 {
			return part{}, false
		}
		found := left[i]
		left = slices.Delete(left, i, i+1)
		return found, true
	}
	var unpaired []part
	for _, was := range old {
		if is, ok := partner(func(p part) bool { return p.identity == was.identity }); ok {
			all = append(all, was.changes(is, now.Owner)...)
		} else {
			unpaired = append(unpaired, was)
		}
	}
	for _, was := range unpaired {
		if is, ok := partner(func(p part) bool { return bytes.Equal(p.rest, was.rest) }); ok {
			all = append(all, was.changes(is, now.Owner)...)
		} else {
			all = append(all, fmt.Sprintf("%s %s", was, dropped))
		}
	}
	for _, is := range left {
		all = append(all, fmt.Sprintf("%s %s (%s)", is, added, is.sketch))
	}
	return all
}

func (p part) changes(now part, owner string) (all []string) {
	if p.name != now.name {
		all = append(all, fmt.Sprintf("%s was renamed to %s", p, now.name))
	}
	all = append(all, changes(now.String(), p.facts, now.facts)...)
	all = append(all, grantChanges(" on "+now.String(), owner, p.grants, now.grants)...)
	if len(all) == 0 && !bytes.Equal(p.rest, now.rest) {
		return []string{fmt.Sprintf("%s changed", now)}
	}
	return all
}

// grantChanges tells of each role what it may do now and may no longer do.
func grantChanges(on, owner string, was, now []Grant) []string {
	told := telling{on: on, owner: owner, privileges: map[string][]string{}}
	left := slices.Clone(now)
	for _, g := range was {
		i := slices.IndexFunc(left, func(o Grant) bool {
			return o.Grantor == g.Grantor && o.Grantee == g.Grantee && o.Privilege == g.Privilege
		})
		if i < 0 {
			told.add(g, g.Privilege, "revoked from")
			continue
		}
		if left[i].Grantable != g.Grantable {
			told.add(g, "GRANT OPTION FOR "+g.Privilege, either(g.Grantable, "revoked from", "granted to"))
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, g := range left {
		told.add(g, g.Privilege+either(g.Grantable, " WITH GRANT OPTION", ""), "granted to")
	}
	return told.sentences()
}

// telling gathers the privileges of which the same is to be told.
type telling struct {
	on, owner  string
	became     []string
	privileges map[string][]string // by what became of them
}

func (t *telling) add(g Grant, privilege, became string) {
	became += " " + role(g.Grantee)
	if g.Grantor != t.owner {
		became += " by " + role(g.Grantor)
	}
	if t.privileges[became] == nil {
		t.became = append(t.became, became)
	}
	t.privileges[became] = append(t.privileges[became], privilege)
}

func (t *telling) sentences() (all []string) {
	for _, became := range t.became {
		privileges := t.privileges[became]
		all = append(all, fmt.Sprintf("%s%s %s %s", strings.Join(privileges, ", "), t.on, either(len(privileges) == 1, "was", "were"), became))
	}
	return all
}

// role is a role's name for people; the empty one is PUBLIC.
func role(name string) string {
	if name == "" {
		return "PUBLIC"
	}
	return pg.Readable(name)
}
