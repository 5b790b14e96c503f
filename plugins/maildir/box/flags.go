package box

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// Flags are what is marked on a message: six flags of Maildir, and keywords by their letter.
type Flags uint32

// The flags, in the order of their letters in a file name (https://cr.yp.to/proto/maildir.html).
const (
	Draft Flags = 1 << iota
	Flagged
	Passed // forwarded or bounced on
	Answered
	Seen
	Deleted
	keyword0 // the letter a; keywords take the bits from here
)

const letters = "DFPRST"

// maxKeywords is how many letters there are for keywords.
const maxKeywords = 26

// parseFlags reads what follows ":2,". Letters that mean nothing to us are returned, to be kept.
func parseFlags(s string) (f Flags, other string) {
	for i := range len(s) {
		c := s[i]
		switch n := strings.IndexByte(letters, c); {
		case n >= 0:
			f |= 1 << n
		case c >= 'a' && c <= 'z':
			f |= keyword0 << (c - 'a')
		case strings.IndexByte(other, c) < 0:
			other += string(rune(c))
		}
	}
	return f, other
}

// suffix returns the end of a file name, letters in their order.
func (f Flags) suffix(other string) string {
	b := []byte(":2,")
	for i := range len(letters) {
		if f&(1<<i) != 0 {
			b = append(b, letters[i])
		}
	}
	b = append(b, other...)
	for i := range maxKeywords {
		if f&(keyword0<<i) != 0 {
			b = append(b, byte('a'+i))
		}
	}
	return string(b)
}

// keywords are the names of the letters in one folder, kept in a file that Dovecot reads and writes too.
type keywords [maxKeywords]string

const keywordFile = "dovecot-keywords"

// Dovecot writes the file of keywords under the lock of its file of UIDs: a file that is made exclusively, and removed. One
// that is older than dovecotStale is left over.
const (
	dovecotUIDs  = "dovecot-uidlist"
	dovecotLock  = dovecotUIDs + ".lock"
	dovecotStale = 2 * time.Minute
	dovecotWait  = 2 * time.Second // at most, for the lock
	dovecotPause = 5 * time.Millisecond
)

// lockDovecot takes the lock under which Dovecot gives letters to keywords, so that none gets two names. Where Dovecot has never
// looked at the folder there is nothing to lock.
func (m *Mailbox) lockDovecot() (unlock func(), err error) {
	if _, err := m.root().Lstat(path.Join(m.dir, dovecotUIDs)); err != nil {
		return func() {}, nil //nolint:nilerr // there is no Dovecot, or what is wrong shows in the next step
	}
	name := path.Join(m.dir, dovecotLock)
	for until := time.Now().Add(dovecotWait); ; time.Sleep(dovecotPause) {
		f, err := m.root().OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			f.Close()
			return func() { _ = m.root().Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if info, err := m.root().Lstat(name); err == nil && time.Since(info.ModTime()) > dovecotStale {
			_ = m.root().Remove(name) // the next try tells
			continue
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("%s is locked by another program (%s)", m.dir, dovecotLock)
		}
	}
}

// parseKeywords reads lines of a number and a name; what is no such line, or no name for IMAP, is skipped.
func parseKeywords(b []byte) (k keywords) {
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		number, name, ok := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(number)
		if ok && err == nil && n >= 0 && n < maxKeywords && isKeyword(name) {
			k[n] = name
		}
	}
	return k
}

func (k *keywords) format() []byte {
	var b bytes.Buffer
	for i, name := range k {
		if name != "" {
			fmt.Fprintf(&b, "%d %s\n", i, name)
		}
	}
	return b.Bytes()
}

// find returns the bit of a keyword; names are the same in any case (RFC 9051, 2.3.2).
func (k *keywords) find(name string) (Flags, bool) {
	for i, have := range k {
		if have != "" && strings.EqualFold(have, name) {
			return keyword0 << i, true
		}
	}
	return 0, false
}

// add gives a keyword the first free letter that no message uses.
func (k *keywords) add(name string, used Flags) (Flags, bool) {
	for i := range k {
		if k[i] == "" && used&(keyword0<<i) == 0 {
			k[i] = name
			return keyword0 << i, true
		}
	}
	return 0, false
}

// names returns the keywords among flags.
func (k *keywords) names(f Flags) (names []string) {
	for i, name := range k {
		if name != "" && f&(keyword0<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// isKeyword says whether IMAP can name it: an atom of visible ASCII (RFC 9051, 9).
func isKeyword(s string) bool {
	return s != "" && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r)
	})
}
