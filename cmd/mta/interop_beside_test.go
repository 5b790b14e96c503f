//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// beside is a session of bob at one of two servers that serve the same Maildir.
type beside struct {
	t        *testing.T
	name     string
	c        *imapclient.Client
	validity uint32
}

func newBeside(t *testing.T, name, address string) *beside {
	t.Helper()
	c, err := login(address, "bob@example.test", secret)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() { c.Close() })
	b := &beside{t: t, name: name, c: c}
	b.open("INBOX")
	return b
}

func (b *beside) open(folder string) {
	b.t.Helper()
	data, err := b.c.Select(folder, nil).Wait()
	if err != nil {
		b.t.Fatalf("%s: %s: %v", b.name, folder, err)
	}
	b.validity = data.UIDValidity
}

// uids and flags are by subject.
type beheld struct {
	uids  map[string]imap.UID
	flags map[string]string
}

// look tells what is in the open folder. A message that the other server moves at this moment may be missing.
func (b *beside) look() beheld {
	b.t.Helper()
	seen := beheld{map[string]imap.UID{}, map[string]string{}}
	if err := b.c.Noop().Wait(); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
	list, err := b.c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, Flags: true, Envelope: true}).Collect()
	if no := new(imap.Error); err != nil && !errors.As(err, &no) { // an empty folder
		b.t.Fatalf("%s: %v", b.name, err)
	}
	for _, m := range list {
		var words []string
		for _, f := range m.Flags {
			if !strings.EqualFold(string(f), `\Recent`) {
				words = append(words, string(f))
			}
		}
		slices.Sort(words)
		subject := m.Envelope.Subject
		if seen.uids[subject] != 0 {
			b.t.Errorf("%s: %s is there twice", b.name, subject)
		}
		seen.uids[subject], seen.flags[subject] = m.UID, strings.Join(words, " ")
	}
	return seen
}

// until looks until it is as wanted.
func (b *beside) until(what string, ok func(beheld) bool) beheld {
	b.t.Helper()
	var seen beheld
	if !poll(func() bool { seen = b.look(); return ok(seen) }) {
		b.t.Fatalf("%s never shows %s: %+v", b.name, what, seen)
	}
	return seen
}

func (b *beside) mark(uid imap.UID, op imap.StoreFlagsOp, flags ...imap.Flag) {
	b.t.Helper()
	if err := b.c.Store(imap.UIDSetNum(uid), &imap.StoreFlags{Op: op, Silent: true, Flags: flags}, nil).Close(); err != nil {
		b.t.Errorf("%s: marking %d: %v", b.name, uid, err)
	}
}

// TestInteropDovecotBeside: Dovecot and our plugin serve one Maildir at the same time. Each keeps the numbers that it has
// given, sees the flags and keywords that the other sets, and where the other moves what.
func TestInteropDovecotBeside(t *testing.T) {
	interop(t, "dovecot")
	needRoot(t)
	plain := freeAddress(t)
	s := newSite(t, fmt.Sprintf(plainMailboxes, plain))
	d := newDovecot(t, filepath.Join(s.dir, "mail"), "bob@example.test")
	bobsLetters(t, s, 6)
	ours, theirs := newBeside(t, "ours", plain), newBeside(t, "Dovecot", d.imap)
	both := []*beside{ours, theirs}
	six := func(x beheld) bool { return len(x.uids) == 6 }
	first := []beheld{ours.until("six letters", six), theirs.until("six letters", six)}
	validity := []uint32{ours.validity, theirs.validity}

	ours.mark(first[0].uids["sample 1"], imap.StoreFlagsAdd, imap.FlagFlagged, "Work")
	theirs.until("our marks", func(x beheld) bool { return x.flags["sample 1"] == `Work \Flagged` })
	theirs.mark(first[1].uids["sample 2"], imap.StoreFlagsAdd, imap.FlagAnswered, "Home", "Work")
	ours.until("Dovecot's marks", func(x beheld) bool { return x.flags["sample 2"] == `Home Work \Answered` })
	ours.mark(first[0].uids["sample 2"], imap.StoreFlagsDel, "Work")
	theirs.until("what we took", func(x beheld) bool { return x.flags["sample 2"] == `Home \Answered` })
	theirs.mark(first[1].uids["sample 1"], imap.StoreFlagsDel, imap.FlagFlagged)
	ours.until("what Dovecot took", func(x beheld) bool { return x.flags["sample 1"] == "Work" })

	// Both at once, each on letters of its own, and mail comes meanwhile.
	var busy sync.WaitGroup
	for i, b := range both {
		busy.Go(func() {
			for n := range 40 {
				uid := first[i].uids[fmt.Sprintf("sample %d", 2*(n%2)+i)] // 0 and 2, 1 and 3
				b.mark(uid, imap.StoreFlagsAdd, imap.FlagSeen, imap.Flag(fmt.Sprintf("word%d", (n+i)%4)))
				b.mark(uid, imap.StoreFlagsDel, imap.FlagSeen)
			}
		})
	}
	more := samples(16, "carol@sender.test", []string{"bob@example.test"})[6:]
	hand(t, s.mx, "carol@sender.test", more)
	busy.Wait()
	all := func(x beheld) bool { return len(x.uids) == 16 }
	now := []beheld{ours.until("sixteen letters", all), theirs.until("sixteen letters", all)}
	theirs.until("the same flags", func(x beheld) bool { now[0] = ours.look(); return maps.Equal(x.flags, now[0].flags) })
	if got := now[0].flags["sample 0"]; got != "word0 word2" {
		t.Errorf("sample 0 has %q", got)
	}

	// Moves, both ways.
	for i, b := range both {
		if i == 0 {
			if err := b.c.Create("Kept", nil).Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.c.Move(imap.UIDSetNum(first[i].uids[fmt.Sprintf("sample %d", i)]), "Kept").Wait(); err != nil {
			t.Errorf("%s: MOVE: %v", b.name, err)
		}
	}
	for i, b := range both {
		left := b.until("fourteen letters", func(x beheld) bool { return len(x.uids) == 14 && x.uids["sample 0"]+x.uids["sample 1"] == 0 })
		for subject, uid := range left.uids {
			if was := now[i].uids[subject]; was != uid {
				t.Errorf("%s: %s was number %d and is %d", b.name, subject, was, uid)
			}
			if was := first[i].uids[subject]; was != 0 && was != uid || was == 0 && uid <= first[i].uids["sample 5"] {
				t.Errorf("%s: %s was number %d at first and is %d", b.name, subject, was, uid)
			}
		}
		b.open("Kept")
		kept := b.until("what was moved", func(x beheld) bool { return len(x.uids) == 2 })
		if kept.flags["sample 0"] != now[0].flags["sample 0"] || kept.flags["sample 1"] != now[0].flags["sample 1"] {
			t.Errorf("%s: what was moved has the flags %v, not %v", b.name, kept.flags, now[0].flags)
		}
	}

	// Who comes back finds the numbers that were given.
	for i, address := range []string{plain, d.imap} {
		b := newBeside(t, both[i].name, address)
		back := b.until("fourteen letters", func(x beheld) bool { return len(x.uids) == 14 })
		if b.validity != validity[i] {
			t.Errorf("%s: UIDVALIDITY was %d and is %d", b.name, validity[i], b.validity)
		}
		for subject, uid := range back.uids {
			if uid != now[i].uids[subject] {
				t.Errorf("%s: %s was number %d and is %d", b.name, subject, now[i].uids[subject], uid)
			}
		}
	}
}
