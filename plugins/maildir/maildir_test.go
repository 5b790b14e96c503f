package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/plugins/users"
	"github.com/pabal-mta/mta/sdk/mail"
)

const letter = "Subject: hi\r\n\r\nhello\r\n"

func address(s string) mail.Address { return mail.MustParseAddress(s) }

// newStore makes a store with the accounts ann and bob, whose extra address is info.
func newStore(t *testing.T, change func(*Config)) *Maildir {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{
		Path: filepath.Join(dir, "mail/{domain}/{user}"), Accounts: filepath.Join(dir, "users"), Separator: "+",
		Aliases: map[string]string{
			"team@example.com":   "ann@example.com, bob@example.com",
			"away@example.com":   "ann@example.com,ann@elsewhere.example",
			"loop@example.com":   "pool@example.com",
			"pool@example.com":   "loop@example.com",
			"bob@example.com":    "bob@example.com,team+x@example.com",
			"@catch.example":     "ann+caught@example.com",
			"@example.net":       "nobody@example.net",
			"tagged@example.com": "ann+t@example.com",
		},
	}
	const hash = ":$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"
	accounts := "ann@example.com" + hash + "\nbob@example.com" + hash + ":info@example.com\n"
	if err := os.WriteFile(cfg.Accounts, []byte(accounts), 0o600); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func delivery(content string, to ...string) *mail.Delivery {
	d := &mail.Delivery{ID: "0001", From: address("eve@example.org"), Content: mail.Bytes([]byte(content)), Time: time.Now().Add(time.Hour)}
	for _, a := range to {
		d.To = append(d.To, mail.Recipient{Address: address(a)})
	}
	return d
}

func codes(t *testing.T, m *Maildir, d *mail.Delivery) (codes []int) {
	t.Helper()
	replies, err := m.Store(t.Context(), d)
	if err != nil || len(replies) != len(d.To) {
		t.Fatalf("%d replies for %d recipients, %v", len(replies), len(d.To), err)
	}
	for _, r := range replies {
		if err := r.Check(); err != nil {
			t.Error(err)
		}
		codes = append(codes, r.Code)
	}
	return codes
}

// files returns the contents of the messages of a mailbox, in the order of their names.
func files(t *testing.T, m *Maildir, box, sub string) (texts []string) {
	t.Helper()
	rel, err := m.path.expand(address(box))
	if err != nil {
		t.Fatal(err)
	}
	paths, _ := filepath.Glob(filepath.Join(m.path.base, rel, sub, "*"))
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(p, fmt.Sprintf(",S=%d,W=", len(b))) {
			t.Errorf("%s holds %d bytes", p, len(b))
		}
		texts = append(texts, string(b))
	}
	return texts
}

func TestStore(t *testing.T) {
	m := newStore(t, nil)
	d := delivery(letter, "ann@example.com", "Ann+Tag@example.com", "nobody@example.com", "info@example.com", `"../../x"@example.com`, "away@example.com")
	if got := codes(t, m, d); !slices.Equal(got, []int{250, 250, 550, 250, 550, 451}) {
		t.Errorf("the codes are %v", got)
	}
	got := files(t, m, "ann@example.com", "new")
	slices.Sort(got)
	head := "Delivered-To: "
	want := []string{head + "Ann+Tag@example.com\nSubject: hi\n\nhello\n", head + "ann@example.com\nSubject: hi\n\nhello\n",
		head + "info@example.com\nSubject: hi\n\nhello\n"}
	if !slices.Equal(got, want) {
		t.Errorf("ann has %q", got)
	}
	if got := files(t, m, "bob@example.com", "new"); len(got) != 1 || !strings.Contains(got[0], "Delivered-To: info@example.com\n") {
		t.Errorf("bob has %q", got)
	}
	for _, sub := range []string{"tmp", "cur"} {
		if got := files(t, m, "ann@example.com", sub); len(got) != 0 {
			t.Errorf("%s holds %q", sub, got)
		}
	}
	box := filepath.Join(m.path.base, "example.com/ann")
	for _, dir := range []string{box, filepath.Join(box, "cur"), filepath.Join(box, "new"), filepath.Join(box, "tmp")} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
}

// TestReturnPathStaysOnTop: the server puts it there, and the line of the store comes below it.
func TestReturnPathStaysOnTop(t *testing.T) {
	m := newStore(t, nil)
	d := delivery("Return-Path: <eve@example.org>\r\nSubject: hi\r\n\r\nhello\r\n", "ann@example.com")
	codes(t, m, d)
	want := "Return-Path: <eve@example.org>\nDelivered-To: ann@example.com\nSubject: hi\n\nhello\n"
	if got := files(t, m, "ann@example.com", "new"); !slices.Equal(got, []string{want}) {
		t.Errorf("ann has %q", got)
	}
}

