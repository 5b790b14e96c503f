package engine

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/config"
)

// writePair writes a certificate with the serial number, and its key, stamped with a time of their own.
func writePair(t *testing.T, dir string, serial int64) *config.TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "mx.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := &config.TLS{Name: "public", CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	for name, block := range map[string]*pem.Block{c.CertFile: {Type: "CERTIFICATE", Bytes: der}, c.KeyFile: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := time.Unix(1_000_000+serial, 0)
		if err := os.Chtimes(name, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	c, err := loadCertificate(writePair(t, dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	serial := func(now time.Time) int64 {
		t.Helper()
		leaf, err := x509.ParseCertificate(c.current(now).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	now := time.Now()
	if got := serial(now); got != 1 {
		t.Fatalf("serial %d", got)
	}
	pair := writePair(t, dir, 2)
	if got := serial(now.Add(certEvery)); got != 2 {
		t.Errorf("after a renewal the certificate is still number %d", got)
	}
	if err := os.WriteFile(pair.KeyFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(now.Add(2 * certEvery)); got != 2 {
		t.Errorf("while the files are wrong, number %d is shown", got)
	}
}

func TestCertificateThatIsMissing(t *testing.T) {
	if _, err := loadCertificate(&config.TLS{Name: "x", CertFile: "/nonexistent/c", KeyFile: "/nonexistent/k"}); err == nil {
		t.Error("no error")
	}
}
