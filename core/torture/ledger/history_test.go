package ledger

import (
	"strings"
	"testing"
)

// TestCutBites judges queues as a broken server would leave them. Message 1 was acknowledged at 10, taken at 20 and done at
// 30; 2 was acknowledged at 10; 3 was never; 4 was acknowledged at 10, refused, and its report taken at 40.
func TestCutBites(t *testing.T) {
	one, two, three := Held{ID: "1", Sum: "sum1"}, Held{ID: "2", Sum: "sum2"}, Held{ID: "3", Sum: "sum3"}
	four, report := Held{ID: "4", Sum: "sum4"}, Held{ID: "4", Report: true}
	for _, c := range []struct {
		name    string
		at      int
		held    []Held
		want    []string
		excused int
	}{
		{name: "before everything", at: 9},
		{name: "acknowledged, all there", at: 10, held: []Held{one, two, four}},
		{name: "and one that was not acknowledged", at: 10, held: []Held{one, two, three, four}},
		{name: "lost", at: 10, held: []Held{one, four}, want: []string{"lost: message 2"}},
		{name: "lost before it was taken", at: 19, held: []Held{two, four}, want: []string{"lost: message 1"}},
		{name: "taken, and removed", at: 20, held: []Held{two, four}},
		{name: "taken, and not removed yet", at: 29, held: []Held{one, two, four}, excused: 1},
		{name: "done, and there", at: 30, held: []Held{one, two, four}, want: []string{"resurrected: message 1"}, excused: 1},
		{name: "refused, and its report there", at: 35, held: []Held{two, report}},
		{name: "refused, and neither there", at: 35, held: []Held{two}, want: []string{"lost: message 4"}},
		{name: "refused, and its report taken", at: 40, held: []Held{two}},
		{name: "changed", at: 10, held: []Held{one, {ID: "2", Sum: "sum1"}, four}, want: []string{"changed: message 2 has another body"}},
		{name: "damaged", at: 10, held: []Held{one, {ID: "2", Damage: "a checksum"}, four}, want: []string{"changed: message 2 can't be read: a checksum"}},
		{name: "twice", at: 10, held: []Held{one, two, two, four}, want: []string{"doubled: message 2"}},
		{name: "from nowhere", at: 10, held: []Held{one, two, four, {ID: "7"}}, want: []string{`stray: message "7"`}},
		{name: "reported for nothing", at: 10, held: []Held{one, two, four, {ID: "2", Report: true}}, want: []string{"misreported: message 2"}},
	} {
		h := NewHistory()
		for _, id := range []string{"1", "2", "3", "4"} {
			h.Offer(Message{ID: id, Sum: "sum" + id, Refused: id == "4"})
			if id != "3" {
				h.Ack(id, 10)
			}
		}
		h.Take(Arrival{ID: "1", Queue: "Q1"}, 20)
		h.Take(Arrival{ID: "1", Queue: "Q1"}, 25)
		h.Done("Q1", 30)
		h.Take(Arrival{ID: "4", Report: true}, 40)
		v := h.Cut(c.at, c.held)
		if len(v.Faults) != len(c.want) || v.Excused != c.excused {
			t.Errorf("%s: %v, %v", c.name, v, v.Faults)
		}
		for i := range min(len(c.want), len(v.Faults)) {
			if !strings.HasPrefix(v.Faults[i].String(), c.want[i]) {
				t.Errorf("%s: %q, want %q", c.name, v.Faults[i], c.want[i])
			}
		}
	}
}
