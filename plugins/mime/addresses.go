package mime

import (
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// addresses downgrades a list of addresses (RFC 5322, 3.4), token by token: what is ASCII stays as it is.
type addresses struct {
	line   *line
	root   bool
	phrase []token // since the last separator: a display name, a group's name, or an address without angles
}

// token is a piece of the list with the space before it.
type token struct {
	space, text string
}

// downgradeAddresses encodes names and comments. An address that is not ASCII itself refuses the message, but for the
// header of an attached one: there it becomes the name of an empty group (RFC 6857, 3.1.8).
func downgradeAddresses(name, value string, root bool) (string, error) {
	a := &addresses{line: newLine(name), root: root}
	for space := " "; value != ""; {
		t := token{space, nextToken(value)}
		rest := strings.TrimLeft(value[len(t.text):], " \t")
		space, value = value[len(t.text):len(value)-len(rest)], rest
		if err := a.take(t); err != nil {
			return "", err
		}
	}
	if err := a.bare(); err != nil {
		return "", err
	}
	return a.line.String(), nil
}

// nextToken returns a quoted string, a comment, an address in angles, a separator or an atom. It is never empty.
func nextToken(s string) string {
	switch s[0] {
	case '"':
		return s[:closing(s, '"')]
	case '(':
		return s[:closing(s, ')')]
	case '<':
		return s[:closing(s, '>')]
	case ',', ';', ':':
		return s[:1]
	}
	if i := strings.IndexAny(s[1:], " \t\"(<,;:"); i >= 0 {
		return s[:i+1]
	}
	return s
}

// closing returns the length of what begins with s[0] and ends with c; comments may be nested.
func closing(s string, c byte) int {
	depth := 0
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == c && depth == 0:
			return i + 1
		case s[i] == c:
			depth--
		case c == ')' && s[i] == '(':
			depth++
		}
	}
	return len(s)
}

func (a *addresses) take(t token) error {
	switch t.text[0] {
	case '(':
		// What stands before a comment is written first: a comment may follow an address.
		if err := a.bare(); err != nil {
			return err
		}
		a.comment(t)
	case '<':
		a.name()
		return a.angle(t)
	case ':':
		a.name()
		a.line.word(t.space, t.text)
	case ',', ';':
		if err := a.bare(); err != nil {
			return err
		}
		a.line.word("", t.text)
	default:
		a.phrase = append(a.phrase, t)
	}
	return nil
}

// name writes the phrase as a display name.
func (a *addresses) name() {
	defer func() { a.phrase = nil }()
	text, high := "", false
	for i, t := range a.phrase {
		high = high || hasHigh([]byte(t.text))
		if i > 0 && t.space != "" {
			text += " "
		}
		if t.text[0] == '"' {
			text += unquote(t.text)
		} else {
			text += t.text
		}
	}
	if high {
		a.line.encoded(a.phrase[0].space, text)
		return
	}
	a.raw()
}

func (a *addresses) raw() {
	for _, t := range a.phrase {
		a.line.word(t.space, t.text)
	}
	a.phrase = nil
}

// bare writes the phrase as an address without angles.
func (a *addresses) bare() error {
	var text strings.Builder
	for _, t := range a.phrase {
		text.WriteString(t.text)
	}
	switch {
	case !hasHigh([]byte(text.String())):
		a.raw()
		return nil
	case !strings.Contains(text.String(), "@"):
		a.name() // not an address at all
		return nil
	}
	space := a.phrase[0].space
	a.phrase = nil
	return a.address(space, text.String(), "", "")
}

func (a *addresses) angle(t token) error {
	if !hasHigh([]byte(t.text)) {
		a.line.word(t.space, t.text)
		return nil
	}
	return a.address(t.space, strings.Trim(t.text, "<> \t"), "<", ">")
}

// address writes an address that is not ASCII: its domain has another form, its local part has none.
func (a *addresses) address(space, text, open, shut string) error {
	if parsed, err := mail.ParseAddress(text); err == nil && parsed.IsASCII() {
		a.line.word(space, open+parsed.String()+shut)
		return nil
	}
	if a.root {
		return errAddress
	}
	a.line.encoded(space, text)
	a.line.word(" ", ":;")
	return nil
}

// comment writes a comment, its text encoded. Inner parentheses become part of the text (RFC 2047, 5, 2).
func (a *addresses) comment(t token) {
	if !hasHigh([]byte(t.text)) {
		a.line.word(t.space, t.text)
		return
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(t.text, "("), ")")
	words := encodedWords(strings.NewReplacer(`\(`, "(", `\)`, ")", `\\`, `\`).Replace(inner))
	words[0] = "(" + words[0]
	words[len(words)-1] += ")"
	for i, w := range words {
		if i > 0 {
			t.space = " "
		}
		a.line.word(t.space, w)
	}
}
