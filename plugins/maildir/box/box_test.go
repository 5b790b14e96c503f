package box

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// open opens the inbox of the account in dir, as a process of its own would.
func open(t testing.TB, dir string) (*Account, *Mailbox) {
	t.Helper()
	s := New("host", func(string) (string, *os.Root, error) {
		root, err := os.OpenRoot(dir)
		return dir, root, err
	}, slog.New(slog.DiscardHandler))
	a, err := s.Account("ann")
	if err != nil {
		t.Fatal(err)
	}
	m, err := a.Open(Inbox)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); a.Close() })
	return a, m
}

func deliver(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "new", name), []byte("Subject: "+name+"\n\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// uids returns UID and name of all messages.
func uids(m *Mailbox) (out []string) {
	for _, msg := range m.Messages() {
		out = append(out, fmt.Sprintf("%d %s", msg.UID, msg.name))
	}
	return out
}

func TestUIDsAfterAnyCut(t *testing.T) {
	dir := t.TempDir()
	_, m := open(t, dir)
	for i := range 5 {
		deliver(t, dir, fmt.Sprintf("%d.a", i))
		if err := m.Sync(true); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Remove(m.Messages()[4:]); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, uidFileName))
	if err != nil {
		t.Fatal(err)
	}
	head := bytes.IndexByte(whole, '\n') + 1
	validity := m.Status().Validity
	want := uids(m)
	for cut := head; cut <= len(whole); cut++ {
		if err := os.WriteFile(filepath.Join(dir, uidFileName), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		_, again := open(t, dir)
		if again.Status().Validity != validity {
			t.Fatalf("cut at %d: another validity", cut)
		}
		lines := bytes.Count(whole[head:cut], []byte("\n"))
		if got := uids(again); !slices.Equal(got[:min(lines, 4)], want[:min(lines, 4)]) || len(got) != 4 {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		next := uint32(5)
		if lines >= 5 { // what the line of the fifth message has given out stays given out, though the message is gone
			next = 6
		}
		if got := again.Status().Next; got != next {
			t.Fatalf("cut at %d: the next UID is %d, want %d", cut, got, next)
		}
	}
}

func TestBrokenUIDFileGetsAHigherValidity(t *testing.T) {
	dir := t.TempDir()
	_, m := open(t, dir)
	last := m.Status().Validity
	for _, broken := range []string{"", "x", "mta-uids 1 0 1\n", "mta-uids 1 5 0\n", "mta-uids 1 99999999999 1\n", "mta-uids 1 5 4294967295\n", strings.Repeat("\x00", 100)} {
		if err := os.WriteFile(filepath.Join(dir, uidFileName), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.Sync(true); err != nil {
			t.Fatal(err)
		}
		_, again := open(t, dir)
		v := again.Status().Validity
		if v <= last {
			t.Errorf("%q: validity %d after %d", broken, v, last)
		}
		last = v
	}
}

func TestTwoProcessesAgree(t *testing.T) {
	dir := t.TempDir()
	_, a := open(t, dir)
	_, b := open(t, dir)
	var wg sync.WaitGroup
	for i, m := range []*Mailbox{a, b} {
		wg.Go(func() {
			for n := range 30 {
				deliver(t, dir, fmt.Sprintf("%d.%d", n, i))
				if _, err := m.Append(strings.NewReader("Subject: x\r\n\r\n"), 0, time.Time{}); err != nil {
					t.Error(err)
				}
				if err := m.Sync(true); err != nil {
					t.Error(err)
				}
				if n%7 == 0 {
					if err := m.Remove(m.Messages()[:1]); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, m := range []*Mailbox{a, b} {
		if err := m.Sync(true); err != nil {
			t.Fatal(err)
		}
	}
	_, c := open(t, dir)
	x, y, z := uids(a), uids(b), uids(c)
	if !slices.Equal(x, y) || !slices.Equal(x, z) || len(x) < 100 {
		t.Errorf("%d, %d and %d messages:\n%q\n%q", len(x), len(y), len(z), x, y)
	}
	seen := map[string]bool{}
	for _, s := range x {
		uid, _, _ := strings.Cut(s, " ")
		if seen[uid] {
			t.Errorf("UID %s twice", uid)
		}
		seen[uid] = true
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	_, m := open(t, dir)
	for i := range 700 {
		deliver(t, dir, fmt.Sprintf("%d.a", i))
	}
	if err := m.Sync(true); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(m.Messages()[1:]); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, uidFileName))
	if err != nil || info.Size() > 100 {
		t.Errorf("%v, %v", info, err)
	}
	_, again := open(t, dir)
	if st := again.Status(); st.Next != 701 || st.Messages != 1 || st.Validity != m.Status().Validity {
		t.Errorf("%+v", st)
	}
}

func TestFolderMadeAgainHasAnotherValidity(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir)
	last := uint32(0)
	for range 3 {
		if err := a.Create("x"); err != nil {
			t.Fatal(err)
		}
		m, err := a.Open("x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Append(strings.NewReader("a: b\r\n\r\n"), Seen, time.Time{}); err != nil {
			t.Fatal(err)
		}
		v := m.View()
		if m.Status().Validity <= last || v.Len() != 1 {
			t.Errorf("validity %d after %d", m.Status().Validity, last)
		}
		last = m.Status().Validity
		if err := a.Delete("x"); err != nil {
			t.Fatal(err)
		}
		if c := v.Update(true); len(c) != 1 || c[0].Expunged != 1 {
			t.Errorf("who has it open is told %+v", c)
		}
		if _, err := a.Open("x"); !errors.Is(err, ErrNoFolder) {
			t.Errorf("%v", err)
		}
		m.Close()
	}
}

func TestKeywordsRunOut(t *testing.T) {
	_, m := open(t, t.TempDir())
	for i := range maxKeywords {
		if _, err := m.Letters([]string{fmt.Sprintf("k%d", i)}, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Letters([]string{"K3"}, true); err != nil {
		t.Error(err)
	}
	if _, err := m.Letters([]string{"more"}, true); !errors.Is(err, ErrKeywords) {
		t.Error(err)
	}
	if _, err := m.Letters([]string{"a b"}, true); err == nil {
		t.Error("a name that IMAP can't say was taken")
	}
}

func TestSubscriptions(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir)
	if err := a.Subscribe("일", true); err != nil {
		t.Fatal(err)
	}
	if err := a.Subscribe("junk", false); err != nil {
		t.Fatal(err)
	}
	got, err := a.Subscribed()
	if want := []string{Inbox, "Archive", "Drafts", "Sent", "Trash", "일"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, subscriptionsName), []byte("V\t2\n\nINBOX\na\tb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Subscribed(); err != nil || !slices.Equal(got, []string{Inbox, "a.b"}) {
		t.Errorf("Dovecot's: %q, %v", got, err)
	}
}

func TestUTF7(t *testing.T) {
	for name, want := range map[string]string{"Entwürfe": "Entw&APw-rfe", "a&b": "a&-b", "台北": "&U,BTFw-", "plain": "plain", "😀": "&2D3eAA-"} {
		if got := encodeUTF7(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
		if back, ok := decodeUTF7(want); !ok || back != name {
			t.Errorf("%q: %q", want, back)
		}
	}
	for _, bad := range []string{"&", "&AA", "&!!-", "&AGE-", "\xff"} {
		if name, ok := decodeUTF7(bad); ok {
			t.Errorf("%q is %q", bad, name)
		}
	}
}

func FuzzUIDs(f *testing.F) {
	f.Add([]byte("mta-uids 1 5 3\n1 a\n2 b\n-1\n"))
	f.Add([]byte("mta-uids 1 5 3\n\n7 \"a b\"\n-\n- 3\n9"))
	f.Add([]byte("mta-uids 1 5 4294967290\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseUIDs(b)
		if err != nil {
			return
		}
		if u.offset > int64(len(b)) || u.offset > 0 && b[u.offset-1] != '\n' || u.next == 0 || u.next > maxUID {
			t.Fatalf("%q: %+v", b, u)
		}
		out := fmt.Appendf(nil, "%s%d %d\n", uidMagic, u.validity, u.next)
		for name, uid := range u.known {
			if uid == 0 || uid >= u.next {
				t.Fatalf("%q: UID %d of %d", b, uid, u.next)
			}
			out = appendUID(out, uid, name)
		}
		again, err := parseUIDs(out)
		if err != nil || again.next != u.next || len(again.known) != len(u.known) {
			t.Fatalf("%q\n%q\n%+v\n%+v %v", b, out, u, again, err)
		}
	})
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"a\r\nb\r\n", "a\nb", "\r\r\n", "\r", "\n", "", "a\r\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var raw bytes.Buffer
		check := lineCheck{w: &raw}
		if _, err := io.Copy(&check, bytes.NewReader(b)); err != nil || !bytes.Equal(raw.Bytes(), b) {
			t.Fatal(err)
		}
		n, err := crlfSize(bytes.NewReader(b), false)
		if err != nil || n != int64(len(withCRLF(bytes.Clone(b)))) {
			t.Fatalf("%q: %d, %v, %q", b, n, err, withCRLF(b))
		}
		if !check.strict() {
			return
		}
		var lf bytes.Buffer
		size, err := withLF(&lf, bytes.NewReader(b))
		if err != nil || size != int64(lf.Len()) || !bytes.Equal(withCRLF(lf.Bytes()), b) {
			t.Fatalf("%q is kept as %q, which is %q again, %v", b, lf.Bytes(), withCRLF(lf.Bytes()), err)
		}
	})
}

func FuzzMIME(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nA: b\r\n\r\ny\r\n--b--\r\n"))
	f.Add([]byte("Content-Type: multipart/digest; boundary=\"a\\\"b\" (c)\n\n--a\"b\n\n--a\"b--"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var walk func(p *Part)
		parts := 0
		walk = func(p *Part) {
			parts++
			if p.Type == "multipart" && len(p.Parts) == 0 || p.Type == "" || p.Subtype == "" {
				t.Fatalf("%+v", p)
			}
			if !bytes.Contains(b, p.Body) || !bytes.Contains(b, p.Header) {
				t.Fatalf("a part is not of the message: %q", p.Body)
			}
			for _, c := range p.Parts {
				walk(c)
			}
		}
		p := Parse(b)
		walk(p)
		if !bytes.Equal(append(bytes.Clone(p.Header), p.Body...), b) || parts > maxParts+maxDepth {
			t.Fatalf("%d parts of %q", parts, b)
		}
		p.Find([]int{1, 1, 1})
		for f := range Fields(b) {
			f.Value()
		}
	})
}

// TestDeliveredIsLookedForAtOnce: a folder whose reading takes long is read again only now and then, but for mail that we
// have delivered.
func TestDeliveredIsLookedForAtOnce(t *testing.T) {
	dir := t.TempDir()
	a, m := open(t, dir)
	m.took = time.Hour
	deliver(t, dir, "1.a")
	if err := m.Sync(false); err != nil || len(m.Messages()) != 0 {
		t.Fatalf("the folder was read again at once: %v", err)
	}
	a.store.Delivered(a.key)
	if err := m.Sync(false); err != nil || len(m.Messages()) != 1 {
		t.Errorf("%d messages, %v", len(m.Messages()), err)
	}
}
