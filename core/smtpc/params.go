package smtpc

import (
	"strconv"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Limits of RFC 3461, 4.2 and 4.4, in characters.
const (
	maxOrcpt = 500
	maxEnvID = 100
)

// appendMail writes the MAIL command with the parameters that the peer knows.
func (c *Conn) appendMail(b []byte, env *mail.Envelope, size int64, utf8Needed bool) []byte {
	b = append(append(append(b, "MAIL FROM:<"...), env.From.String()...), '>')
	if c.caps.Size {
		b = strconv.AppendInt(append(b, " SIZE="...), size, 10)
	}
	if env.Body != mail.Body7Bit && (c.caps.EightBit || c.caps.Binary) {
		b = append(append(b, " BODY="...), env.Body.String()...)
	}
	if (utf8Needed || env.SMTPUTF8) && c.caps.UTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	if env.RequireTLS && c.caps.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if env.Priority != 0 && c.caps.Priority {
		b = strconv.AppendInt(append(b, " MT-PRIORITY="...), int64(env.Priority), 10)
	}
	if c.caps.DSN {
		if r := env.Ret.String(); r != "" {
			b = append(append(b, " RET="...), r...)
		}
		if env.EnvID != "" && len(env.EnvID) <= maxEnvID {
			b = append(append(b, " ENVID="...), mail.EncodeXtext(env.EnvID)...)
		}
	}
	return append(b, "\r\n"...)
}

// appendRcpt writes a RCPT command with the parameters that the peer knows.
func (c *Conn) appendRcpt(b []byte, r mail.Recipient) []byte {
	b = append(append(append(b, "RCPT TO:<"...), r.Address.String()...), '>')
	if c.caps.DSN {
		if n := r.Notify.String(); n != "" {
			b = append(append(b, " NOTIFY="...), n...)
		}
		// An original recipient that can't be said is left out: it is a courtesy to who reads the report.
		if kind, _, ok := strings.Cut(r.Original, ";"); ok && isAtom(kind) {
			if o := mail.EncodeORCPT(r.Original); len(o) <= maxOrcpt {
				b = append(append(b, " ORCPT="...), o...)
			}
		}
	}
	return append(b, "\r\n"...)
}

// isAtom tells the letters, digits and hyphens of an address type (RFC 3461, 4.2): nothing that could end a parameter.
func isAtom(s string) bool {
	for _, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && !isDigit(c) && c != '-' {
			return false
		}
	}
	return s != ""
}
