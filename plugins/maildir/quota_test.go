package maildir

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/sdk/mail"
)

func sized(id string, n int) *mail.Delivery {
	d := delivery("Subject: "+id+"\r\n\r\n"+strings.Repeat("x", n)+"\r\n", "ann@example.com")
	d.ID = id
	return d
}

// TestQuota fills a mailbox, and empties it again from outside and by IMAP.
func TestQuota(t *testing.T) {
	for _, c := range []struct {
		over string
		code int
	}{{"tempfail", 452}, {"reject", 552}} {
		synctest.Test(t, func(t *testing.T) {
			m := newStore(t, func(c2 *Config) { c2.Quota, c2.OverQuota = 3000, c.over })
			if got := codes(t, m, sized("1", 1000)); !slices.Equal(got, []int{250}) {
				t.Errorf("the first: %v", got)
			}
			if got := codes(t, m, sized("2", 1000)); !slices.Equal(got, []int{250}) {
				t.Errorf("the second: %v", got)
			}
			full := sized("3", 1000)
			if got := codes(t, m, full); !slices.Equal(got, []int{c.code}) {
				t.Errorf("%s: the third: %v", c.over, got)
			}
			if got := codes(t, m, sized("1", 1000)); !slices.Equal(got, []int{250}) {
				t.Errorf("one that is stored already: %v", got)
			}
			delete(m.names.aliases, "bob@example.com")
			full.To[0].Address = address("info@example.com")
			if got := codes(t, m, full); !slices.Equal(got, []int{250}) {
				t.Errorf("another mailbox: %v", got)
			}
			if got := codes(t, m, sized("4", 4000)); !slices.Equal(got, []int{552}) {
				t.Errorf("one that never fits: %v", got)
			}
			// Another program makes room; that is seen as soon as it matters, and not counted anew at each refusal.
			first, _ := filepath.Glob(filepath.Join(m.path.base, "example.com/ann/new/*"))
			if err := os.Remove(first[0]); err != nil {
				t.Fatal(err)
			}
			if got := codes(t, m, sized("5", 1000)); !slices.Equal(got, []int{c.code}) {
				t.Errorf("at once: %v", got)
			}
			time.Sleep(3 * time.Second)
			if got := codes(t, m, sized("5", 1000)); !slices.Equal(got, []int{250}) {
				t.Errorf("a moment later: %v", got)
			}
		})
	}
}

// TestQuotaIsShared: what IMAP puts and removes counts for deliveries.
func TestQuotaIsShared(t *testing.T) {
	m := newStore(t, func(c *Config) { c.Quota = 3000 })
	m.boxes = box.New("host", m.openRoot, slog.New(slog.DiscardHandler))
	m.boxes.Limit(m.quota)
	if got := codes(t, m, sized("1", 1000)); !slices.Equal(got, []int{250}) {
		t.Fatalf("%v", got)
	}
	a, err := m.boxes.Account("ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	inbox, err := a.Open("INBOX")
	if err != nil {
		t.Fatal(err)
	}
	defer inbox.Close()
	if _, err := inbox.Append(strings.NewReader("Subject: x\r\n\r\n"+strings.Repeat("y", 1500)+"\r\n"), 0, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := codes(t, m, sized("2", 1000)); !slices.Equal(got, []int{452}) {
		t.Errorf("after an APPEND: %v", got)
	}
	if err := inbox.Remove(inbox.Messages()[1:]); err != nil {
		t.Fatal(err)
	}
	if got := codes(t, m, sized("2", 1000)); !slices.Equal(got, []int{250}) {
		t.Errorf("after an EXPUNGE: %v", got)
	}
	if q := box.NewQuota(0); q != nil || q.Take("", nil, 1<<40) != nil || !q.Fits(1<<40) {
		t.Error("no quota is a bound")
	}
}
