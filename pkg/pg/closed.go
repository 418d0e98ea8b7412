package pg

import (
	"io"
	"net"
	"syscall"
)

// closedErrors are what a read or write on a broken connection returns.
var closedErrors = []error{
	io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED,
}
