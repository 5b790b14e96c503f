package imap

import (
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"github.com/pabal-mta/mta/plugins/maildir/box"
)

// Create makes a folder.
func (s *session) Create(name string, _ *imap.CreateOptions) error {
	return s.answer("making a folder", s.account.Create(name))
}

// Delete removes a folder.
func (s *session) Delete(name string) error {
	return s.answer("removing a folder", s.account.Delete(name))
}

// Rename gives a folder another name.
func (s *session) Rename(from, to string, _ *imap.RenameOptions) error {
	return s.answer("renaming a folder", s.account.Rename(from, to))
}

// Subscribe remembers that the person wants to see a folder.
func (s *session) Subscribe(name string) error {
	return s.answer("subscribing", s.account.Subscribe(name, true))
}

// Unsubscribe remembers that the person does not want to see a folder.
func (s *session) Unsubscribe(name string) error {
	return s.answer("unsubscribing", s.account.Subscribe(name, false))
}

// Status returns a folder in numbers.
func (s *session) Status(name string, options *imap.StatusOptions) (*imap.StatusData, error) {
	m, err := s.account.Open(name)
	if err != nil {
		return nil, s.answer("opening a folder", err)
	}
	defer m.Close()
	st := m.Status()
	limit, none := uint32(appendLimit), uint32(0)
	data := &imap.StatusData{
		Mailbox: name, NumMessages: &st.Messages, NumRecent: &none, UIDNext: imap.UID(st.Next), UIDValidity: st.Validity,
		NumUnseen: &st.Unseen, NumDeleted: &st.Deleted, AppendLimit: &limit,
	}
	var size, deleted int64
	if options.Size || options.DeletedStorage {
		for _, msg := range m.Messages() {
			n, err := m.Size(msg)
			if err != nil {
				continue // it has gone, or can't be read
			}
			size += n
			if m.Marks(msg).Flags&box.Deleted != 0 {
				deleted += n
			}
		}
	}
	data.Size, data.DeletedStorage = &size, &deleted
	return data, nil
}

// List lists folders.
func (s *session) List(w *imapserver.ListWriter, ref string, patterns []string, options *imap.ListOptions) error {
	if len(patterns) == 0 { // what the delimiter is (RFC 9051, 6.3.9)
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: box.Delimiter})
	}
	there, err := s.account.Folders()
	if err != nil {
		return s.answer("listing folders", err)
	}
	var subscribed []string
	if options.ReturnSubscribed || options.SelectSubscribed {
		if subscribed, err = s.account.Subscribed(); err != nil {
			return s.answer("reading subscriptions", err)
		}
	}
	all := withParents(there)
	if options.SelectSubscribed {
		all = subscribed
	}
	for _, name := range all {
		if !matchesAny(name, ref, patterns) || options.SelectSpecialUse && special(name) == "" {
			continue
		}
		data := &imap.ListData{Mailbox: name, Delim: box.Delimiter, Attrs: attributes(name, there)}
		if slices.Contains(subscribed, name) {
			data.Attrs = append(data.Attrs, imap.MailboxAttrSubscribed)
		}
		if options.ReturnStatus != nil && slices.Contains(there, name) {
			if data.Status, err = s.Status(name, options.ReturnStatus); err != nil {
				data.Status = nil // it has been removed meanwhile, or can't be read: the list goes on
			}
		}
		if err := w.WriteList(data); err != nil {
			return err
		}
	}
	return nil
}

// withParents adds the names that folders are below of.
func withParents(names []string) []string {
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		seen[name] = true
	}
	out := slices.Clone(names)
	for _, name := range names {
		for i := range len(name) {
			if name[i] == box.Delimiter && !seen[name[:i]] {
				seen[name[:i]] = true
				out = append(out, name[:i])
			}
		}
	}
	return out
}

func attributes(name string, there []string) (attrs []imap.MailboxAttr) {
	if !slices.Contains(there, name) {
		attrs = append(attrs, imap.MailboxAttrNonExistent)
	}
	below := name + string(box.Delimiter)
	if slices.ContainsFunc(there, func(s string) bool { return strings.HasPrefix(s, below) }) {
		attrs = append(attrs, imap.MailboxAttrHasChildren)
	} else {
		attrs = append(attrs, imap.MailboxAttrHasNoChildren)
	}
	if use := special(name); use != "" {
		attrs = append(attrs, use)
	}
	return attrs
}

// special returns what a folder is for (RFC 6154).
func special(name string) imap.MailboxAttr {
	if slices.Contains(box.Special(), name) {
		return imap.MailboxAttr(`\` + name)
	}
	return ""
}

func matchesAny(name, ref string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(name, ref+p) })
}

// matches says whether a pattern fits all of a name: * is anything, % anything but the delimiter. It takes no longer than
// the product of their lengths, whatever the pattern.
func matches(name, pattern string) bool {
	if strings.EqualFold(pattern, box.Inbox) {
		pattern = box.Inbox
	}
	if len(pattern) > 1000 {
		return false
	}
	now := make([]bool, len(name)+1) // now[i]: what has been seen of the pattern fits name[:i]
	now[0] = true
	for _, p := range []byte(pattern) {
		next := make([]bool, len(name)+1)
		for i := range now {
			switch {
			case p != '*' && p != '%':
				next[i] = i > 0 && now[i-1] && name[i-1] == p
			case now[i]:
				next[i] = true
			default:
				next[i] = i > 0 && next[i-1] && (p == '*' || name[i-1] != box.Delimiter)
			}
		}
		now = next
	}
	return now[len(name)]
}
