package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// authority is a private CA.
type authority struct {
	dir  string
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{dir: dir, name: name}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.issue(t, name, template)
	return a
}

// file is where issue has written the certificate (pem) or its key (key).
func (a *authority) file(name, kind string) string { return filepath.Join(a.dir, name+"."+kind) }

// issue signs a certificate, its own while there is none yet, and writes it down with its key.
func (a *authority) issue(t *testing.T, name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, a.file(name, "pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, a.file(name, "key"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// guarded is a server that lets the role in over TLS or a socket, by password or by certificate, and listens on IPv6 too.
// No line of its pg_hba.conf has the keyword replication.
type guarded struct {
	*pgtest.DB
	server       *pgserver.Server
	trusted      *authority // which the server's certificate and the client's are of
	other        *authority
	role, certed string
}

func newGuarded(t *testing.T, password string) *guarded {
	t.Helper()
	requireIPv6(t)
	server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{
		"log_connections": "on", "log_statement": "all", "log_replication_commands": "on", "log_min_messages": "debug1"}})
	g := &guarded{DB: pgtest.NewOn(t, server), server: server}
	g.trusted, g.other = newAuthority(t, t.TempDir(), "trusted"), newAuthority(t, t.TempDir(), "other")
	g.role, g.certed = "mover", "certed"
	g.trusted.issue(t, "server", &x509.Certificate{DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv6loopback}})
	g.trusted.issue(t, g.certed, &x509.Certificate{Subject: pkix.Name{CommonName: g.certed}})
	conn := g.Conn(t)
	for _, sql := range []string{"SET log_statement = 'none'", "CREATE ROLE " + g.role + " LOGIN REPLICATION PASSWORD '" + password + "'"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	g.Exec(t, fmt.Sprintf(`CREATE ROLE %[1]s LOGIN REPLICATION IN ROLE %[2]s; GRANT CREATE ON DATABASE %[3]s TO %[2]s; GRANT CREATE ON SCHEMA public TO %[2]s;
		CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL, note text); ALTER TABLE orders OWNER TO %[2]s;
		INSERT INTO orders (customer_id, note) SELECT i, md5(i::text) FROM generate_series(1, 100) i`, g.certed, g.role, g.Name))
	g.configure(t)
	return g
}

// configure turns TLS on, and lets the roles in by nothing but what they are for.
func (g *guarded) configure(t *testing.T) {
	t.Helper()
	data := g.server.DataDir()
	about, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"server.crt": g.trusted.file("server", "pem"), "server.key": g.trusted.file("server", "key"), "root.crt": g.trusted.file("trusted", "pem")} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(data, name)
		write(t, path, string(text))
		owner := about.Sys().(*syscall.Stat_t)
		if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(data, "pg_hba.conf"), fmt.Sprintf(`host all postgres 127.0.0.1/32 trust
local %[1]s %[2]s scram-sha-256
hostssl %[1]s %[2]s localhost scram-sha-256
hostssl %[1]s %[2]s ::1/128 scram-sha-256
hostssl %[1]s %[3]s localhost cert
`, g.Name, g.role, g.certed))
	for _, setting := range []string{"listen_addresses = '127.0.0.1, ::1'", "ssl = on", "ssl_ca_file = 'root.crt'"} {
		g.Exec(t, "ALTER SYSTEM SET "+setting)
	}
	if err := g.server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// requireIPv6 fails where the loopback interface has no IPv6 address.
func requireIPv6(t *testing.T) {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp6", "[::1]:0")
	if err != nil {
		t.Fatalf("listening on ::1: %v; remedy: give the loopback interface its IPv6 address (sysctl net.ipv6.conf.lo.disable_ipv6=0)", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
}
