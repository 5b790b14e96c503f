package smtpd

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/pabal-mta/mta/sdk/mail"
)

// path is the address of a MAIL or RCPT command.
type path struct {
	address mail.Address
	utf8    bool // it was written with other characters than US-ASCII

	priority int8 // of MAIL
}

// parsePath reads a Path (RFC 5321, 4.1.2) and returns what follows it, its parameters. A source route is read and
// ignored (RFC 5321, appendix C). Angle brackets may be left out, as many a client does, where there is nothing to quote.
func parsePath(s string) (p path, params string, err error) {
	s = strings.TrimLeft(s, " ")
	var inner string
	if rest, ok := strings.CutPrefix(s, "<"); ok {
		end := pathEnd(rest)
		if end < 0 {
			return path{}, "", errors.New("the path has no end")
		}
		inner, params = rest[:end], rest[end+1:]
	} else {
		end := strings.IndexAny(s, " <>\"\\\t")
		if end < 0 {
			end = len(s)
		}
		inner, params = s[:end], s[end:]
		if inner == "" {
			return path{}, "", errors.New("there is no path")
		}
	}
	if params != "" && params[0] != ' ' {
		return path{}, "", errors.New("after the path comes a space")
	}
	if inner == "" {
		return path{}, params, nil
	}
	mailbox, err := cutRoute(inner)
	if err != nil {
		return path{}, "", err
	}
	a, err := mail.ParseAddress(mailbox)
	return path{address: a, utf8: !isASCII(mailbox)}, params, err
}

// pathEnd finds the > that ends a path: one that is not quoted.
func pathEnd(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		}
	}
	return -1
}

// cutRoute takes a source route off: @one.example,@two.example:mailbox.
func cutRoute(s string) (string, error) {
	if !strings.HasPrefix(s, "@") {
		return s, nil
	}
	route, mailbox, ok := strings.Cut(s, ":")
	if !ok {
		return "", errors.New("a source route ends in a colon")
	}
	for hop := range strings.SplitSeq(route, ",") {
		domain, ok := strings.CutPrefix(hop, "@")
		if _, err := mail.ParseDomain(domain); err != nil || !ok {
			return "", errors.New("a source route is a list of @domain")
		}
	}
	return mailbox, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
