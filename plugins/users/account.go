package users

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Account is one line of the file.
type Account struct {
	Name      mail.Address   // who logs in, and where mail for it goes
	Addresses []mail.Address // its other addresses: it may send as them, and the maildir plugin brings their mail to it
	AnySender bool           // it may send as anybody
	Disabled  bool           // it can't log in; mail for it is still kept
	hash      hash
}

// The words of the last field.
const (
	flagAnySender = "any-sender"
	flagDisabled  = "disabled"
)

func (a Account) identity() mail.Identity {
	id := mail.Identity{User: Canonical(a.Name), AnySender: a.AnySender}
	if len(a.Addresses) > 0 {
		id.Addresses = append([]mail.Address{a.Name}, a.Addresses...)
	}
	return id
}

// line writes the account as it stands in the file.
func (a Account) line() string {
	fields := []string{Canonical(a.Name), a.hash.text}
	var others, flags []string
	for _, o := range a.Addresses {
		others = append(others, o.String())
	}
	if a.AnySender {
		flags = append(flags, flagAnySender)
	}
	if a.Disabled {
		flags = append(flags, flagDisabled)
	}
	if len(others)+len(flags) > 0 {
		fields = append(fields, strings.Join(others, ","))
	}
	if len(flags) > 0 {
		fields = append(fields, strings.Join(flags, ","))
	}
	return strings.Join(fields, ":")
}

// parseAccount reads a line; it is neither empty nor a comment.
func parseAccount(line string) (a Account, err error) {
	f := strings.Split(line, ":")
	if len(f) < 2 || len(f) > 4 {
		return Account{}, errors.New("a line is ADDRESS:HASH, or ADDRESS:HASH:ADDRESS,ADDRESS:FLAG,FLAG")
	}
	if a.Name, err = ParseName(f[0]); err != nil {
		return Account{}, err
	}
	if a.hash, err = parseHash(strings.TrimSpace(f[1])); err != nil {
		return Account{}, err
	}
	for _, s := range list(f, 2) {
		o, err := ParseName(s)
		if err != nil {
			return Account{}, err
		}
		a.Addresses = append(a.Addresses, o)
	}
	for _, s := range list(f, 3) {
		switch s {
		case flagAnySender:
			a.AnySender = true
		case flagDisabled:
			a.Disabled = true
		default:
			return Account{}, fmt.Errorf("%q is not a flag; there are %s and %s", s, flagAnySender, flagDisabled)
		}
	}
	return a, nil
}

// list returns the words of a field, if it is there.
func list(fields []string, i int) (words []string) {
	if i >= len(fields) {
		return nil
	}
	for w := range strings.SplitSeq(fields[i], ",") {
		if w = strings.TrimSpace(w); w != "" {
			words = append(words, w)
		}
	}
	return words
}

// ParseName reads the name of an account: an address that needs no quotes, its domain a name.
func ParseName(s string) (mail.Address, error) {
	a, err := mail.ParseAddress(strings.TrimSpace(s))
	if err != nil {
		return mail.Address{}, err
	}
	a, err = mail.ParseAddress(Canonical(a))
	if err != nil || strings.HasPrefix(a.Domain(), "[") || strings.HasPrefix(a.String(), "#") {
		return mail.Address{}, fmt.Errorf("%q can't name an account; one is like ann@example.com", s)
	}
	return a, nil
}
