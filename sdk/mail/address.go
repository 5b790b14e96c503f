package mail

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	// maxLocalPart is more than the 64 octets that RFC 5321, 4.5.3.1.1 asks everyone to take, as 4.5.3.1 wishes: bounce
	// addresses that carry a recipient in them are often longer. It is what a whole path has in 4.5.3.1.3.
	maxLocalPart = 256
	// maxDomain is the 255 octets of RFC 5321, 4.5.3.1.2 as text: in the DNS they hold two that are not seen in it.
	maxDomain = 253
)

// Address is a mailbox: a local part and a domain. The zero Address is the null reverse-path. It is comparable: two
// addresses are the same mailbox on the wire exactly when they are equal. The domain is kept in lower case and, if
// international, as A-labels (RFC 5890); the local part is kept unquoted and as it was given.
type Address struct {
	local, domain string
}

// NewAddress makes an address of an unquoted local part and a domain.
func NewAddress(local, domain string) (Address, error) {
	if err := checkLocal(local); err != nil {
		return Address{}, err
	}
	d, err := ParseDomain(domain)
	if err != nil {
		return Address{}, err
	}
	return Address{local: local, domain: d}, nil
}

// ParseAddress reads a Mailbox (RFC 5321, 4.1.2, with RFC 6531, 3.3): local-part@domain, the local part a dot-string or
// a quoted string. It takes no display name, no angle brackets, no source route.
func ParseAddress(s string) (Address, error) {
	if strings.HasPrefix(s, `"`) {
		local, rest, err := cutQuoted(s)
		if err != nil {
			return Address{}, err
		}
		domain, ok := strings.CutPrefix(rest, "@")
		if !ok {
			return Address{}, fmt.Errorf("%s: after the quoted local part an @ and a domain are wanted", quoteShort(s))
		}
		return NewAddress(local, domain)
	}
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return Address{}, fmt.Errorf("%s has no @", quoteShort(s))
	}
	if i > 0 && !isDotString(s[:i]) {
		return Address{}, fmt.Errorf("%s is not a local part; one with other characters than letters, digits, dots between them and !#$%%&'*+-/=?^_`{|}~ must be quoted", quoteShort(s[:i]))
	}
	return NewAddress(s[:i], s[i+1:])
}

// ParseUnquoted reads what is left of a Mailbox when its quotes have been taken off: everything before the last @ is the
// local part.
func ParseUnquoted(s string) (Address, error) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return Address{}, fmt.Errorf("%s has no @", quoteShort(s))
	}
	return NewAddress(s[:i], s[i+1:])
}

