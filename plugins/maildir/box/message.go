package box

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"time"
)

// after returns the index of the first message above uid.
func (m *Mailbox) after(uid uint32) int {
	return sort.Search(len(m.msgs), func(i int) bool { return m.msgs[i].UID > uid })
}

func (m *Mailbox) marks(msg *Message) Marks { return m.words(msg.flags) }

func (m *Mailbox) words(f Flags) Marks {
	k := m.keywords.names(f)
	if f&Passed != 0 && !slices.Contains(k, Forwarded) {
		k = append(k, Forwarded)
	}
	return Marks{f, k}
}

// Forwarded is the keyword that Maildir has a letter of its own for.
const Forwarded = "$Forwarded"

// Marks returns what is marked on a message.
func (m *Mailbox) Marks(msg *Message) Marks {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks(msg)
}

// Keywords returns the keywords of the folder, and whether more can be made.
func (m *Mailbox) Keywords() (names []string, room bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names = m.keywords.names(^Flags(0))
	room = len(names) < maxKeywords
	if !slices.Contains(names, Forwarded) {
		names = append(names, Forwarded)
	}
	return names, room
}

// Status is a folder in numbers.
type Status struct {
	Validity, Next            uint32
	Messages, Unseen, Deleted uint32
	FirstUnseen               uint32 // its number; 0: there is none
}

// Status counts.
func (m *Mailbox) Status() (s Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.uids != nil {
		s.Validity, s.Next = m.uids.validity, m.uids.next
	}
	s.Messages = uint32(len(m.msgs))
	for i, msg := range m.msgs {
		if msg.flags&Seen == 0 {
			s.Unseen++
			if s.FirstUnseen == 0 {
				s.FirstUnseen = uint32(i) + 1
			}
		}
		if msg.flags&Deleted != 0 {
			s.Deleted++
		}
	}
	return s
}

// Messages returns the messages, by UID.
func (m *Mailbox) Messages() []*Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.msgs[:len(m.msgs):len(m.msgs)]
}

// Size returns the size of a message with CRLF: what its name says, or what it turns out to be.
func (m *Mailbox) Size(msg *Message) (int64, error) {
	m.mu.Lock()
	size := msg.size
	m.mu.Unlock()
	if size > 0 {
		return size, nil
	}
	f, info, err := m.open(msg)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if size, err = crlfSize(f, isRaw(msg.name, info.Size())); err != nil {
		return 0, err
	}
	m.setSize(msg, size)
	return size, nil
}

func (m *Mailbox) setSize(msg *Message, size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	msg.size = size
}

// isRaw says whether a file is a message as it came, because its lines would not survive with LF: then its size is the
// one with CRLF as well.
func isRaw(name string, size int64) bool {
	return size > 0 && field(name, ",S=") == size && field(name, ",W=") == size
}

// crlfSize counts what a file has when each line ends in CRLF.
func crlfSize(r io.Reader, raw bool) (n int64, err error) {
	buf := make([]byte, 32<<10)
	var last byte
	for {
		k, err := r.Read(buf)
		n += int64(k)
		for b := buf[:k]; !raw && len(b) > 0; {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				break
			}
			if i > 0 {
				last = b[i-1]
			}
			if last != '\r' {
				n++
			}
			last = '\n'
			b = b[i+1:]
		}
		if k > 0 {
			last = buf[k-1]
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// Date returns when the message came in: the time of its file, as Dovecot has it.
func (m *Mailbox) Date(msg *Message) (time.Time, error) {
	m.mu.Lock()
	date := msg.date
	m.mu.Unlock()
	if !date.IsZero() {
		return date, nil
	}
	err := m.onFile(msg, func(name string) error {
		info, err := m.root().Stat(name)
		if err == nil {
			date = info.ModTime()
		}
		return err
	})
	if err != nil {
		return date, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	msg.date = date
	return date, nil
}

// Load returns the message with CRLF. Free gives the memory back to the account.
func (m *Mailbox) Load(msg *Message) (content []byte, free func(), err error) {
	f, info, err := m.open(msg)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	want := info.Size() + info.Size()/16
	if err := m.account.memory.take(want); err != nil {
		return nil, nil, err
	}
	free = func() { m.account.memory.give(want) }
	b, err := io.ReadAll(io.LimitReader(f, info.Size()))
	if err != nil {
		free()
		return nil, nil, err
	}
	if !isRaw(msg.name, int64(len(b))) {
		b = withCRLF(b)
	}
	m.setSize(msg, int64(len(b)))
	return b, free, nil
}

// maxHeader is how much of a message is looked at for its header.
const maxHeader = 256 << 10

// LoadHeader returns the header of the message with CRLF, and the empty line after it if there is one.
func (m *Mailbox) LoadHeader(msg *Message) ([]byte, error) {
	f, info, err := m.open(msg)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 0, 4<<10)
	for n := int64(4 << 10); ; n = maxHeader {
		if b, err = readUpTo(f, b, n); err != nil {
			return nil, err
		}
		end := headerEnd(b)
		if end < len(b) || n == maxHeader || int64(len(b)) < n {
			b = b[:end]
			break
		}
	}
	if !isRaw(msg.name, info.Size()) {
		b = withCRLF(b)
	}
	return b, nil
}

func readUpTo(r io.Reader, b []byte, n int64) ([]byte, error) {
	rest, err := io.ReadAll(io.LimitReader(r, n-int64(len(b))))
	return append(b, rest...), err
}

// headerEnd returns where the body begins.
func headerEnd(b []byte) int {
	for at := 0; at < len(b); {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return len(b)
		}
		line := b[at : at+i]
		at += i + 1
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return at
		}
	}
	return len(b)
}

