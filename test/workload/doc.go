// Package workload runs live writers against one table while its schema is changed underneath them, and owns the oracle
// that proves that no write of theirs was lost, changed, duplicated or resurrected.
//
// # The oracle
//
// Beside the table stands a mirror: the same columns, the same key, never touched by the schema change. Every transaction
// of a writer does the same on both, the table first and then the mirror, with the same literal values. Both commit or
// neither does, so at every instant one snapshot must see the same rows in both:
//
//   - [Check] compares the two as multisets, every row and column.
//   - The writers compare too, while they run: every statement returns the row it wrote, in the table and in the mirror,
//     and the two must be equal. So a later write cannot hide an earlier loss. A difference ends the run ([Diverged]).
//
// A statement that finds no row in the table is not done on the mirror (another transaction may insert the row in
// between); one that finds it holds its row lock, so the mirror's row cannot move.
//
// # Keys
//
// Every key is made from an ordinal (int64), in the client and in the server alike, ascending in the server's own order
// of the key. The initial rows take the even ordinals, so that there is room for inserts and moved keys everywhere.
//
// # Phases
//
// The test calls [Workload.Phase] when the schema change enters a phase, and may hold it there with
// [Workload.AwaitEach] until every kind of write has happened. [RequireRan] is the proof that the workload ran.
package workload
