package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/zclconf/go-cty/cty"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Rate is a number of messages in a time. The zero Rate is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

// String writes the rate as it stands in a file, such as "600/1m".
func (r Rate) String() string { return strconv.Itoa(r.Count) + "/" + durationText(r.Per) }

// scalar is how one value is read: what it is called, its form in HCL, and how its text becomes a Go value. Dir is where
// relative paths start.
type scalar struct {
	name  string
	form  cty.Type
	parse func(text, dir string) (any, error)
}

// scalarOf finds the scalar of a key: by its Go type where that says enough, else by the word of its is tag.
func scalarOf(f *field) scalar {
	switch f.typ {
	case reflect.TypeFor[bool]():
		return scalar{"true or false", cty.Bool, func(s, _ string) (any, error) { return s == "true", nil }}
	case reflect.TypeFor[int]():
		return scalar{"whole number", cty.Number, func(s, _ string) (any, error) { return parseInt(s) }}
	case reflect.TypeFor[float64]():
		return scalar{"number", cty.Number, func(s, _ string) (any, error) { return strconv.ParseFloat(s, 64) }}
	case reflect.TypeFor[time.Duration]():
		return text(`duration such as "5m"`, schema.ParseDuration)
	case reflect.TypeFor[schema.Size]():
		return text(`size such as "35MiB"`, schema.ParseSize)
	case reflect.TypeFor[Rate]():
		return text(`rate such as "600/1m"`, parseRate)
	case reflect.TypeFor[netip.Prefix]():
		return text(`network such as "10.0.0.0/8"`, parsePrefix)
	case reflect.TypeFor[netip.Addr]():
		return text("IP address", parseIP)
	case reflect.TypeFor[mail.Address]():
		return text("mail address", mail.ParseAddress)
	case reflect.TypeFor[schema.Secret]():
		return text("secret string", func(s string) (schema.Secret, error) { return schema.Secret(s), nil })
	default:
		return stringOf(f.is)
	}
}

func stringOf(is string) scalar {
	switch is {
	case "path":
		return scalar{"path", cty.String, func(s, dir string) (any, error) { return parsePath(s, dir) }}
	case "source":
		return scalar{"path, or builtin:NAME", cty.String, func(s, dir string) (any, error) { return parseSource(s, dir) }}
	case "hop":
		return scalar{"host:port, or unix:PATH", cty.String, func(s, dir string) (any, error) { return parseHop(s, dir) }}
	case "domain":
		return text("domain name", mail.ParseDomain)
	case "pattern":
		return text("domain name, or *.name", parsePattern)
	case "listen":
		return text(`"address:port"`, parseListen)
	case "hostport":
		return text(`"host:port"`, parseHostPort)
	case "server":
		return text("IP address, or address:port", parseServer)
	case "sha256":
		return text("SHA-256 in 64 hex digits", parseSHA256)
	case "extension":
		return text("ESMTP keyword, one of "+strings.Join(hideable, " "), parseExtension)
	case "env":
		return text("variable: NAME, or NAME=value", parseEnv)
	default:
		return text("string", parseString)
	}
}

// text makes a scalar that is a string in HCL.
func text[T any](name string, parse func(string) (T, error)) scalar {
	return scalar{name, cty.String, func(s, _ string) (any, error) { return parse(s) }}
}

// hideable are the extensions that a listener can leave out of its answer to EHLO.
var hideable = []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "MT-PRIORITY"}

func parseExtension(s string) (string, error) {
	if word := strings.ToUpper(s); slices.Contains(hideable, word) {
		return word, nil
	}
	return "", fmt.Errorf("%s is not one of %s", short(s), strings.Join(hideable, ", "))
}

// parseString takes text that fits on one line of a log or a protocol.
func parseString(s string) (string, error) {
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return "", fmt.Errorf("%s holds a control character", short(s))
	}
	return s, nil
}

func parseInt(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is too large", s)
	}
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number", s)
	}
	return int(n), nil
}

func parseRate(s string) (Rate, error) {
	count, per, ok := strings.Cut(s, "/")
	n, err := strconv.ParseUint(count, 10, 31)
	if err != nil || n == 0 || !ok {
		return Rate{}, fmt.Errorf("%s is not a rate such as 600/1m", short(s))
	}
	if per != "" && unicode.IsLetter(rune(per[0])) {
		per = "1" + per // "600/m"
	}
	d, err := schema.ParseDuration(per)
	if err != nil || d <= 0 {
		return Rate{}, fmt.Errorf("%s is not a rate such as 600/1m", short(s))
	}
	return Rate{int(n), d}, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if ip, err := parseIP(s); err == nil {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is not a network such as 192.0.2.0/24 or 2001:db8::/32", short(s))
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits set behind its prefix; the network is %s", short(s), p.Masked())
	}
	return p, nil
}

