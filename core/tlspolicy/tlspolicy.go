// Package tlspolicy says how much TLS a host must show before mail goes to it.
//
// It is pure: it looks nothing up and connects to nothing. What it leaves to its caller is to obey: a Policy that is not
// met means that this host gets nothing.
package tlspolicy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
)

// Mode is how much TLS is wanted. The words are those of mta.hcl.
type Mode string

// The modes. The zero value means Opportunistic.
const (
	None          Mode = "none"          // STARTTLS is never said
	Opportunistic Mode = "opportunistic" // TLS where it works, whatever the certificate; else in the clear (RFC 7435)
	Require       Mode = "require"       // TLS, whatever the certificate
	Verify        Mode = "verify"        // TLS with a certificate that is good for the host's name
)

// ParseMode reads a mode; "" is Opportunistic.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return Opportunistic, nil
	case None, Opportunistic, Require, Verify:
		return m, nil
	}
	return "", fmt.Errorf("%q is not a TLS mode; the modes are none, opportunistic, require and verify", s)
}

// Source says who wants the policy.
type Source string

// The sources. DANE and MTA-STS are further ones when they come.
const (
	FromConfig   Source = "config"     // the route
	FromEnvelope Source = "requiretls" // the sender of this message (RFC 8689)
)

// Policy is what one host must show.
type Policy struct {
	Mode   Mode
	Source Source
	Name   string         // what the certificate must be good for: a host name, or an IP address
	Roots  *x509.CertPool // who may sign it; nil: the system's
}

// For returns the policy of a route for one host. A message under REQUIRETLS wants a certificate that was proven,
// whatever the route says (RFC 8689, 4.2.1).
func For(mode Mode, host string, roots *x509.CertPool, requireTLS bool) Policy {
	p := Policy{Mode: mode, Source: FromConfig, Name: strings.Trim(host, "[]"), Roots: roots}
	if p.Mode == "" {
		p.Mode = Opportunistic
	}
	if requireTLS && p.Mode != Verify {
		p.Mode, p.Source = Verify, FromEnvelope
	}
	return p
}

// Wanted reports whether STARTTLS is to be tried at all.
func (p Policy) Wanted() bool { return p.Mode != None }

// Required reports whether nothing may be sent in the clear.
func (p Policy) Required() bool { return p.Mode == Require || p.Mode == Verify }

// Verified reports whether the certificate must be good.
func (p Policy) Verified() bool { return p.Mode == Verify }

// Config returns how to do the handshake. TLS older than 1.2 is never spoken (RFC 8996). Sessions may be nil.
func (p Policy) Config(sessions tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         p.Name,
		RootCAs:            p.Roots,
		ClientSessionCache: sessions,
		// RFC 7435: a certificate that nobody has to believe still keeps listeners out.
		InsecureSkipVerify: !p.Verified(),
	}
}