func TestNullSender(t *testing.T) {
	m := newStore(t, nil)
	d := delivery("", "ann@example.com")
	d.From = mail.Address{}
	codes(t, m, d)
	if got := files(t, m, "ann@example.com", "new"); !slices.Equal(got, []string{"Delivered-To: ann@example.com\n"}) {
		t.Errorf("ann has %q", got)
	}
}

// A message that is given again is stored once, whatever has happened to it and to us since.
func TestStoredOnce(t *testing.T) {
	read := func(t *testing.T, m *Maildir) {
		box := filepath.Join(m.path.base, "example.com/ann")
		paths, _ := filepath.Glob(filepath.Join(box, "new/*"))
		for _, p := range paths {
			if err := os.Rename(p, filepath.Join(box, "cur", filepath.Base(p)+":2,S")); err != nil {
				t.Fatal(err)
			}
		}
	}
	restart := func(_ *testing.T, m *Maildir) { m.stored = newStored(time.Now().Add(2 * time.Hour)) }
	for name, between := range map[string]func(*testing.T, *Maildir){
		"at once":                  func(*testing.T, *Maildir) {},
		"after it was read":        read,
		"after a restart":          restart,
		"after both":               func(t *testing.T, m *Maildir) { read(t, m); restart(t, m) },
		"by a process beside ours": func(_ *testing.T, m *Maildir) { m.stored = newStored(time.Time{}) },
		"after it was forgotten":   func(t *testing.T, m *Maildir) { read(t, m); forget(m) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newStore(t, nil)
			codes(t, m, delivery(letter, "ann@example.com"))
			d := delivery(letter, "ann@example.com", "ann+x@example.com")
			d.Time = time.Unix(d.Time.Unix(), 0)
			first := delivery(letter, "ann@example.com")
			first.ID, first.Time = "0002", d.Time
			codes(t, m, first)
			between(t, m)
			again := delivery(letter, "ann@example.com")
			again.ID, again.Time = "0002", d.Time
			if got := codes(t, m, again); !slices.Equal(got, []int{250}) {
				t.Errorf("the second time it is answered %v", got)
			}
			n := len(files(t, m, "ann@example.com", "new")) + len(files(t, m, "ann@example.com", "cur"))
			if n != 2 {
				t.Errorf("ann has %d messages, not 2", n)
			}
		})
	}
}

// forget stores so many other deliveries that the first are no longer remembered.
func forget(m *Maildir) {
	for i := range remembered {
		m.stored.add(key{1, byte(i), byte(i >> 8)}, time.Now().Add(2*time.Hour))
	}
}

func TestConcurrentTriesStoreOnce(t *testing.T) {
	m := newStore(t, nil)
	d := delivery(letter, "ann@example.com", "bob@example.com", "ann+1@example.com")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if replies, err := m.Store(t.Context(), d); err != nil || !replies[0].Positive() {
				t.Error(replies, err)
			}
		})
	}
	wg.Wait()
	// bob is an alias for bob and, by team, ann.
	if a, b := files(t, m, "ann@example.com", "new"), files(t, m, "bob@example.com", "new"); len(a) != 3 || len(b) != 1 {
		t.Errorf("ann has %d messages, bob %d", len(a), len(b))
	}
}

func TestLineEnds(t *testing.T) {
	long := strings.Repeat("x", chunk-1)
	for _, c := range []struct{ in, want string }{
		{"a\r\nb\r\n", "a\nb\n"},
		{"a\r\nb", "a\nb"},
		{"a\rb\r\n", "a\rb\n"},
		{"a\r\nb\nc\r\n", "a\r\nb\nc\r\n"},     // a bare LF: as it is
		{"a\r\r\nb\r\n", "a\r\r\nb\r\n"},       // CR CR LF: as it is
		{long + "\r\nb\r\n", long + "\nb\n"},   // the CRLF across two chunks
		{long + "\r\r\nb", long + "\r\r\nb"},   // CR CR LF across them
		{long + "\rb\r\n", long + "\rb\n"},     // a CR alone at the end of a chunk
		{long + "x\nb\r\n", long + "x\nb\r\n"}, // a LF alone at the start of one
		{strings.Repeat("\r", chunk+1), strings.Repeat("\r", chunk+1)},
		{"\x00\xff\r\n", "\x00\xff\n"},
	} {
		m := newStore(t, nil)
		codes(t, m, delivery(c.in, "ann@example.com"))
		got := files(t, m, "ann@example.com", "new")
		if len(got) != 1 {
			t.Fatalf("%.20q: %d files", c.in, len(got))
		}
		head := deliveredTo(address("ann@example.com"))
		if got[0] != head+c.want && got[0] != strings.ReplaceAll(head, "\r\n", "\n")+c.want {
			t.Errorf("%.20q is kept as %.80q", c.in, got[0])
		}
	}
}

