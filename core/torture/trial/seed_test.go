package trial

import (
	"math/rand/v2"
	"testing"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
)

// TestOneSeedRepeatsTheDecisions: what is done to a server depends on the seed alone, and every kind of it comes up.
func TestOneSeedRepeatsTheDecisions(t *testing.T) {
	one, two := rand.New(rand.NewPCG(7, 0)), rand.New(rand.NewPCG(7, 0))
	var early, plugin, look, twin int
	for range 200 {
		d := decide(one)
		if d != decide(two) {
			t.Fatal("another decision from the same seed")
		}
		if d.early {
			early++
		}
		if d.plugin >= 0 {
			plugin++
		}
		if d.look {
			look++
		}
		if d.twin {
			twin++
		}
	}
	if early == 0 || plugin == 0 || look == 0 || twin == 0 || early+plugin+look > 300 {
		t.Errorf("of 200: %d early, %d plugins, %d looks", early, plugin, look)
	}
	first, second := cutter(7, 1, 0.5), cutter(7, 1, 0.5)
	seen := map[peer.Step]int{}
	for range 500 {
		step := first()
		if step != second() {
			t.Fatal("another cut from the same seed")
		}
		seen[step]++
	}
	if len(seen) != int(peer.Steps) || seen[peer.Never] < 150 {
		t.Errorf("steps: %v", seen)
	}
}

// TestEveryMessageIsKnownAgain: the load is made of numbers alone, and holds every kind of message.
func TestEveryMessageIsKnownAgain(t *testing.T) {
	var refused, putOff, large int
	for n := range 400 {
		m, from, body := message(n)
		if again, _, _ := message(n); again != m {
			t.Fatalf("message %d is another the second time", n)
		}
		a := peer.Read(peer.Numbered(m.ID, body))
		if a.ID != m.ID || a.Sum != m.Sum {
			t.Fatalf("message %d is read as %+v", n, a)
		}
		report := classify(ledger.Arrival{}.For([]string{from[1 : len(from)-1]}))[0]
		if report.ID != m.ID || !report.Report {
			t.Fatalf("the report of message %d is read as %+v", n, report)
		}
		switch said := refusal(m.To); {
		case m.Refused != (said != "" && said[0] == '5'):
			t.Errorf("message %d: refused %v, and the sink says %q", n, m.Refused, said)
		case m.Refused:
			refused++
		case said != "":
			putOff++
		}
		if len(body) > 1<<20 {
			large++
		}
	}
	if refused != 10 || putOff < 100 || large != 2 {
		t.Errorf("of 400: %d refused, %d put off, %d large", refused, putOff, large)
	}
}

// TestWhatAHandSaidIsAccounted reads a hand's account, also one that was cut off.
func TestWhatAHandSaidIsAccounted(t *testing.T) {
	const said = "offer 1 s1\nacked 1\noffer 2 s2\nacked 2\nsettling 2\nsettled 2\noffer 3 s3\nacked 3\nsettling 3\noffer 4 s4\nfailed 4 \"why\"\n"
	held := func(ids ...string) (list []ledger.Held) {
		for _, id := range ids {
			list = append(list, ledger.Held{ID: id, Sum: "s" + id})
		}
		return list
	}
	for _, c := range []struct {
		name string
		said string
		held []ledger.Held
		want map[ledger.Kind]int
	}{
		{"well", said, held("1", "3"), nil},
		{"well, one removed, and one that failed is there", said, held("1", "4"), nil},
		{"lost", said, held("3"), map[ledger.Kind]int{ledger.Lost: 1}},
		{"resurrected", said, held("1", "2"), map[ledger.Kind]int{ledger.Resurrected: 1}},
		{"went on", said + "wenton 4\n", held("1"), map[ledger.Kind]int{ledger.Lost: 1}},
		{"cut off", "offer 1 s1\nack", nil, nil},
	} {
		h, faults := account(c.said)
		v := h.Cut(1, c.held)
		v.Faults = append(v.Faults, faults...)
		got := v.Kinds()
		for _, kind := range []ledger.Kind{ledger.Lost, ledger.Resurrected, ledger.Changed, ledger.Stray, ledger.Doubled} {
			if got[kind] != c.want[kind] {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	}
}

// TestHandInADirectory runs a hand where nothing fails.
func TestHandInADirectory(t *testing.T) {
	dir := t.TempDir()
	var said said
	if err := Hand(t.Context(), "", dir, &said); err != nil {
		t.Fatal(err)
	}
	h, faults := account(string(said))
	held, err := holds(dir)
	if err != nil {
		t.Fatal(err)
	}
	if v := h.Cut(1, held); v.Acked != handMessages || len(v.Faults)+len(faults) > 0 || len(held) != handMessages/3 {
		t.Errorf("%v: %v, %v; %d held", v, v.Faults, faults, len(held))
	}
}

type said []byte

func (s *said) Write(b []byte) (int, error) { *s = append(*s, b...); return len(b), nil }
