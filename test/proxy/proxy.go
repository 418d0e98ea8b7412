// Package proxy is a TCP proxy to a PostgreSQL server that loses a client's connection around its COMMIT.
package proxy

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Cut is where, around the first COMMIT that comes by an armed proxy, the connection is lost.
type Cut int

// The cuts.
const (
	Before  Cut = iota // the server does not hear of the COMMIT, and sees the connection end
	Unheard            // as Before, but the server does not see it end, as when the network is parted
	In                 // the server commits, and the client does not hear of it
	After              // the client hears of it, and nothing more
)

// Proxy forwards connections to a server.
type Proxy struct {
	cut      Cut
	server   string
	listener net.Listener

	mu    sync.Mutex
	armed bool // the next COMMIT is the one
	done  bool // the cut has been made
	conns []net.Conn
}

// New starts a proxy in front of the server of a DSN, for the length of the test, and returns the DSN that leads
// through it.
func New(t testing.TB, dsn string, cut Cut) (*Proxy, string) {
	t.Helper()
	target, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{cut: cut, server: target.Host, listener: listener}
	t.Cleanup(p.stop)
	go p.accept()
	target.Host = listener.Addr().String()
	return p, target.String()
}

// Arm makes the next COMMIT the one that is cut.
func (p *Proxy) Arm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = true
}

// Done tells whether a connection has been cut.
func (p *Proxy) Done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

func (p *Proxy) stop() {
	_ = p.listener.Close() // there is nobody left to tell
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close() // most are closed
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close() // the client learns that much
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		l := &link{proxy: p, client: client, server: server}
		go l.forward()
		go l.back()
	}
}

// take tells, once, that the COMMIT at hand is the one to be cut.
func (p *Proxy) take() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut := p.armed
	p.armed, p.done = false, p.done || cut
	return cut
}

// link is one client's connection.
type link struct {
	proxy          *Proxy
	client, server net.Conn

	mu         sync.Mutex
	committing bool // the server's next answer is the COMMIT's
}

// forward passes on what the client says. On the loopback the few bytes of a
// COMMIT come in one piece.
func (l *link) forward() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.client.Read(buffer)
		if err != nil {
			_ = l.server.Close() // the client has gone
			return
		}
		if bytes.Contains(buffer[:n], []byte("commit\x00")) && l.proxy.take() {
			switch l.proxy.cut {
			case Before:
				_ = errors.Join(l.client.Close(), l.server.Close()) // the cut
				return
			case Unheard:
				_ = l.client.Close() // the cut
				return
			case In, After:
				l.setCommitting()
			}
		}
		if _, err := l.server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// back passes on what the server says.
func (l *link) back() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.server.Read(buffer)
		committed := l.isCommitting()
		if n > 0 && (!committed || l.proxy.cut == After) {
			_, _ = l.client.Write(buffer[:n]) // the client may have gone
		}
		if err != nil || committed {
			_ = l.client.Close() // the cut, or the server has gone
			return
		}
	}
}

func (l *link) setCommitting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committing = true
}

func (l *link) isCommitting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committing
}
