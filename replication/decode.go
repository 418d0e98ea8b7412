package replication

import (
	"fmt"
	"slices"

	"github.com/jackc/pglogrepl"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
)

func (s *Stream) handle(message pglogrepl.Message) error {
	switch m := message.(type) {
	case *pglogrepl.BeginMessage:
		s.transaction = m
	case *pglogrepl.CommitMessage:
		s.transaction = nil
		s.advance(pg.LSN(m.TransactionEndLSN))
	case *pglogrepl.RelationMessage:
		return s.setRelation(m)
	case *pglogrepl.InsertMessage:
		return s.change(m.RelationID, nil, m.Tuple)
	case *pglogrepl.UpdateMessage:
		return s.change(m.RelationID, m.OldTuple, m.NewTuple)
	case *pglogrepl.DeleteMessage:
		return s.change(m.RelationID, m.OldTuple, nil)
	case *pglogrepl.TruncateMessage:
		s.truncate(m)
	case *pglogrepl.LogicalDecodingMessage:
		s.fences.pass(m.Prefix, string(m.Content))
	default: // origins and types carry nothing that is needed
	}
	return nil
}

func (s *Stream) truncate(m *pglogrepl.TruncateMessage) {
	if s.relation != 0 && slices.Contains(m.RelationIDs, s.relation) {
		s.received.Add(1)
		s.sink.Truncate(s.transaction.Xid, pg.LSN(s.transaction.FinalLSN))
	}
}

// setRelation learns the column order of the stream's tuples, and ends the
// stream when the original no longer has the name and columns that were planned for.
func (s *Stream) setRelation(m *pglogrepl.RelationMessage) error {
	columns, err := s.compare(m)
	if err != nil {
		return err
	}
	s.relation = m.RelationID
	s.keyAt = s.keyAt[:0]
	for _, key := range s.config.Key {
		s.keyAt = append(s.keyAt, slices.IndexFunc(columns, func(c StreamColumn) bool { return c.Name == key.Name }))
	}
	return nil
}

// change marks the keys of a written row: of its new tuple, and of the old one
// where the server sent it, which it does when the key changed.
func (s *Stream) change(relation uint32, old, now *pglogrepl.TupleData) error {
	if relation != s.relation || s.transaction == nil {
		return fmt.Errorf("decoding a change: it is of relation %d outside the plan", relation)
	}
	s.received.Add(1)
	var oldKey, newKey keyset.Key
	var err error
	if old != nil {
		if oldKey, err = s.key(old, nil); err != nil {
			return err
		}
		s.add(oldKey)
	}
	if now != nil {
		if newKey, err = s.key(now, old); err != nil {
			return err
		}
		if old == nil || newKey != oldKey {
			s.add(newKey)
		}
	}
	return nil
}

func (s *Stream) add(key keyset.Key) {
	s.sink.Add(Change{Key: key, XID: s.transaction.Xid, Commit: pg.LSN(s.transaction.FinalLSN)})
}

// key takes the key out of a tuple. A key column stored out of line that an
// UPDATE did not touch is not in the new tuple, but then it is in the old one.
func (s *Stream) key(tuple, fallback *pglogrepl.TupleData) (keyset.Key, error) {
	values := make([]string, len(s.keyAt))
	for i, at := range s.keyAt {
		column := tuple.Columns[at]
		if column.DataType == pglogrepl.TupleDataTypeToast && fallback != nil {
			column = fallback.Columns[at]
		}
		if column.DataType != pglogrepl.TupleDataTypeText {
			return "", fmt.Errorf("decoding a change: key column %q came without a value (%q)", s.config.Key[i].Name, column.DataType)
		}
		values[i] = string(column.Data)
	}
	return keyset.NewKey(values...), nil
}
