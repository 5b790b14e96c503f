package maildir

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/pabal-mta/mta/plugins/users"
	"github.com/pabal-mta/mta/sdk/mail"
)

// maxTargets bounds what one address may stand for.
const maxTargets = 1000

// names says what addresses stand for.
type names struct {
	aliases    map[string][]mail.Address // by canonical name, or by "@domain"
	separator  string
	postmaster mail.Address
	file       *users.File // nil: folders are the truth
	folder     func(mail.Address) (bool, error)

	mu      sync.Mutex
	version any // of the file, when the accounts below were made
	all     *accounts
}

// accounts is what is needed of the file of accounts.
type accounts struct {
	first   mail.Address
	names   map[string]bool
	aliases map[string][]mail.Address // an account's other addresses
}

func newNames(cfg Config, folder func(mail.Address) (bool, error)) (*names, error) {
	n := &names{aliases: make(map[string][]mail.Address), separator: cfg.Separator, folder: folder}
	for from, to := range cfg.Aliases {
		key, targets, err := parseAlias(from, to)
		if err != nil {
			return nil, fmt.Errorf("aliases: %s: %w", from, err)
		}
		n.aliases[key] = targets
	}
	var err error
	if n.postmaster, err = parseOptional(cfg.Postmaster); err != nil {
		return nil, fmt.Errorf("postmaster: %w", err)
	}
	if cfg.Accounts != "" {
		if n.file, err = users.Open(cfg.Accounts); err != nil {
			return nil, fmt.Errorf("accounts: %w", err)
		}
	}
	return n, nil
}

// parseAlias reads what an address, or "@domain", stands for.
func parseAlias(from, to string) (key string, targets []mail.Address, err error) {
	if key, err = aliasKey(from); err != nil {
		return "", nil, err
	}
	for s := range strings.SplitSeq(to, ",") {
		a, err := mail.ParseAddress(strings.TrimSpace(s))
		if err != nil {
			return "", nil, err
		}
		targets = append(targets, a)
	}
	return key, targets, nil
}

// parseOptional reads an address, or nothing.
func parseOptional(s string) (mail.Address, error) {
	if s == "" {
		return mail.Address{}, nil
	}
	return mail.ParseAddress(s)
}

// aliasKey returns the key of an address or of "@domain".
func aliasKey(s string) (string, error) {
	if domain, ok := strings.CutPrefix(s, "@"); ok {
		d, err := mail.ParseDomain(domain)
		return "@" + d, err
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return "", err
	}
	return users.Canonical(a), nil
}

// Lookup says which mailboxes exist.
func (m *Maildir) Lookup(_ context.Context, addresses []mail.Address) ([]mail.Mailbox, error) {
	boxes := make([]mail.Mailbox, len(addresses))
	for i, a := range addresses {
		found, err := m.names.resolve(a)
		if err != nil {
			return nil, err
		}
		boxes[i] = found.mailbox()
	}
	return boxes, nil
}

// found is what an address stands for in the end.
type found struct {
	boxes     []mail.Address // accounts of ours
	targets   []mail.Address // the addresses that led to them, sub-addresses kept
	elsewhere []mail.Address // addresses that are not ours
	direct    bool           // the address itself is the mailbox
}

func (f *found) mailbox() mail.Mailbox {
	switch {
	case f.direct:
		return mail.Mailbox{State: mail.MailboxExists}
	case len(f.boxes)+len(f.elsewhere) == 0:
		return mail.Mailbox{State: mail.MailboxUnknown}
	}
	return mail.Mailbox{State: mail.MailboxAlias, Aliases: append(f.targets, f.elsewhere...)}
}

// resolve follows aliases to their end. An alias that names itself stands for the mailbox of that name; a circle of them
// leads nowhere.
func (n *names) resolve(a mail.Address) (*found, error) {
	all, err := n.accounts()
	if err != nil {
		return nil, err
	}
	w := walk{names: n, all: all, seen: make(map[string]bool)}
	if err := w.visit(a, true); err != nil {
		return nil, err
	}
	return &w.found, nil
}

