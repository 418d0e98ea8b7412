package pg

import (
	"net"
	"time"

	"github.com/jackc/pgx/v5"
)

// silenceLimit is how long the other end of a connection may be silent, neither
// acknowledging what was sent nor answering probes, until the connection counts as
// lost. The system's own limit is a quarter of an hour.
const silenceLimit = time.Minute

// dialSoon has connections notice that the network to the server is gone.
func dialSoon(config *pgx.ConnConfig) {
	dialer := &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silenceLimit / 4, Interval: silenceLimit / 8, Count: 6},
		Control:         limitSilence,
	}
	config.DialFunc = dialer.DialContext
}