// MustParseAddress is ParseAddress for constants in code and tests; it panics on a mistake.
func MustParseAddress(s string) Address {
	a, err := ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// Local returns the local part, unquoted.
func (a Address) Local() string { return a.local }

// Domain returns the domain in lower case, or an address literal such as "[192.0.2.1]".
func (a Address) Domain() string { return a.domain }

// IsNull reports the null reverse-path.
func (a Address) IsNull() bool { return a == Address{} }

// IsASCII reports whether the address can be sent without SMTPUTF8. The domain always can.
func (a Address) IsASCII() bool {
	for i := range len(a.local) {
		if a.local[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// String returns the address as it goes onto a wire, the local part quoted where it must be; "" for the null address.
func (a Address) String() string {
	if a.IsNull() {
		return ""
	}
	return quoteLocal(a.local) + "@" + a.domain
}

// MarshalText writes the address as String does.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Address) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = Address{}
		return nil
	}
	p, err := ParseAddress(string(b))
	if err != nil {
		return err
	}
	*a = p
	return nil
}

func checkLocal(local string) error {
	switch {
	case local == "":
		return errors.New("the local part is empty")
	case len(local) > maxLocalPart:
		return fmt.Errorf("the local part has %d octets, more than %d", len(local), maxLocalPart)
	case !utf8.ValidString(local):
		return fmt.Errorf("the local part %q is not UTF-8", local)
	}
	for _, c := range local {
		if unicode.IsControl(c) || breaksLine(c) {
			return fmt.Errorf("the local part %q holds the control character %U", local, c)
		}
	}
	return nil
}

// breaksLine tells the characters, not controls by their class, that end a line or turn its direction, so that a log or a
// screen would show another address than the one that is meant.
func breaksLine(c rune) bool {
	return c == '\u2028' || c == '\u2029' || c >= '\u202a' && c <= '\u202e' || c >= '\u2066' && c <= '\u2069'
}

// ParseDomain checks a domain name or an address literal and returns its canonical form: lower case, A-labels, no dot at
// the end (RFC 5321, 4.1.2 and 4.1.3).
func ParseDomain(s string) (string, error) {
	switch {
	case strings.HasPrefix(s, "["):
		return parseLiteral(s)
	case s == "":
		return "", errors.New("the domain is empty")
	case len(s) > 4*maxDomain: // no mapping of IDNA makes so much short enough
		return "", fmt.Errorf("the domain has %d octets, more than %d", len(s), maxDomain)
	case !utf8.ValidString(s):
		return "", fmt.Errorf("%q is not a domain: it is not UTF-8", s)
	}
	d := strings.ToLower(s)
	if !isASCII(s) {
		var err error
		if d, err = idna.Lookup.ToASCII(s); err != nil {
			return "", fmt.Errorf("%q is not a domain: %w", s, err)
		}
	}
	if len(d) > maxDomain {
		return "", fmt.Errorf("the domain has %d octets, more than %d", len(d), maxDomain)
	}
	last := ""
	for label := range strings.SplitSeq(d, ".") {
		if !isLabel(label) {
			return "", fmt.Errorf("%q is not a domain: its part %q is not letters, digits and inner hyphens", s, label)
		}
		last = label
	}
	if isNumber(last) {
		return "", fmt.Errorf("%q is not a domain: an IP address is written in brackets, and no name ends in a number", s)
	}
	return d, nil
}

// isNumber tells the last labels that some resolvers take for an IP address, in decimal or in hexadecimal. RFC 1123, 2.1:
// a host name never ends in one.
func isNumber(label string) bool {
	digits := "0123456789"
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		label, digits = hex, "0123456789abcdef"
	}
	return strings.Trim(label, digits) == ""
}

func parseLiteral(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", fmt.Errorf("%s is not an address literal: no ] at its end", quoteShort(s))
	}
	text, v6 := inner, false
	if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
		text, v6 = inner[5:], true
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Is6() != v6 || ip.Zone() != "" {
		return "", fmt.Errorf("%s is not an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]", quoteShort(s))
	}
	// An IPv4 address in the clothes of IPv6 is the same host, so it is the same mailbox.
	if ip = ip.Unmap(); ip.Is6() {
		return "[IPv6:" + ip.String() + "]", nil
	}
	return "[" + ip.String() + "]", nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func isLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for _, c := range []byte(l) {
		if !isAlnum(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// isAtext tells the characters of an atom (RFC 5322, 3.2.3; all beyond ASCII by RFC 6531, 3.3).
func isAtext(c byte) bool {
	return isAlnum(c) || c >= utf8.RuneSelf || c > ' ' && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// isDotString tells atoms parted by single dots (RFC 5321, 4.1.2).
func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, c := range []byte(s) {
		if c != '.' && !isAtext(c) {
			return false
		}
	}
	return true
}

func quoteLocal(local string) string {
	if isDotString(local) {
		return local
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
}

// cutQuoted reads a quoted string (RFC 5321, 4.1.2) at the start of s and returns its content and what follows it.
func cutQuoted(s string) (content, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			i++
			if i == len(s) {
				return "", "", fmt.Errorf("%s ends inside a quoted local part", quoteShort(s))
			}
			if s[i] < ' ' || s[i] >= 0x7f {
				return "", "", fmt.Errorf("%s has a backslash before %q; only a printable ASCII character follows one", quoteShort(s), s[i])
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", fmt.Errorf("%s ends inside a quoted local part", quoteShort(s))
}

// quoteShort quotes what was given, cut so that an error stays a line.
func quoteShort(s string) string {
	const most = 320
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