// broken is a content whose store fails.
type broken struct{ *bytes.Reader }

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("the disk is gone") }

func TestTroubleLeavesNothing(t *testing.T) {
	m := newStore(t, nil)
	d := delivery(letter, "ann@example.com")
	d.Content = broken{bytes.NewReader([]byte(letter))}
	if got := codes(t, m, d); got[0] != 451 {
		t.Errorf("an unreadable content is answered %d", got[0])
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := m.Store(ctx, delivery(letter, "ann@example.com")); err != nil || r[0].Code != 451 {
		t.Errorf("after the deadline: %v, %v", r, err)
	}
	for _, sub := range []string{"new", "tmp", "cur"} {
		if got := files(t, m, "ann@example.com", sub); len(got) != 0 {
			t.Errorf("%s holds %q", sub, got)
		}
	}
}

func TestRepliesToErrors(t *testing.T) {
	m := newStore(t, nil)
	for _, c := range []struct {
		err  error
		want string
	}{
		{&os.PathError{Op: "write", Path: "/secret", Err: syscall.ENOSPC}, "452 4.3.1"},
		{&os.PathError{Op: "write", Path: "/secret", Err: syscall.EDQUOT}, "452 4.2.2"},
		{&os.PathError{Op: "write", Path: "/secret", Err: syscall.EIO}, "451 4.3.0"},
		{&os.PathError{Op: "open", Path: "/secret", Err: syscall.EMFILE}, "451 4.3.0"},
	} {
		r := m.trouble(delivery(letter), address("ann@example.com"), c.err)
		if !strings.HasPrefix(r.String(), c.want) || strings.Contains(r.String(), "secret") {
			t.Errorf("%v is answered %s", c.err, r)
		}
	}
}

// Nothing gets out of the folder, by a name or by a link.
func TestNoWayOut(t *testing.T) {
	m := newStore(t, func(c *Config) { c.Accounts = "" })
	outside := t.TempDir()
	base := m.path.base
	if err := os.MkdirAll(filepath.Join(base, "example.com"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(base, "example.com", "mal")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(base, "example.com", "sly"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.Symlink(outside, filepath.Join(base, "example.com", "sly", sub)); err != nil {
			t.Fatal(err)
		}
	}
	for _, local := range []string{"..", ".", "../x", "a/b", "/etc/x", ".hidden", `a\b`, "mal", "sly", strings.Repeat("a", 64), "a b"} {
		a, err := mail.NewAddress(local, "example.com")
		if err != nil {
			t.Fatal(err)
		}
		d := delivery(letter)
		d.To = []mail.Recipient{{Address: a}}
		if got := codes(t, m, d); got[0] < 400 {
			t.Errorf("%s is answered %d", a, got[0])
		}
	}
	for dir, want := range map[string]int{outside: 0, filepath.Dir(base): 2, base: 1, filepath.Join(base, "example.com"): 2} {
		if e, err := os.ReadDir(dir); err != nil || len(e) != want {
			t.Errorf("%s holds %v, %v", dir, e, err)
		}
	}
}

func TestFoldersAreTheTruth(t *testing.T) {
	m := newStore(t, func(c *Config) { c.Accounts, c.Aliases = "", nil })
	if err := os.MkdirAll(filepath.Join(m.path.base, "example.com/zoe"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := codes(t, m, delivery(letter, "Zoe@example.com", "zoe+x@example.com", "ann@example.com")); !slices.Equal(got, []int{250, 250, 550}) {
		t.Errorf("the codes are %v", got)
	}
}

func TestLookup(t *testing.T) {
	m := newStore(t, nil)
	for _, c := range []struct {
		asked, want string
	}{
		{"ann@example.com", "exists"},
		{"ANN@EXAMPLE.COM", "exists"},
		{"ann+lists+go@example.com", "exists"},
		{"+ann@example.com", "unknown"},
		{"anna@example.com", "unknown"},
		{"ann@example.net", "unknown"}, // the catch-all of that domain leads nowhere
		{"info@example.com", "ann@example.com bob@example.com"},
		{"info+x@example.com", "ann@example.com bob@example.com"},
		{"team@example.com", "ann@example.com bob@example.com"},
		{"bob@example.com", "ann@example.com bob@example.com"},
		{"away@example.com", "ann@example.com ann@elsewhere.example"},
		{"loop@example.com", "unknown"},
		{"tagged@example.com", "ann+t@example.com"},
		{"anybody@catch.example", "ann+caught@example.com"},
		{"postmaster@example.com", "ann@example.com"},
		{"PostMaster@other.example", "ann@example.com"},
		{`"../../x"@example.com`, "unknown"},
	} {
		boxes, err := m.Lookup(t.Context(), []mail.Address{address(c.asked)})
		if err != nil {
			t.Fatal(err)
		}
		var got string
		switch boxes[0].State {
		case mail.MailboxExists:
			got = "exists"
		case mail.MailboxUnknown:
			got = "unknown"
		case mail.MailboxAlias:
			var all []string
			for _, a := range boxes[0].Aliases {
				all = append(all, a.String())
			}
			if !strings.Contains(c.want, "elsewhere") {
				slices.Sort(all)
			}
			got = strings.Join(all, " ")
		}
		if got != c.want {
			t.Errorf("%s: %s, not %s", c.asked, got, c.want)
		}
	}
}

func TestLookupSeesNewAccounts(t *testing.T) {
	var file string
	m := newStore(t, func(c *Config) { file = c.Accounts })
	state := func() mail.MailboxState {
		b, err := m.Lookup(t.Context(), []mail.Address{address("new@example.com")})
		if err != nil {
			t.Fatal(err)
		}
		return b[0].State
	}
	if state() != mail.MailboxUnknown {
		t.Error("it exists before it was made")
	}
	f, err := users.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Add(users.Account{Name: address("new@example.com")}, "x"); err != nil {
		t.Fatal(err)
	}
	if state() != mail.MailboxExists {
		t.Error("it does not exist after it was made")
	}
	// A file that vanishes must not turn mailboxes into unknown ones: mail would bounce.
	os.Remove(file)
	if state() != mail.MailboxExists {
		t.Error("it does not exist after the file vanished")
	}
	other := newStore(t, func(c *Config) { c.Accounts += ".none" })
	if _, err := other.Lookup(t.Context(), []mail.Address{address("new@example.com")}); err == nil {
		t.Error("without a file of accounts there is an answer")
	}
	if got := codes(t, other, delivery(letter, "new@example.com")); got[0] != 451 {
		t.Errorf("without a file of accounts the store answers %d", got[0])
	}
}

func TestTemplate(t *testing.T) {
	for _, c := range []struct{ path, base, rel string }{
		{"/var/mail/{domain}/{user}", "/var/mail", "example.com/ann"},
		{"./var/mail/{domain}/{user}", "var/mail", "example.com/ann"},
		{"{domain}/{user}/Maildir/", ".", "example.com/ann/Maildir"},
		{"/home/{user}@{domain}/Maildir", "/home", "ann@example.com/Maildir"},
		{"/{user}", "/", "ann"},
		{"/var/mail", "", ""},
		{"/var/{domain}", "", ""},
		{"/var/{user}/../x", "", ""},
		{"/var/{user}/{home}", "", ""},
	} {
		got, err := parseTemplate(c.path)
		if c.base == "" {
			if err == nil {
				t.Errorf("%s was taken", c.path)
			}
			continue
		}
		rel, err2 := got.expand(address("Ann@Example.COM"))
		if err != nil || err2 != nil || got.base != c.base || rel != c.rel {
			t.Errorf("%s: %q and %q, %v, %v", c.path, got.base, rel, err, err2)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no path":             {},
		"an alias to nothing": {Path: "{user}", Aliases: map[string]string{"a@b.example": ""}},
		"an alias of nothing": {Path: "{user}", Aliases: map[string]string{"a": "a@b.example"}},
		"a bad postmaster":    {Path: "{user}", Postmaster: "me"},
	} {
		if _, err := New(cfg, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("ann", "example.com")
	f.Add("../..", "example.com")
	f.Add("a\\b", "[192.0.2.1]")
	tmpl, err := parseTemplate("/var/mail/{domain}/{user}")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, local, domain string) {
		a, err := mail.NewAddress(local, domain)
		if err != nil {
			return
		}
		rel, err := tmpl.expand(a)
		if err != nil {
			return
		}
		if !filepath.IsLocal(rel) || filepath.Clean(rel) != rel || strings.Count(rel, "/") != 1 || strings.Contains(rel, "/.") {
			t.Errorf("%q is kept in %q", a, rel)
		}
	})
}

func BenchmarkStore(b *testing.B) {
	dir := b.TempDir()
	m, err := New(Config{Path: dir + "/{user}", Aliases: nil}, nil)
	if err != nil {
		b.Fatal(err)
	}
	os.Mkdir(dir+"/ann", 0o700)
	d := delivery(letter+strings.Repeat(strings.Repeat("x", 70)+"\r\n", 56), "ann@example.com")
	i := 0
	for b.Loop() {
		i++
		d.ID = fmt.Sprint(i)
		if r, err := m.Store(b.Context(), d); err != nil || !r[0].Positive() {
			b.Fatal(r, err)
		}
	}
}
