package box

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// look opens an account's inbox for a moment.
func look(t *testing.T, s *Store, folder string, do func(*Account, *Mailbox)) {
	t.Helper()
	a, err := s.Account("ann")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	m, err := a.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	do(a, m)
}

// TestLinger: what was read stays for a while, and is never stale.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := storeAt(dir)
		put(t, dir, "ann/new/1.a.h")
		var first *Mailbox
		look(t, s, Inbox, func(_ *Account, m *Mailbox) { first = m })
		put(t, dir, "ann/new/2.a.h")
		look(t, s, Inbox, func(_ *Account, m *Mailbox) {
			if m != first || len(m.Messages()) != 2 {
				t.Errorf("the same: %v, %d messages", m == first, len(m.Messages()))
			}
		})
		if err := os.Rename(filepath.Join(dir, "ann"), filepath.Join(dir, "old")); err != nil {
			t.Fatal(err)
		}
		put(t, dir, "ann/new/3.a.h")
		look(t, s, Inbox, func(_ *Account, m *Mailbox) {
			if m == first || len(m.Messages()) != 1 {
				t.Errorf("another folder of that name: %v, %d messages", m == first, len(m.Messages()))
			}
			first = m
		})
		time.Sleep(lingerTime + time.Second)
		synctest.Wait()
		if len(s.accounts)+len(s.idle) != 0 {
			t.Errorf("%d accounts linger for ever", len(s.accounts))
		}
		look(t, s, Inbox, func(_ *Account, m *Mailbox) {
			if m == first {
				t.Error("it lingers for ever")
			}
		})
		time.Sleep(lingerTime + time.Second)
	})
}

// TestLingeringIsBounded opens more than may linger.
func TestLingeringIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := storeAt(dir)
	for i := range maxIdle + 10 {
		name := fmt.Sprintf("a%d", i)
		put(t, dir, name+"/new/1.a.h")
		a, err := s.Account(name)
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
	}
	if len(s.accounts) != maxIdle || len(s.idle) != maxIdle {
		t.Errorf("%d accounts, %d idle", len(s.accounts), len(s.idle))
	}
	put(t, dir, "ann/new/1.a.h")
	a, err := s.Account("ann")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for i := range maxIdleBoxes + 10 {
		name := fmt.Sprintf("f%d", i)
		if err := a.Create(name); err != nil {
			t.Fatal(err)
		}
		m, err := a.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
	if len(a.boxes) > maxIdleBoxes {
		t.Errorf("%d folders linger", len(a.boxes))
	}
}

// TestKeep: what is kept is counted, and the count comes back to nothing.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	s := storeAt(dir)
	put(t, dir, "ann/new/1.a.h")
	put(t, dir, "ann/new/2.a.h")
	look(t, s, Inbox, func(_ *Account, m *Mailbox) {
		one, two := m.Messages()[0], m.Messages()[1]
		m.Keep(one, "x", 100)
		m.Keep(one, "y", 100)
		m.Keep(two, "too much", maxKept)
		if m.Kept(one) != "x" || m.Kept(two) != nil || s.kept.Load() != 100+keptAtLeast {
			t.Errorf("%v, %v, %d bytes", m.Kept(one), m.Kept(two), s.kept.Load())
		}
		m.Keep(two, "z", 1)
		if err := m.Remove([]*Message{one}); err != nil {
			t.Fatal(err)
		}
		if m.Kept(one) != nil || m.Kept(two) != "z" {
			t.Error("what is gone is kept")
		}
	})
	s.mu.Lock()
	s.drop(s.idle[0])
	s.mu.Unlock()
	if s.kept.Load() != 0 {
		t.Errorf("%d bytes are kept for nobody", s.kept.Load())
	}
}

func storeAt(dir string) *Store {
	return New("host", func(account string) (string, *os.Root, error) {
		root, err := os.OpenRoot(filepath.Join(dir, account))
		return account, root, err
	}, slog.New(slog.DiscardHandler))
}

// put makes a file in a Maildir.
func put(t *testing.T, dir, name string) {
	t.Helper()
	for _, sub := range []string{"new", "cur", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(filepath.Dir(name)), sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("Subject: x\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}
