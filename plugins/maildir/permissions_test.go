package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

// nobody is a user that permissions count for.
const nobody = 65534

// asNobody says whether the test goes on in this process. Root may do everything, so that as root the test is run again in a
// process of another user, from a copy of its program in a place that this one can reach.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	dir, err := os.MkdirTemp("", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "test")
	if err := copyProgram(program); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("as uid %d: %v\n%s", nobody, err, out)
	}
	return false
}

func copyProgram(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	in, err := os.Open(self)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// logged is a log that tests read.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// take returns what was logged since it was last asked.
func (l *logged) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// served is a store with listeners, and where ann's mailbox is.
type served struct {
	*Maildir
	t         *testing.T
	host      any
	imap, pop string
	ann       string
	log       *logged
}

func serve(t *testing.T, host any) *served {
	t.Helper()
	m, log := newStore(t, nil), &logged{}
	m.log = slog.New(slog.NewTextHandler(log, nil))
	t.Cleanup(func() { m.Close() })
	s := &served{Maildir: m, t: t, host: host, ann: filepath.Join(m.path.base, "example.com/ann"), log: log}
	s.again()
	return s
}

// again begins to serve, with nothing in memory of what was served before.
func (s *served) again() {
	s.t.Helper()
	b := block()
	b.Connections, b.ConnectionsPerIP, b.ConnectionsPerLogin = 200, 200, 50
	s.Close()
	if err := s.Listen(Config{IMAP: []gate.Config{b}, POP3: []gate.Config{b}}, s.host); err != nil {
		s.t.Fatal(err)
	}
	s.imap, s.pop = s.servers[0].(addressed).Addresses()[0], s.servers[1].(addressed).Addresses()[0]
}

// letters stores so many messages for ann and returns their files.
func (s *served) letters(n int) (paths []string) {
	s.t.Helper()
	for i := range n {
		d := delivery(fmt.Sprintf("Subject: letter %d\r\n\r\nhello\r\n", i+1), "ann@example.com")
		d.ID = fmt.Sprintf("%s-%d", s.t.Name(), i)
		if got := codes(s.t, s.Maildir, d); got[0] != 250 {
			s.t.Fatal(got)
		}
	}
	paths, _ = filepath.Glob(filepath.Join(s.ann, "new", "*"))
	if len(paths) != n {
		s.t.Fatal(paths)
	}
	return paths
}

const (
	imapTrouble = "NO [UNAVAILABLE] The mail store has trouble, try again later"
	popTrouble  = "-ERR [SYS/TEMP] the mail store has trouble, try again later"
)

// readBoth reads ann's mail in both languages.
func (s *served) readBoth() (imap, pop string) {
	return ask(s.t, s.imap, "a LOGIN ann@example.com right", "b SELECT INBOX", "c FETCH 1:* (UID BODY.PEEK[TEXT])", "c2 UID SEARCH BODY hello", "d STATUS Sent (MESSAGES)",
			"e LIST \"\" *", "f LIST \"\" * RETURN (STATUS (MESSAGES))", "g LOGOUT"),
		ask(s.t, s.pop, "USER ann@example.com", "PASS right", "STAT", "RETR 1", "RETR 2", "TOP 3 0", "QUIT")
}

// TestPermissions: what this user may not read or write makes temporary trouble for the one who asks for it, and for nobody
// else. It is logged with its place and what to do, and when it is mended all is as it was before.
func TestPermissions(t *testing.T) {
	if !asNobody(t) {
		return
	}
	for _, test := range []struct {
		name, path string // what may not be used, below ann's folder
		mode       os.FileMode
		stored     int      // the answer to a delivery meanwhile
		imap, pop  []string // what is among the answers
	}{
		{"a message", "new/*", 0, 250, []string{"b OK", "* 2 FETCH", "* 3 FETCH", "c " + imapTrouble, "* SEARCH 2 3"}, []string{"+OK 3 ", popTrouble, "+OK 59 octets", "+OK 52 octets"}},
		{"new", "new", 0, 451, []string{"b " + imapTrouble, "c BAD"}, []string{popTrouble}},
		{"new, to be listed only", "new", 0o500, 451, []string{"b OK", "* 3 FETCH", "c OK"}, []string{"+OK 3 "}},
		{"cur", "cur", 0, 250, []string{"b " + imapTrouble, "c BAD"}, []string{popTrouble}},
		{"tmp", "tmp", 0, 451, []string{"b OK", "* 3 FETCH", "c OK"}, []string{"+OK 3 "}},
		{"the UIDs", "mta-uids", 0, 250, []string{"b " + imapTrouble}, []string{popTrouble}},
		{"the lock", "mta-uids.lock", 0, 250, []string{"b " + imapTrouble}, []string{popTrouble}},
		{"the keywords", "dovecot-keywords", 0, 250, []string{"b OK", "* 3 FETCH", "c OK"}, []string{"+OK 3 "}},
		{"the subscriptions", "subscriptions", 0, 250, []string{"b OK", "* 3 FETCH", "c OK"}, []string{"+OK 3 "}},
		{"another folder", ".Sent", 0, 250, []string{"b OK", "* 3 FETCH", "c OK", "d " + imapTrouble}, []string{"+OK 3 "}},
		{"the mailbox", "", 0, 451, []string{"a " + imapTrouble}, []string{popTrouble}},
		{"the mailbox, for writing", "", 0o500, 250, []string{"b OK", "* 3 FETCH", "c OK"}, []string{"+OK 3 "}},
	} {
		t.Run(test.name, func(t *testing.T) { checkPermission(t, test.path, test.mode, test.stored, test.imap, test.pop) })
	}
}

func checkPermission(t *testing.T, path string, mode os.FileMode, stored int, wantIMAP, wantPOP []string) {
	s := serve(t, fakeHost{})
	s.letters(3)
	for _, name := range []string{"dovecot-keywords", "subscriptions"} {
		if err := os.WriteFile(filepath.Join(s.ann, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, popBefore := s.readBoth()
	if !strings.Contains(before, "* STATUS \"Sent\" (MESSAGES 0)") || strings.Count(popBefore, "+OK") != 8 {
		t.Fatalf("%s\n%s", before, popBefore)
	}
	found, _ := filepath.Glob(filepath.Join(s.ann, path))
	info, err := os.Stat(found[0])
	if err != nil {
		t.Fatal(err)
	}
	s.log.take()
	if err := os.Chmod(found[0], mode); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(found[0], info.Mode().Perm()) //nolint:errcheck // so that the folder can be removed
	s.again()
	gotIMAP, gotPOP := s.readBoth()
	more := delivery(letter, "ann@example.com")
	if got := codes(t, s.Maildir, more); got[0] != stored {
		t.Errorf("a delivery is answered %v, not %d", got, stored)
	}
	for _, want := range wantIMAP {
		if !strings.Contains(gotIMAP, want) {
			t.Errorf("no %q in\n%s", want, gotIMAP)
		}
	}
	for _, want := range wantPOP {
		if !strings.Contains(gotPOP, want) {
			t.Errorf("no %q in\n%s", want, gotPOP)
		}
	}
	if strings.HasPrefix(wantIMAP[0], "b") && strings.Count(gotIMAP, "* LIST") != 12 {
		t.Errorf("folders are not listed:\n%s", gotIMAP)
	}
	if log := s.log.take(); (stored != 250 || strings.Contains(gotIMAP, "NO [")) &&
		(!strings.Contains(log, s.ann) || !strings.Contains(log, "permission denied") || !strings.Contains(log, "chown")) {
		t.Errorf("the log does not say where and what to do:\n%s", log)
	}
	if err := os.Chmod(found[0], info.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
	if got := codes(t, s.Maildir, more); got[0] != 250 {
		t.Errorf("afterwards a delivery is answered %v", got)
	}
	s.again()
	after, popAfter := s.readBoth()
	for line := range strings.Lines(before) {
		if strings.Contains(line, "UID") && !strings.Contains(line, "UIDNEXT") && !strings.Contains(after, strings.TrimSpace(line)) {
			t.Errorf("afterwards there is no %q in\n%s", line, after)
		}
	}
	if !strings.Contains(after, "* 4 EXISTS") || !strings.Contains(popAfter, "+OK 4 ") {
		t.Errorf("afterwards:\n%s\n%s", after, popAfter)
	}
}

// TestTroubleWhileOpen: a session whose folder can't be looked at any more goes on, and sees what came in when that is over.
func TestTroubleWhileOpen(t *testing.T) {
	if !asNobody(t) {
		return
	}
	s := serve(t, fakeHost{})
	s.letters(2)
	k := talk(t, s.imap)
	for _, cmd := range []string{"LOGIN ann@example.com right", "SELECT INBOX", "UID STORE 1 +FLAGS (\\Flagged)"} {
		if got := k.do(cmd); !strings.HasPrefix(got, "OK") {
			t.Fatal(got)
		}
	}
	cur := filepath.Join(s.ann, "cur")
	if err := os.Chmod(cur, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(cur, 0o700) //nolint:errcheck // so that the folder can be removed
	if got := codes(t, s.Maildir, delivery(letter, "ann@example.com")); got[0] != 250 {
		t.Error(got)
	}
	s.log.take()
	for _, test := range [][2]string{
		{"NOOP", "OK"}, {"NOOP", "OK"}, {"FETCH 1 (BODY.PEEK[])", imapTrouble}, {"FETCH 2 (BODY.PEEK[])", "OK"}, {"STORE 1 +FLAGS (\\Seen)", imapTrouble},
		{"STORE 2 +FLAGS (\\Seen)", imapTrouble}, {"MOVE 1 Sent", imapTrouble}, {"COPY 2 Sent", "OK"}, {"STATUS Sent (MESSAGES)", "OK"},
	} {
		if got := k.do(test[0]); !strings.HasPrefix(got, test[1]) {
			t.Errorf("%s: %s", test[0], got)
		}
	}
	if log := s.log.take(); strings.Count(log, "can't be looked at") != 1 || !strings.Contains(log, s.ann) {
		t.Errorf("the trouble is to be logged once:\n%s", log)
	}
	if err := os.Chmod(cur, 0o700); err != nil {
		t.Fatal(err)
	}
	k.do("NOOP")
	if got := k.do("CREATE old"); got != "OK CREATE completed" {
		t.Error(got)
	}
	old := filepath.Join(s.ann, ".old", "cur")
	if err := errors.Join(os.WriteFile(filepath.Join(old, "1.a"), nil, 0o600), os.Chmod(old, 0)); err != nil {
		t.Fatal(err)
	}
	if got := k.do("DELETE old"); got != "OK DELETE completed" || !strings.Contains(s.log.take(), "permission denied") {
		t.Errorf("a folder that is gone, but for what can't be removed of it: %s", got)
	}
	if graves, _ := filepath.Glob(filepath.Join(s.ann, "tmp", "deleted.*", "cur")); len(graves) != 1 || os.Chmod(graves[0], 0o700) != nil {
		t.Error(graves)
	}
	if got := k.do("FETCH 1:3 (UID FLAGS)"); !strings.HasPrefix(got, "OK") || !strings.Contains(k.said, "* 1 FETCH (UID 1 FLAGS (\\Flagged))") ||
		!strings.Contains(k.said, "* 3 FETCH (UID 3 FLAGS ())") {
		t.Errorf("%s: %s", got, k.said)
	}
}

// TestForeignFiles: what others have put in the place of our files costs no message, and is not written to.
func TestForeignFiles(t *testing.T) {
	for _, test := range []struct {
		name, file string
		put        func(path string) error
		fails      bool // the inbox can't be opened until it is taken away
	}{
		{"an empty file", "mta-uids", func(p string) error { return os.WriteFile(p, nil, 0o600) }, false},
		{"garbage", "mta-uids", func(p string) error { return os.WriteFile(p, []byte("mta-uids 1 x y\n1 a\n"), 0o600) }, false},
		{"binary", "mta-uids", func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{0, 0xff, '\n'}, 1000), 0o600) }, false},
		{"a directory", "mta-uids", func(p string) error { return os.Mkdir(p, 0o700) }, true},
		{"a link to a message", "mta-uids", func(p string) error { return linkToMessage(p) }, false},
		{"a link outside", "mta-uids", func(p string) error { return os.Symlink("/etc/passwd", p) }, true},
		{"a dangling link", "mta-uids", func(p string) error { return os.Symlink("nowhere", p) }, false},
		{"a pipe", "mta-uids", func(p string) error { return syscall.Mkfifo(p, 0o600) }, true},
		{"a link for the file beside", "mta-uids.tmp", func(p string) error { return linkToMessage(p) }, false},
		{"a directory for the file beside", "mta-uids.tmp", func(p string) error { return os.MkdirAll(filepath.Join(p, "x"), 0o700) }, true},
		{"a directory for the lock", "mta-uids.lock", func(p string) error { return os.Mkdir(p, 0o700) }, true},
		{"a link for the lock", "mta-uids.lock", func(p string) error { return os.Symlink("/etc/passwd", p) }, true},
		{"a directory for the validity", "mta-uidvalidity", func(p string) error { return os.Mkdir(p, 0o700) }, true},
		{"a link for the validity", "mta-uidvalidity", func(p string) error { return os.Symlink("/etc/passwd", p) }, true},
		{"garbage for the validity", "mta-uidvalidity", func(p string) error { return os.WriteFile(p, []byte("\x00\xff"), 0o600) }, false},
		{"a directory for the keywords", "dovecot-keywords", func(p string) error { return os.Mkdir(p, 0o700) }, false},
		{"a directory for the subscriptions", "subscriptions", func(p string) error { return os.Mkdir(p, 0o700) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, fakeHost{})
			s.letters(3)
			path := filepath.Join(s.ann, test.file)
			if err := test.put(path); err != nil {
				t.Fatal(err)
			}
			imap, pop := s.readBoth()
			switch log := s.log.take(); {
			case !test.fails && strings.Count(imap+pop, "hello") < 5:
				t.Errorf("%s\n%s", imap, pop)
			case test.fails && (!strings.Contains(imap, "b "+imapTrouble) || !strings.Contains(pop, popTrouble) || !strings.Contains(log, s.ann)):
				t.Errorf("%s\n%s\n%s", imap, pop, log)
			}
			if got := codes(t, s.Maildir, delivery(letter, "ann@example.com")); got[0] != 250 {
				t.Error(got)
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if imap, pop = s.readBoth(); !strings.Contains(imap, "* 4 EXISTS") || strings.Count(imap, "hello") != 4 || !strings.Contains(pop, "+OK 4 ") {
				t.Errorf("afterwards:\n%s\n%s", imap, pop)
			}
		})
	}
}

// linkToMessage links to the first message in new.
func linkToMessage(path string) error {
	all, err := filepath.Glob(filepath.Join(filepath.Dir(path), "new", "*"))
	if err != nil {
		return err
	}
	return os.Symlink(filepath.Join("new", filepath.Base(all[0])), path)
}

// TestKeywordsAreNotLost: where the names of keywords can't be read, no others are written in their place.
func TestKeywordsAreNotLost(t *testing.T) {
	s := serve(t, fakeHost{})
	s.letters(1)
	name := filepath.Join(s.ann, "dovecot-keywords")
	large := "0 $Work\n" + strings.Repeat("x\n", 64<<10)
	if err := os.WriteFile(name, []byte(large), 0o600); err != nil {
		t.Fatal(err)
	}
	k := talk(t, s.imap)
	k.do("LOGIN ann@example.com right")
	for _, test := range [][2]string{{"SELECT INBOX", "OK"}, {"STORE 1 +FLAGS ($Home)", imapTrouble}, {"STORE 1 +FLAGS (\\Seen)", "OK"}} {
		if got := k.do(test[0]); !strings.HasPrefix(got, test[1]) {
			t.Errorf("%s: %s", test[0], got)
		}
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != large {
		t.Errorf("it has %d bytes now, %v", len(b), err)
	}
}

// TestQuotaBesideClosedFolder: a folder that can't be counted keeps no mail out.
func TestQuotaBesideClosedFolder(t *testing.T) {
	if !asNobody(t) {
		return
	}
	m := newStore(t, func(c *Config) { c.Quota = 10_000 })
	closed := filepath.Join(m.path.base, "example.com/ann/.old/cur")
	if err := errors.Join(os.MkdirAll(closed, 0o700), os.Chmod(closed, 0)); err != nil {
		t.Fatal(err)
	}
	if got := codes(t, m, delivery(letter, "ann@example.com")); got[0] != 250 {
		t.Error(got)
	}
}

// TestTwoFilesOfOneName: where another file stands under the name that a message would get with its flags, neither is lost.
func TestTwoFilesOfOneName(t *testing.T) {
	s := serve(t, fakeHost{})
	first := s.letters(1)[0]
	second := filepath.Join(s.ann, "cur", filepath.Base(first)+":2,S")
	if err := os.WriteFile(second, []byte("another letter"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := talk(t, s.imap)
	for _, test := range [][2]string{
		{"LOGIN ann@example.com right", "OK"}, {"SELECT INBOX", "OK"}, {"STORE 1 +FLAGS (\\Seen)", imapTrouble}, {"STORE 1 +FLAGS (\\Flagged)", "OK"},
	} {
		if got := k.do(test[0]); !strings.HasPrefix(got, test[1]) {
			t.Errorf("%s: %s", test[0], got)
		}
	}
	for range 3 {
		k.do("NOOP")
		if got := k.do("FETCH 1 (FLAGS BODY.PEEK[])"); !strings.HasPrefix(got, "OK") || !strings.Contains(k.said, "letter 1") ||
			!strings.Contains(k.said, "FLAGS (\\Flagged)") {
			t.Errorf("the message has become another one: %s %s", got, k.said)
		}
	}
	if log := s.log.take(); !strings.Contains(log, filepath.Base(second)) || !strings.Contains(log, "before the colon") {
		t.Error(log)
	}
	flagged, err := os.ReadFile(filepath.Join(s.ann, "cur", filepath.Base(first)+":2,F"))
	if err != nil || !strings.Contains(string(flagged), "letter 1") {
		t.Errorf("%q, %v", flagged, err)
	}
	if b, err := os.ReadFile(second); err != nil || string(b) != "another letter" {
		t.Errorf("%q, %v", b, err)
	}
}