func parseIP(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" || ip.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s is not an IP address such as 192.0.2.1 or 2001:db8::1", short(s))
	}
	return ip, nil
}

func parsePath(s, dir string) (string, error) {
	if s == "" || strings.IndexFunc(s, unicode.IsControl) >= 0 {
		return "", fmt.Errorf("%s is not a path", short(s))
	}
	return absolute(dir, s), nil
}

// absolute returns the path; a relative one starts at dir.
func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// cutBuiltin returns the name of a built-in plugin; "" and false for a program of its own.
func cutBuiltin(source string) (string, bool) {
	if name, ok := strings.CutPrefix(source, "builtin:"); ok {
		return name, true
	}
	return "", false
}

func parseSource(s, dir string) (string, error) {
	if name, ok := cutBuiltin(s); ok {
		if !isName(name) {
			return "", fmt.Errorf("%s is not builtin:NAME", short(s))
		}
		return s, nil
	}
	return parsePath(s, dir)
}

// parsePattern takes a domain, or *.domain for all below it.
func parsePattern(s string) (string, error) {
	if rest, ok := strings.CutPrefix(s, "*."); ok {
		d, err := mail.ParseDomain(rest)
		return "*." + d, err
	}
	return mail.ParseDomain(s)
}

// parseListen takes an IP address (or none, or localhost) and a port. A name could be any address, and another tomorrow.
func parseListen(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf(`%s is not an address and a port such as "0.0.0.0:25" or "[::]:25"`, short(s))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%s is not a port", short(port))
	}
	if host == "" || host == "localhost" {
		return s, nil
	}
	if _, err := parseIP(host); err != nil {
		return "", err
	}
	return s, nil
}

func parseHop(s, dir string) (string, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path, err := parsePath(path, dir)
		return "unix:" + path, err
	}
	return parseHostPort(s)
}

func parseHostPort(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if strings.Count(s, ":") == 0 && s != "" {
			return "", fmt.Errorf("%s has no port; it is written host:port, such as %q", short(s), cut(s, 60)+":587")
		}
		return "", fmt.Errorf(`%s is not host:port, such as "smtp.example.com:587"`, short(s))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%s is not a port", short(port))
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return s, nil
	}
	name, err := mail.ParseDomain(host)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(name, port), nil
}

// parseServer returns address:port, the port of DNS (RFC 1035, 4.2) where none is written.
func parseServer(s string) (string, error) {
	if ip, err := parseIP(s); err == nil {
		return netip.AddrPortFrom(ip, 53).String(), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return "", fmt.Errorf("%s is not the IP address of a resolver, with or without a port", short(s))
	}
	return ap.String(), nil
}

func parseSHA256(s string) (string, error) {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 {
		return "", fmt.Errorf("%s is not a SHA-256 in 64 hex digits", short(s))
	}
	return strings.ToLower(s), nil
}

func parseEnv(s string) (string, error) {
	name, value, _ := strings.Cut(s, "=")
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) || strings.ContainsRune(value, 0) {
		return "", fmt.Errorf("%s is not NAME or NAME=value", short(s))
	}
	return s, nil
}

// isName tells names of blocks: they can follow a dot in a reference, and stand in logs and metrics.
func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '_' && c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// short quotes what an operator wrote, cut so that a message stays a line.
func short(s string) string {
	if c := cut(s, 80); c != s {
		return strconv.Quote(c) + "..."
	}
	return strconv.Quote(s)
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// formName names the form of a value, for "wants X, not Y".
func formName(t cty.Type) string {
	switch {
	case t == cty.String:
		return "a string"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "true or false"
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		return "a list"
	case t.Equals(refType):
		return "a reference"
	case t.IsObjectType() || t.IsMapType():
		return "a map"
	default:
		return "this"
	}
}

// textOf returns the text of a string, a number or a boolean.
func textOf(v cty.Value) string {
	switch v.Type() {
	case cty.String:
		return v.AsString()
	case cty.Number:
		return v.AsBigFloat().Text('f', -1)
	case cty.Bool:
		return strconv.FormatBool(v.True())
	default:
		return ""
	}
}

// durationText writes a duration as an operator would: "4h", "5d", "1m30s".
func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	if d == 0 {
		return "0s"
	}
	if d >= day && d%time.Hour == 0 {
		text := strconv.FormatInt(int64(d/day), 10) + "d"
		if d%day > 0 {
			text += durationText(d % day)
		}
		return text
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// number returns a value as the bounds of its tags compare it; ok is false for values that have no size.
func number(x any) (n float64, ok bool) {
	v := reflect.ValueOf(x)
	switch {
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanFloat() && !math.IsNaN(v.Float()):
		return v.Float(), true
	default:
		return 0, false
	}
}
