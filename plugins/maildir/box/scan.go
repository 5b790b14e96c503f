package box

import (
	"io"
	"os"
	"path"
	"strings"
	"syscall"
)

// found is a file that a scan has met and that no message in memory has.
type found struct {
	name, sub, info string
	moment          int64 // that the name begins with
}

// scanLocked reads the folder and gives UIDs to what is new in it.
func (m *Mailbox) scanLocked() error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.readUIDs(); err != nil {
		return err
	}
	m.warn("the names of keywords can't be read", m.readKeywords()) // without them letters mean nothing
	before := m.mod
	fresh, missing, err := m.look()
	if err != nil {
		return err
	}
	// On a full disk new mail gets no UIDs, and waits; what is known already can be read.
	m.warn("new mail can't be shown yet", m.admit(fresh))
	for name, uid := range m.uids.known { // of files that are no longer there
		missing = append(missing, &Message{UID: uid, name: name})
	}
	clear(m.uids.known)
	m.warn(cantBury, m.bury(missing))
	if m.mod != before {
		m.notify()
	}
	return nil
}

// maxLooks bounds how often a folder is read in which files are missing while others rename files all the time.
const maxLooks = 5

// look lists the folder until what is missing can be believed. A file that is renamed meanwhile may be in neither list: gone is
// what no look has seen, and the second or a later one without a rename ends it.
func (m *Mailbox) look() (fresh []found, missing []*Message, err error) {
	first := m.scans + 1
	for n := range maxLooks {
		renames := m.renames
		if fresh, err = m.list(); err != nil {
			return nil, nil, err
		}
		if missing = m.missing(first); len(missing) == 0 || n > 0 && m.renames == renames {
			break
		}
	}
	return fresh, missing, nil
}

// cantBury is a trouble for warn.
const cantBury = "what is gone can't be written down"

// warn logs a trouble that the folder can be used in spite of, once until it is another.
func (m *Mailbox) warn(what string, err error) {
	if err == nil {
		delete(m.warned, what)
		return
	}
	if m.warned[what] != err.Error() {
		m.warned[what] = err.Error()
		m.account.store.log.Warn(what, "account", m.account.key, "path", path.Join(m.root().Name(), m.dir), "error", err, "hint", Hint(err))
	}
}

// list reads new and cur, in this order because messages go this way. It returns the files of no message.
func (m *Mailbox) list() ([]found, error) {
	m.scans++
	var fresh []found
	seen := make(map[string]bool)
	for _, sub := range []string{"new", "cur"} {
		d, err := openDir(m.root(), path.Join(m.dir, sub))
		if err != nil {
			return nil, err
		}
		for err == nil {
			var entries []os.DirEntry
			entries, err = d.ReadDir(4096)
			for _, e := range entries {
				f, ok := parseName(e, sub)
				if !ok || m.see(f) || seen[f.name] {
					continue
				}
				seen[f.name] = true
				fresh = append(fresh, f)
			}
		}
		d.Close()
		if err != io.EOF {
			return nil, err
		}
	}
	return fresh, nil
}

// openDir opens a folder to be listed with the types of its entries, and nothing else of them. A file that a root has opened
// asks the disk about each entry, which is most of the time that a large folder takes; a second descriptor does not.
func openDir(root *os.Root, name string) (*os.File, error) {
	d, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Dup(int(d.Fd()))
	if err != nil {
		return nil, &os.PathError{Op: "dup", Path: name, Err: err}
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name), nil
}

func parseName(e os.DirEntry, sub string) (found, bool) {
	name := e.Name()
	if name[0] == '.' || !e.Type().IsRegular() {
		return found{}, false
	}
	base, info := name, ""
	if i := strings.LastIndexByte(name, ':'); i > 0 {
		base, info = name[:i], name[i:]
	}
	return found{base, sub, info, moment(base)}, true
}

// see brings a message up to date with its file, and says whether there is one of that name.
func (m *Mailbox) see(f found) bool {
	msg := m.byName[f.name]
	if msg == nil {
		return false
	}
	msg.scan = m.scans
	if msg.sub == f.sub && msg.info == f.info {
		return true
	}
	if _, err := m.root().Lstat(m.fileName(msg)); err == nil {
		return true // two files of one name: the one that has been shown counts
	}
	m.renames++
	msg.sub, msg.info = f.sub, f.info
	flags, other := parseInfo(f)
	msg.other = other
	if flags != msg.flags {
		m.mod++
		msg.flags, msg.mod = flags, m.mod
	}
	return true
}

// parseInfo reads the flags of a file; in new there are none.
func parseInfo(f found) (Flags, string) {
	s, ok := strings.CutPrefix(f.info, ":2,")
	if !ok || f.sub == "new" {
		return 0, ""
	}
	return parseFlags(s)
}

// missing returns the messages that no scan since the first has seen.
func (m *Mailbox) missing(first uint32) (missing []*Message) {
	for _, msg := range m.msgs {
		if msg.scan < first {
			missing = append(missing, msg)
		}
	}
	return missing
}
