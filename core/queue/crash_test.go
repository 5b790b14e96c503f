package queue

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/sdk/mail"
)

// crashDir names the environment variable that makes this test binary the child of TestKill9.
const crashDir = "MTA_QUEUE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := crashChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func countKeys(prefix byte, n *int) func(*badger.Txn) error {
	return func(txn *badger.Txn) error {
		return each(txn, prefix, func(*badger.Item) error { *n++; return nil })
	}
}

// crashChild adds and settles messages until it is killed, and says on standard output what it has done: "added ID SUM"
// when Add has returned, "settling ID" before it asks for a removal, "settled ID" when that is durable, "report ID SUM".
func crashChild(dir string) error {
	q, err := Open(dir, Options{MinFree: -1})
	if err != nil {
		return err
	}
	if err := q.Recover(context.Background(), func(*Record) error { return nil }); err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...) // one write, so that a kill leaves whole lines
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				crashStep(q, say)
			}
		})
	}
	wg.Wait()
	return nil
}

func crashStep(q *Queue, say func(string, ...any)) {
	sizes := []int{10, 500, 4 << 10, 4 << 10, 4 << 10, 20 << 10, 20 << 10, 700 << 10}
	n := sizes[rand.IntN(len(sizes))]
	if rand.IntN(200) == 0 {
		n = 2*pieceSize + 99
	}
	body := pattern(rand.IntN(1e9), n)
	rec, err := q.Add(context.Background(), message(body, "bob@example.net"))
	if err != nil {
		say("error %v", err)
		os.Exit(1)
	}
	say("added %s %s", rec.ID, sum(body))
	if rand.IntN(3) == 0 {
		return
	}
	say("settling %s", rec.ID)
	rec.Recipients[0].State = Failed
	report := pattern(rand.IntN(1e9), 600)
	q.Settle(rec, []*Message{message(report, "ann@example.com")}, func(added []*Record, err error) {
		if err != nil {
			say("error %v", err)
			return
		}
		say("settled %s", rec.ID)
		say("added %s %s", added[0].ID, sum(report))
	})
}

// ledger is what a child said.
type ledger struct {
	sums     map[string]string // of added messages
	settling map[string]bool
	settled  map[string]bool
}

func (l *ledger) read(line string) error {
	f := strings.Fields(line)
	switch {
	case len(f) == 3 && f[0] == "added":
		l.sums[f[1]] = f[2]
	case len(f) == 2 && f[0] == "settling":
		l.settling[f[1]] = true
	case len(f) == 2 && f[0] == "settled":
		l.settled[f[1]] = true
	default:
		return fmt.Errorf("the child said %q", line)
	}
	return nil
}

// TestKill9 kills a child under load, again and again on the same store, and looks whether what it was promised is
// there. It proves that recovery is right; that each promise was synced, only a cut of the power can prove.
func TestKill9(t *testing.T) {
	t.Parallel()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	l := &ledger{sums: map[string]string{}, settling: map[string]bool{}, settled: map[string]bool{}}
	for round := range rounds {
		runAndKill(t, dir, l, 50+rand.IntN(1500))
		if t.Failed() {
			return
		}
		if round == 0 {
			r, err := OpenReadOnly(dir) // also after a kill
			if err != nil {
				t.Fatal(err)
			}
			if n := len(listed(t, r, Filter{})); n < 1 {
				t.Error("nothing to read after a kill")
			}
			closeQueue(t, r)
		}
		q := openQueue(t, dir)
		checkLedger(t, q, l)
		closeQueue(t, q)
	}
	t.Logf("%d messages added, %d settled, %d kills", len(l.sums), len(l.settled), rounds)
}

// runAndKill kills the child after it has said so many lines, and reads what it had said until then.
func runAndKill(t *testing.T, dir string, l *ledger, lines int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	for n := 0; ; n++ {
		if n == lines {
			_ = cmd.Process.Kill()
		}
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		if err := l.read(strings.TrimSuffix(line, "\n")); err != nil {
			t.Error(err)
		}
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
}

func checkLedger(t *testing.T, q *Queue, l *ledger) {
	t.Helper()
	found := map[string]bool{}
	chunkKeys := 0
	for _, rec := range recovered(t, q) {
		id := rec.ID.String()
		if found[id] {
			t.Errorf("%s is there twice", id)
		}
		found[id] = true
		if l.settled[id] {
			t.Errorf("%s was settled and is there", id)
		}
		_, c, err := q.Load(rec.ID)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		b, err := io.ReadAll(mail.Reader(c))
		if want, promised := l.sums[id]; err != nil || promised && sum(b) != want {
			t.Errorf("%s: its content has sum %s, want %s; %v", id, sum(b), want, err)
		}
		if rec.Size > chunkSize {
			chunkKeys += int(chunks(rec.Size))
		}
	}
	for id := range l.sums {
		if !found[id] && !l.settling[id] {
			t.Errorf("%s was promised and is lost", id)
		}
		// Its removal may or may not have been committed when the child died. Now it is known.
		if !found[id] && l.settling[id] {
			l.settled[id] = true
		}
	}
	if n := keys(t, q, keyChunk); n != chunkKeys {
		t.Errorf("%d chunks in the store, and %d belong to messages", n, chunkKeys)
	}
}
