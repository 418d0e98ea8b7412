package migration

import (
	"context"
	"fmt"
)

// note warns, once, of what is no reason to refuse.
func (m *Migration) note(ctx context.Context) error {
	if m.recovery.again {
		return nil
	}
	notes, err := m.publicationNotes(ctx)
	if err != nil {
		return err
	}
	triggers, err := m.eventTriggerNotes(ctx)
	if err != nil {
		return err
	}
	notes = append(notes, triggers...)
	if note, newer := versionNote(m.target.server.Version); newer {
		notes = append(notes, note)
	}
	for _, note := range notes {
		m.config.Observer.Observe(Noted{Note: note})
	}
	m.report.Warnings = append(m.report.Warnings, notes...)
	return nil
}

// versionNote warns of a server that is newer than what pgshadow was tested with.
func versionNote(version int) (note string, newer bool) {
	major := version / 10000
	return fmt.Sprintf("not tested with PostgreSQL %d, only up to %d", major, testedMajor), major > testedMajor
}

// eventTriggerNotes tell of the event triggers that fire on what a run does.
func (m *Migration) eventTriggerNotes(ctx context.Context) ([]string, error) {
	var names *string
	err := m.control.QueryRow(ctx, `SELECT pg_catalog.string_agg(pg_catalog.quote_ident(evtname), ', ' ORDER BY evtname) FROM pg_catalog.pg_event_trigger
		WHERE evtevent IN ('ddl_command_start', 'ddl_command_end', 'sql_drop', 'table_rewrite')
		  AND evtenabled IN ('A', CASE pg_catalog.current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)`).Scan(&names)
	if err != nil {
		return nil, fmt.Errorf("looking up the event triggers: %w", err)
	}
	if names == nil {
		return nil, nil
	}
	return []string{fmt.Sprintf("event trigger %s fires on pgshadow's own statements too, in the swap under its lock: CREATE, ALTER and DROP of the shadow and of what is attached to the table", *names)}, nil
}
