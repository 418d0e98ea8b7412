// Package replication owns the logical replication of the original: publication,
// slot, decoding the stream to changes, the three positions, and the fence. What
// is done with a change is the Sink's business (replication/replay).
package replication
