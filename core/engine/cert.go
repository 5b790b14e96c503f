package engine

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/config"
)

// certEvery is how often a handshake looks whether the certificate's files have changed.
const certEvery = 10 * time.Second

// certificate is a key pair that is read again when its files change, so that renewing it needs no reload. While the new
// files are wrong, the old pair stays in use.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   [2]time.Time
	checked time.Time
}

func loadCertificate(t *config.TLS) (*certificate, error) {
	c := &certificate{certFile: t.CertFile, keyFile: t.KeyFile}
	if err := c.read(); err != nil {
		return nil, fmt.Errorf("tls %q: %w", t.Name, err)
	}
	return c, nil
}

// config returns the server side of a handshake. TLS older than 1.2 is not spoken (RFC 8996).
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current(time.Now()), nil
		},
	}
}

func (c *certificate) current(now time.Time) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.checked) >= certEvery {
		c.checked = now
		if stamp, err := c.stamps(); err == nil && stamp != c.stamp {
			// A renewal that is half done is read again at the next look.
			_ = c.read()
		}
	}
	return c.pair
}

func (c *certificate) stamps() (s [2]time.Time, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		fi, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i] = fi.ModTime()
	}
	return s, nil
}

// read loads the pair; when that fails, the one in use stays.
func (c *certificate) read() error {
	stamp, err := c.stamps()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.pair, c.stamp = &pair, stamp
	return nil
}
