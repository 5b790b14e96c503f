package imap

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

func newCertificate(t *testing.T) (cert, key string, client *tls.Config) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := os.WriteFile(cert, certPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, keyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cert, key, &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

func TestTLS(t *testing.T) {
	cert, key, client := newCertificate(t)
	r := newRig(t, func(c *gate.Config) { c.CertFile, c.KeyFile, c.InsecureAuth = cert, key, false })
	r.deliver("ann", "1.a.h", letter)
	conn, br := raw(t, r.addr)
	fmt.Fprint(conn, "a LOGIN ann right\r\nb AUTHENTICATE PLAIN AGFubgByaWdodA==\r\n")
	for _, tag := range []string{"a ", "b "} {
		if got := until(br, tag); !strings.HasPrefix(got, tag+"NO [PRIVACYREQUIRED]") {
			t.Errorf("a password without TLS: %q", got)
		}
	}
	// What comes ahead of the handshake is not obeyed inside it.
	fmt.Fprint(conn, "c STARTTLS\r\nd LOGIN ann right\r\n")
	until(br, "c ")
	tconn := tls.Client(conn, client)
	if err := tconn.Handshake(); err == nil {
		t.Error("a command before the handshake was swallowed")
	}

	plain, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := imapclient.NewStartTLS(plain, &imapclient.Options{TLSConfig: client})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("ann", "right").Wait(); err != nil {
		t.Fatal(err)
	}
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
		t.Errorf("%+v, %v", data, err)
	}
}

func TestImplicitTLS(t *testing.T) {
	cert, key, client := newCertificate(t)
	r := newRig(t, func(c *gate.Config) { c.CertFile, c.KeyFile, c.Implicit, c.InsecureAuth = cert, key, true, false })
	conn, err := tls.Dial("tcp", r.addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "a LOGIN ann right\r\nb LOGOUT\r\n")
	br := bufio.NewReader(conn)
	if got := until(br, "a "); !strings.HasPrefix(got, "a OK") {
		t.Error(got)
	}
}
