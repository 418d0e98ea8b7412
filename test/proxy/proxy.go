// Package proxy is a TCP proxy to a PostgreSQL server that loses its clients' connections: one of them around its COMMIT,
// or all of them at once. It can also hold one up.
package proxy

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// commit is how a client says COMMIT.
const commit = "commit\x00"

// Cut is where, around the first COMMIT that comes by an armed proxy, the connection is lost.
type Cut int

// The cuts.
const (
	Before  Cut = iota // the server does not hear of the COMMIT, and sees the connection end
	Unheard            // as Before, but the server does not see it end, as when the network is parted
	In                 // the server commits, and the client does not hear of it
	After              // the client hears of it, and nothing more
	Held               // nothing is lost: the server hears of it once Release is called
)

// Proxy forwards connections to a server.
type Proxy struct {
	cut      Cut
	server   string
	listener net.Listener
	held     chan struct{}
	released chan struct{}
	release  func()

	mu       sync.Mutex
	armed    bool   // the next that says text is the one
	text     string // of a COMMIT, if nothing else was asked for
	swapOnly bool   // if it is the swap's
	away     bool   // all connections are lost with it, and new ones refused
	refusing bool
	done     bool // the cut has been made
	conns    []net.Conn
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
	p := &Proxy{cut: cut, server: target.Host, listener: listener, text: commit, held: make(chan struct{}), released: make(chan struct{})}
	p.release = sync.OnceFunc(func() { close(p.released) })
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

// ArmAt makes the next statement that contains the text the one that is cut, as a COMMIT would be.
func (p *Proxy) ArmAt(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.text = true, text
}

// ArmSwap makes the COMMIT of the swap the one that is cut: that of a session whose application_name ends in cutover, in
// a transaction that has locked tables. With away every connection is lost with it, and new ones are refused until Allow.
func (p *Proxy) ArmSwap(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.swapOnly, p.away = true, true, away
}

// Holding is closed when a statement is held.
func (p *Proxy) Holding() <-chan struct{} { return p.held }

// Release lets it go on.
func (p *Proxy) Release() { p.release() }

// Done tells whether the connection has been cut for which the proxy was armed.
func (p *Proxy) Done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Refuse ends every new connection at once, until Allow.
func (p *Proxy) Refuse() { p.refuse(true) }

// Allow lets new connections through again.
func (p *Proxy) Allow() { p.refuse(false) }

func (p *Proxy) refuse(refusing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = refusing
}

// CutAll ends every connection that there is; both sides see it end.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close() // most are closed
	}
	p.conns = nil
}

func (p *Proxy) stop() {
	p.Release()
	_ = p.listener.Close() // there is nobody left to tell
	p.CutAll()
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
		if !p.admit(client, server) {
			_ = errors.Join(client.Close(), server.Close()) // refused
			continue
		}
		l := &link{proxy: p, client: client, server: server}
		go l.forward()
		go l.back()
	}
}

func (p *Proxy) admit(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusing {
		return false
	}
	p.conns = append(p.conns, conns...)
	return true
}

// take tells, once, that what is said is the one to be cut.
func (p *Proxy) take(l *link, said []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut := p.armed && (!p.swapOnly || l.swapping) && bytes.Contains(said, []byte(p.text))
	if cut {
		p.armed, p.done = false, true
	}
	return cut
}

// leave has the server away from now on, if that goes with the cut.
func (p *Proxy) leave() {
	p.mu.Lock()
	away := p.away
	p.refusing = p.refusing || away
	p.mu.Unlock()
	if away {
		p.CutAll()
	}
}

// link is one client's connection.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	cutover        bool // by its application_name
	swapping       bool // and in a transaction that has locked tables

	mu         sync.Mutex
	committing bool // the server's next answer is the COMMIT's
}

// forward passes on what the client says. On the loopback the few bytes of a
// COMMIT, and of what begins a session, come in one piece.
func (l *link) forward() {
	buffer := make([]byte, 64<<10)
	for first := true; ; first = false {
		n, err := l.client.Read(buffer)
		if err != nil {
			_ = l.server.Close() // the client has gone
			return
		}
		l.follow(buffer[:n], first)
		if l.proxy.take(l, buffer[:n]) {
			switch l.proxy.cut {
			case Before:
				l.proxy.leave()
				_ = errors.Join(l.client.Close(), l.server.Close()) // the cut
				return
			case Unheard:
				l.proxy.leave()
				_ = l.client.Close() // the cut
				return
			case In, After:
				l.setCommitting()
			case Held:
				close(l.proxy.held)
				<-l.proxy.released
			}
		}
		if _, err := l.server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// follow learns whose connection it is, and whether it is in the swap's transaction.
func (l *link) follow(said []byte, first bool) {
	if first {
		parameters := strings.Split(string(said), "\x00")
		for i, name := range parameters[:len(parameters)-1] {
			l.cutover = l.cutover || name == "application_name" && strings.HasSuffix(parameters[i+1], " cutover")
		}
	}
	switch {
	case bytes.Contains(said, []byte("rollback\x00")):
		l.swapping = false
	case l.cutover && bytes.Contains(said, []byte("LOCK TABLE ")):
		l.swapping = true
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
		if committed {
			l.proxy.leave()
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