// withCRLF makes CRLF of each LF that has no CR before it.
func withCRLF(b []byte) []byte {
	n := 0
	for i, c := range b {
		if c == '\n' && (i == 0 || b[i-1] != '\r') {
			n++
		}
	}
	if n == 0 {
		return b
	}
	out := make([]byte, 0, len(b)+n)
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return append(out, b...)
		}
		out = append(out, b[:i]...)
		if len(out) == 0 || out[len(out)-1] != '\r' || i == 0 {
			out = append(out, '\r')
		}
		out = append(out, '\n')
		b = b[i+1:]
	}
}

// Op is what to do with flags.
type Op uint8

// The three that there are.
const (
	Set Op = iota
	Add
	Clear
)

// ErrKeywords says that a folder has no letter left for another keyword.
var ErrKeywords = errors.New("there is no room for another keyword in this folder")

// Letters returns the flags that keywords have in this folder, and makes them where they are new.
func (m *Mailbox) Letters(names []string, create bool) (f Flags, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var missing []string
	for _, name := range names {
		bit, ok := m.keywords.find(name)
		switch {
		case strings.EqualFold(name, Forwarded):
			f |= Passed | bit
		case ok:
			f |= bit
		case isKeyword(name):
			missing = append(missing, name)
		default:
			return 0, fmt.Errorf("%q is no keyword", name)
		}
	}
	if !create || len(missing) == 0 {
		return f, nil
	}
	made, err := m.makeKeywords(missing)
	return f | made, err
}

// makeKeywords writes down names for free letters. The lock is taken, so that two processes do not take one letter.
func (m *Mailbox) makeKeywords(names []string) (f Flags, err error) {
	unlock, err := m.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()
	free, err := m.lockDovecot()
	if err != nil {
		return 0, err
	}
	defer free()
	m.keyStamp = time.Time{} // two changes within a tick of the clock have the same time
	if err := m.readKeywords(); err != nil {
		return 0, err // names that are not known would be lost with the file that is written
	}
	var used Flags
	for _, msg := range m.msgs {
		used |= msg.flags
	}
	k := m.keywords
	for _, name := range names {
		bit, ok := k.find(name)
		if !ok {
			bit, ok = k.add(name, used)
		}
		if !ok {
			return 0, ErrKeywords
		}
		f |= bit
	}
	name, before := path.Join(m.dir, keywordFile), m.keyStamp
	info, err := replaceFile(m.root(), name, k.format())
	if err != nil {
		return 0, err
	}
	m.keywords, m.keyStamp = k, info.ModTime()
	// Dovecot reads the file again when its second is another one.
	if next := time.Unix(before.Unix()+1, 0); !before.IsZero() && m.keyStamp.Before(next) {
		if err := m.root().Chtimes(name, next, next); err != nil {
			return 0, err
		}
		m.keyStamp = next
	}
	m.mod++
	return f, nil
}

// Mark changes the flags of a message: its file gets another name.
func (m *Mailbox) Mark(msg *Message, op Op, flags Flags) error {
	for range maxTries {
		done, err := m.mark(msg, op, flags)
		if done || err != nil {
			return err
		}
		if err := m.Sync(true); err != nil {
			return err
		}
	}
	return errRenamed
}

func (m *Mailbox) mark(msg *Message, op Op, flags Flags) (done bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if msg.gone {
		return true, ErrGone
	}
	switch op {
	case Add:
		flags |= msg.flags
	case Clear:
		flags = msg.flags &^ flags
	}
	if flags == msg.flags {
		return true, nil
	}
	info := flags.suffix(msg.other)
	to := path.Join(m.dir, "cur", msg.name+info)
	if _, err := m.root().Lstat(to); err == nil {
		return true, fmt.Errorf("%s: %w", to, errTwice) // a rename would replace it
	}
	err = m.root().Rename(m.fileName(msg), to)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	m.mod++
	msg.sub, msg.info, msg.flags, msg.mod = "cur", info, flags, m.mod
	m.notify()
	return true, nil
}

// Remove removes messages for good. It goes on after an error, and returns the first.
func (m *Mailbox) Remove(msgs []*Message) error {
	var first error
	var gone []*Message
	for _, msg := range msgs {
		err := m.onFile(msg, m.root().Remove)
		switch {
		case err == nil:
			m.account.give(m.bytesOf(msg))
			gone = append(gone, msg)
		case !errors.Is(err, ErrGone) && first == nil:
			first = err
		}
	}
	m.forget(gone)
	return first
}

// forget takes out messages whose files we have removed, and writes that down. Where it can't be written, as on a full disk,
// they are gone all the same: the line that gave a UID is on the disk and keeps it from being used again, and the next look
// finds that its file is missing.
func (m *Mailbox) forget(gone []*Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone = slices.DeleteFunc(gone, func(msg *Message) bool { return msg.gone })
	if len(gone) == 0 {
		return
	}
	defer m.notify()
	m.warn(cantBury, m.buryLocked(gone))
}

// buryLocked is bury under the lock of the UIDs.
func (m *Mailbox) buryLocked(gone []*Message) error {
	unlock, err := m.lock()
	if err != nil {
		m.remove(gone)
		return err
	}
	defer unlock()
	if err := m.readUIDs(); err != nil {
		m.remove(gone)
		return err
	}
	return m.bury(gone)
}
