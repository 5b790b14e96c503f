package maildir

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode"

	"github.com/pabal-mta/mta/plugins/users"
	"github.com/pabal-mta/mta/sdk/mail"
)

// template is the path of a mailbox: a folder that is never left, and a path below it with placeholders.
type template struct {
	base, rest string
}

// errName says that an address can't be part of a path, so that no mailbox is named by it.
var errName = errors.New("this address can't name a mailbox")

// parseTemplate splits a path before the first part that depends on the account.
func parseTemplate(s string) (template, error) {
	i := strings.IndexByte(s, '{')
	if i < 0 || !strings.Contains(s, "{user}") {
		return template{}, fmt.Errorf("%q names no {user}; a path is like /var/mail/{domain}/{user}", s)
	}
	cut := strings.LastIndexByte(s[:i], '/') + 1
	t := template{base: path.Clean(s[:cut]), rest: path.Clean(s[cut:])}
	if cut == 0 {
		t.base = "."
	}
	left := strings.NewReplacer("{user}", "", "{domain}", "").Replace(s[cut:])
	if strings.ContainsAny(left, "{}") {
		return template{}, fmt.Errorf("%q has a placeholder that is neither {user} nor {domain}", s)
	}
	if strings.Contains("/"+left+"/", "/../") {
		return template{}, fmt.Errorf("%q goes up after a placeholder", s)
	}
	return t, nil
}

// expand returns the path of an account's mailbox below base. Both parts are made of the canonical name, so that ANN and
// ann share one.
func (t template) expand(a mail.Address) (string, error) {
	c := users.Canonical(a)
	at := strings.LastIndexByte(c, '@')
	user, domain := c[:at], c[at+1:]
	if !isSegment(user) || !isSegment(domain) {
		return "", fmt.Errorf("%q: %w", a, errName)
	}
	return strings.NewReplacer("{user}", user, "{domain}", domain).Replace(t.rest), nil
}

// isSegment says whether s may be (part of) the name of a folder: no separator, nothing hidden, nothing that is not seen.
func isSegment(s string) bool {
	if s == "" || len(s) > 200 || s[0] == '.' || strings.ContainsAny(s, `/\`) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == unicode.ReplacementChar })
}
