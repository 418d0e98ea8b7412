// Package throttle owns the answer to "may the run go on, and if not, why": the
// sources that can say no (replica lag, active sessions, the operator's query,
// file and pause), the pace in rows per second, and the Throttle that asks them
// all. It fails closed: a source that cannot measure says no until it can again.
package throttle
