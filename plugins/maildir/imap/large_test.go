package imap

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// fill puts n messages into the inbox of ann.
func (r *rig) fill(n int) {
	r.t.Helper()
	r.deliver("ann", "1.a.h", letter)
	cur := filepath.Join(r.dir, "ann", "cur")
	for i := range n - 1 {
		if err := os.WriteFile(filepath.Join(cur, fmt.Sprintf("%d.M%dQ0123456789abcdef0123.host,S=3,W=4:2,S", 1_700_000_000+i, i)), nil, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

// open opens the inbox, and wants n messages in it.
func (r *rig) open(n int) *imapclient.Client {
	r.t.Helper()
	c := r.login("ann", nil)
	data, err := c.Select("INBOX", nil).Wait()
	if err != nil || data.NumMessages != uint32(n) {
		r.t.Fatalf("%+v, %v", data, err)
	}
	return c
}

// flagsOfAll fetches the flags of all messages.
func flagsOfAll(t testing.TB, c *imapclient.Client) (n int) {
	t.Helper()
	cmd := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{Flags: true})
	for m := cmd.Next(); m != nil; m = cmd.Next() {
		for item := m.Next(); item != nil; item = m.Next() {
			n++
		}
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLargeFolder: the first opening gives the UIDs, and the next finds them.
func TestLargeFolder(t *testing.T) {
	r := newRig(t, nil)
	const n = 20_000
	r.fill(n)
	for range 2 {
		c := r.open(n)
		if got := flagsOfAll(t, c); got != n {
			t.Errorf("%d flags", got)
		}
		if data, err := c.Status("INBOX", &imap.StatusOptions{UIDNext: true}).Wait(); err != nil || data.UIDNext != n+1 {
			t.Errorf("%+v, %v", data, err)
		}
		c.Close()
	}
}

// BenchmarkHundredThousand: a folder that nobody has opened before, the same once more, and the flags of all.
func BenchmarkHundredThousand(b *testing.B) {
	r := newRig(b, nil)
	const n = 100_000
	r.fill(n)
	b.Run("first open", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := os.RemoveAll(filepath.Join(r.dir, "ann", "mta-uids")); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			r.open(n).Close()
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			r.open(n).Close()
		}
	})
	b.Run("FETCH FLAGS", func(b *testing.B) {
		c := r.open(n)
		for b.Loop() {
			flagsOfAll(b, c)
		}
	})
}

// BenchmarkList: what a mail program asks for to show a folder, of 10,000 messages.
func BenchmarkList(b *testing.B) {
	r := newRig(b, nil)
	const n = 10_000
	for i := range n {
		r.deliver("ann", fmt.Sprintf("%d.M%d.host", 1_700_000_000+i, i), letter)
	}
	c := r.open(n)
	for b.Loop() {
		cmd := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, Flags: true, RFC822Size: true, Envelope: true})
		for m := cmd.Next(); m != nil; m = cmd.Next() {
			for item := m.Next(); item != nil; item = m.Next() {
			}
		}
		if err := cmd.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
