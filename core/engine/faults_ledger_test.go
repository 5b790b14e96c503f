package engine

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// entry is one line of what the stores write down.
type entry struct {
	PID      int
	Stored   string `json:",omitempty"` // tag of a message that was taken
	ID       string `json:",omitempty"` // its ID
	To       string `json:",omitempty"`
	Subject  string `json:",omitempty"`
	Words    string `json:",omitempty"` // of a report: whose
	Answered string `json:",omitempty"` // ID of a message: the server was told that it was stored
}

// ledger reads what the stores write down. Every call of a store is in it: a store that hides repetitions, as a good one
// does, would hide those that should not have been.
type ledger struct {
	path string

	mu       sync.Mutex
	read     int64
	stored   map[string][]entry // by tag
	answered map[string]answer  // by ID
	answers  map[int]int        // by process
	faults   []string           // what was given again after it had been answered
}

// answer is the last one about a message: whose it was, and the how-manieth.
type answer struct{ pid, n int }

// diesWithIt is how many of its last answers a process may take with it when it is killed: it has handed them over and
// written that down, and they were still on their way through its own memory.
const diesWithIt = 64

// mayBeLost reports whether the server can't have read an answer, so that it has to ask the next process.
func (l *ledger) mayBeLost(a answer, asked int) bool {
	return asked != a.pid && l.answers[a.pid]-a.n < diesWithIt
}

func newLedger(path string) *ledger {
	return &ledger{path: path, stored: map[string][]entry{}, answered: map[string]answer{}, answers: map[int]int{}}
}

// update reads what is new.
func (l *ledger) update() {
	f, err := os.Open(l.path)
	if err != nil {
		return
	}
	defer f.Close()
	if _, err := f.Seek(l.read, 0); err != nil {
		return
	}
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return // half a line is read when it is whole
		}
		l.read += int64(len(line))
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			l.faults = append(l.faults, fmt.Sprintf("the ledger holds %q", line))
			continue
		}
		if e.Answered != "" {
			l.answers[e.PID]++
			l.answered[e.Answered] = answer{e.PID, l.answers[e.PID]}
			continue
		}
		if a, ok := l.answered[e.ID]; ok && !l.mayBeLost(a, e.PID) {
			l.faults = append(l.faults, fmt.Sprintf("%s was given to its store again after the store had answered: %+v", e.Stored, append(l.stored[e.Stored], e)))
		}
		l.stored[e.Stored] = append(l.stored[e.Stored], e)
	}
}

// of returns what tells of a tag: one entry for each ID and recipient, and how often each was repeated.
func (l *ledger) of(tag string) (list []entry, repeats int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.update()
	seen := map[[2]string]bool{}
	for _, e := range l.stored[tag] {
		key := [2]string{e.ID, e.To}
		if seen[key] {
			repeats++
			continue
		}
		seen[key] = true
		list = append(list, e)
	}
	return list, repeats
}

// complaints returns what was wrong so far.
func (l *ledger) complaints() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.update()
	return l.faults
}

// lives knows when the processes of the plugins began and ended, from connections that end with them.
type lives struct {
	mu   sync.Mutex
	list map[string][]life // by name
}

type life struct {
	pid        int
	born, died time.Time // died is zero while it lives
}

// watchLives listens at a path.
func watchLives(t *testing.T, path string) *lives {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &lives{list: map[string][]life{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.watch(c)
		}
	}()
	return w
}

func (w *lives) watch(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	var name string
	x := life{born: time.Now()}
	if _, err := fmt.Fscanln(r, &name, &x.pid); err != nil {
		return
	}
	w.mu.Lock()
	n := len(w.list[name])
	w.list[name] = append(w.list[name], x)
	w.mu.Unlock()
	_, _ = r.ReadByte() // nothing comes but the end
	w.mu.Lock()
	w.list[name][n].died = time.Now()
	w.mu.Unlock()
}

// lastDeath returns when the last process of a plugin died, or false when none did since a moment.
func (w *lives) lastDeath(name string, since time.Time) (last time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.list[name] {
		if x.died.After(since) && x.died.After(last) {
			last, ok = x.died, true
		}
	}
	return last, ok
}