// accounts returns what the file holds now; nil when folders are the truth.
func (n *names) accounts() (*accounts, error) {
	if n.file == nil {
		return nil, nil
	}
	version, err := n.file.Version()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all != nil && (err != nil || version == n.version) {
		return n.all, nil // of a file that has become unusable the last good accounts stay in force
	}
	if err != nil {
		return nil, err
	}
	list, err := n.file.List()
	if err != nil {
		return nil, err
	}
	n.all, n.version = newAccounts(list), version
	return n.all, nil
}

func newAccounts(list []users.Account) *accounts {
	all := &accounts{names: make(map[string]bool), aliases: make(map[string][]mail.Address)}
	for i, a := range list {
		if i == 0 {
			all.first = a.Name
		}
		all.names[users.Canonical(a.Name)] = true
		for _, other := range a.Addresses {
			key := users.Canonical(other)
			all.aliases[key] = append(all.aliases[key], a.Name)
		}
	}
	return all
}

// walk is one resolving.
type walk struct {
	*names
	all   *accounts
	seen  map[string]bool
	found found
}

// visit follows one address. First is set for the address that was asked about.
func (w *walk) visit(a mail.Address, first bool) error {
	key := users.Canonical(a)
	if w.seen[key] || len(w.seen) > maxTargets {
		return nil
	}
	w.seen[key] = true
	box, targets, err := w.step(a)
	switch {
	case err != nil:
		return err
	case !box.IsNull():
		w.found.boxes = append(w.found.boxes, box)
		w.found.targets = append(w.found.targets, a)
		w.found.direct = first
		return nil
	case targets == nil && !first:
		w.found.elsewhere = append(w.found.elsewhere, a)
	}
	for _, t := range targets {
		if err := w.follow(t, key); err != nil {
			return err
		}
	}
	return nil
}

// follow visits one target of the alias named from.
func (w *walk) follow(t mail.Address, from string) error {
	if users.Canonical(t) != from {
		return w.visit(t, false)
	}
	ok, err := w.exists(t)
	if ok {
		w.found.boxes = append(w.found.boxes, t)
		w.found.targets = append(w.found.targets, t)
	}
	return err
}

// step says what one address is: a mailbox, an alias, or, with neither, nothing of ours.
func (w *walk) step(a mail.Address) (box mail.Address, targets []mail.Address, err error) {
	for _, name := range w.spellings(a) {
		key := users.Canonical(name)
		if targets := w.aliases[key]; targets != nil {
			return mail.Address{}, targets, nil
		}
		if ok, err := w.exists(name); ok || err != nil {
			return name, nil, err
		}
		if w.all != nil && w.all.aliases[key] != nil {
			return mail.Address{}, w.all.aliases[key], nil
		}
	}
	if p := w.postmasterFor(a); !p.IsNull() {
		return mail.Address{}, []mail.Address{p}, nil
	}
	return mail.Address{}, w.aliases["@"+a.Domain()], nil
}

// spellings returns the address and, if it is a sub-address, the one before the separator.
func (w *walk) spellings(a mail.Address) []mail.Address {
	if w.separator != "" {
		if i := strings.Index(a.Local(), w.separator); i > 0 {
			if base, err := mail.NewAddress(a.Local()[:i], a.Domain()); err == nil {
				return []mail.Address{a, base}
			}
		}
	}
	return []mail.Address{a}
}

// postmasterFor returns who is postmaster when that is asked for: it must always be somebody (RFC 5321, 4.5.1).
func (w *walk) postmasterFor(a mail.Address) mail.Address {
	if !strings.EqualFold(a.Local(), "postmaster") {
		return mail.Address{}
	}
	if w.postmaster.IsNull() && w.all != nil {
		return w.all.first
	}
	return w.postmaster
}

func (w *walk) exists(a mail.Address) (bool, error) {
	if w.all != nil {
		return w.all.names[users.Canonical(a)], nil
	}
	return w.folder(a)
}
