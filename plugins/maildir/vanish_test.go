package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	vanishing = 60 // messages; number n has UID n
	rounds    = 12
)

// other is another program that works on the inbox at the same time: it changes flags, and removes some messages.
type other struct {
	t    *testing.T
	cur  string
	stop chan struct{}
	wait sync.WaitGroup
}

// isRemoved says which messages other removes.
func isRemoved(n int) bool { return n%10 == 3 }

// isMoved says which messages an IMAP session moves, and isDropped which a POP3 session deletes.
func isMoved(n int) bool   { return n%10 == 5 }
func isDropped(n int) bool { return n%10 == 7 }

func (o *other) begin() {
	o.wait.Go(func() {
		for round := 0; ; round++ {
			for n := 1; n <= vanishing; n++ {
				select {
				case <-o.stop:
					return
				default:
				}
				o.touch(n, round)
			}
		}
	})
}

// touch gives the file of a message other flags, or removes it.
func (o *other) touch(n, round int) {
	found, _ := filepath.Glob(filepath.Join(o.cur, fmt.Sprintf("1000.n%02d.h*", n)))
	if len(found) == 0 {
		return
	}
	if isRemoved(n) && round > 1+n/10 {
		_ = os.Remove(found[0])
		return
	}
	flags := []string{"", "F", "S", "FS"}[round%4]
	_ = os.Rename(found[0], filepath.Join(o.cur, fmt.Sprintf("1000.n%02d.h:2,%s", n, flags))) // others may have been faster
}

// TestOthersAtWork: messages that others rename and remove while they are read keep their UIDs and their content, and each
// command has its answer.
func TestOthersAtWork(t *testing.T) {
	s := serve(t, fakeHost{})
	cur := filepath.Join(s.ann, "cur")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.ann, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= vanishing; n++ {
		name := filepath.Join(cur, fmt.Sprintf("1000.n%02d.h:2,", n))
		if err := os.WriteFile(name, fmt.Appendf(nil, "Subject: n%02d.\n\nbody of n%02d.\n", n, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := s.reader()
	first.look(vanishing)
	pop := talk(t, s.pop)
	pop.lines("USER ann@example.com")
	if got := pop.lines("PASS right"); !strings.Contains(got, "60 messages") {
		t.Fatal(got)
	}
	o := &other{t: t, cur: cur, stop: make(chan struct{})}
	o.begin()
	var work sync.WaitGroup
	work.Go(func() { first.work() })
	work.Go(func() { s.reader().work() })
	work.Go(func() { dropBy(t, pop) })
	work.Wait()
	close(o.stop)
	o.wait.Wait()

	left, _ := filepath.Glob(filepath.Join(cur, "*"))
	s.reader().look(len(left))
	for n := 1; n <= vanishing; n++ {
		found, _ := filepath.Glob(filepath.Join(cur, fmt.Sprintf("1000.n%02d.h*", n)))
		if gone := isMoved(n) || isDropped(n); gone && len(found) != 0 || !gone && !isRemoved(n) && len(found) != 1 {
			t.Errorf("number %d has the files %v", n, found)
		}
	}
}

// reader is an IMAP session that checks what it is told.
type reader struct {
	*conversation
	t *testing.T
}

func (s *served) reader() reader {
	r := reader{talk(s.t, s.imap), s.t}
	r.must("LOGIN ann@example.com right", "OK")
	r.must("SELECT INBOX", "OK")
	return r
}

// must sends a command and wants one of some answers.
func (r reader) must(command string, answers ...string) {
	got := r.do(command)
	for _, want := range answers {
		if strings.HasPrefix(got, want) {
			return
		}
	}
	r.t.Errorf("%s: %s", command, got)
}

// look fetches all messages, and checks that each has the content of its UID. It wants so many of them; 0 is any number.
func (r reader) look(want int) {
	r.must("UID FETCH 1:* (UID FLAGS BODY.PEEK[])", "OK", "NO [EXPUNGEISSUED]")
	all := regexp.MustCompile(`(?s)FETCH \(UID (\d+) FLAGS \([^)]*\) BODY\[\] \{31\}\r\nSubject: n(\d+)\.\r\n\r\nbody of n(\d+)\.\r\n\)`).FindAllStringSubmatch(r.said, -1)
	for _, m := range all {
		uid, _ := strconv.Atoi(m[1])
		n, _ := strconv.Atoi(m[2])
		if uid != n || m[2] != m[3] {
			r.t.Errorf("UID %s has the content of number %s, %s", m[1], m[2], m[3])
		}
	}
	if strings.Count(r.said, "BODY[]") != len(all) || want > 0 && len(all) != want {
		r.t.Errorf("%d messages of %d, want %d:\n%s", len(all), strings.Count(r.said, "BODY[]"), want, r.said)
	}
}

// work does everything that IMAP can do to a message.
func (r reader) work() {
	for round := range rounds {
		r.look(0)
		n := round%6*10 + 1
		r.must(fmt.Sprintf("UID SEARCH TEXT n%02d.", n), "OK")
		if want := fmt.Sprintf("* SEARCH %d\r\n", n); !strings.Contains(r.said, want) {
			r.t.Errorf("a search for number %d: %s", n, r.said)
		}
		r.must(fmt.Sprintf("UID STORE %d:%d +FLAGS (\\Answered)", n, n+9), "OK", "NO [EXPUNGEISSUED]")
		r.must(fmt.Sprintf("UID COPY %d:%d Archive", n, n+9), "OK")
		r.must(fmt.Sprintf("UID MOVE %d Trash", n+4), "OK")
		r.must("NOOP", "OK")
	}
}

// dropBy reads messages by POP3 and deletes some.
func dropBy(t *testing.T, pop *conversation) {
	for n := 1; n <= vanishing; n++ {
		got := pop.lines(fmt.Sprintf("RETR %d", n))
		whole := strings.Contains(got, fmt.Sprintf("body of n%02d.\r\n", n)) && strings.HasPrefix(got, "+OK")
		if gone := strings.HasPrefix(got, "-ERR the message has been removed"); !whole && (!gone || !isRemoved(n) && !isMoved(n)) {
			t.Errorf("RETR %d: %s", n, got)
		}
		if got := pop.lines(fmt.Sprintf("TOP %d 0", n)); whole && strings.HasPrefix(got, "+OK") && !strings.Contains(got, fmt.Sprintf("n%02d.", n)) {
			t.Errorf("TOP %d: %s", n, got)
		}
		if isDropped(n) {
			if got := pop.lines(fmt.Sprintf("DELE %d", n)); !strings.HasPrefix(got, "+OK") {
				t.Errorf("DELE %d: %s", n, got)
			}
		}
	}
	if got := pop.lines("QUIT"); got != "+OK bye\r\n" {
		t.Error(got)
	}
}
