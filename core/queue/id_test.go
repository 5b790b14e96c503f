package queue

import (
	"strings"
	"sync"
	"testing"
	"time"
)

func TestIDText(t *testing.T) {
	for id, want := range map[ID]string{
		1:       "0000000000001",
		31:      "000000000000Z",
		1 << 63: "8000000000000",
		^ID(0):  "FZZZZZZZZZZZZ",
	} {
		got := id.String()
		if got != want {
			t.Errorf("%d is %s, want %s", uint64(id), got, want)
		}
		for _, s := range []string{got, strings.ToLower(got)} {
			if back, err := ParseID(s); err != nil || back != id {
				t.Errorf("ParseID(%s) = %d, %v; want %d", s, back, err, id)
			}
		}
	}
}

func TestParseIDTakesLookalikes(t *testing.T) {
	id, err := ParseID("oO0iIlL100000")
	want, _ := ParseID("0001111100000")
	if err != nil || id != want {
		t.Errorf("got %v, %v; want %v", id, err, want)
	}
}

func TestParseIDRefuses(t *testing.T) {
	for _, s := range []string{"", "0", "0000000000000", "G000000000000", "00000000000001", "000000000000U", "000000000000\x00",
		"00000000000é", "../../../../etc"} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("%q became %v", s, id)
		}
	}
}

func TestSequenceGrowsWhenTheClockStepsBack(t *testing.T) {
	var s sequence
	now := time.UnixMilli(1_800_000_000_000)
	last := s.next(now)
	if !last.Time().Equal(now) {
		t.Errorf("the ID is of %v, want %v", last.Time(), now)
	}
	for _, step := range []time.Duration{0, time.Millisecond, -time.Hour, -24 * time.Hour * 20000, time.Second, 0} {
		now = now.Add(step)
		id := s.next(now)
		if id <= last || id.String() <= last.String() {
			t.Errorf("after %v: %v is not above %v", step, id, last)
		}
		last = id
	}
	s.skip(last + 100)
	if id := s.next(time.Time{}); id != last+101 {
		t.Errorf("after a skip to %v: %v", last+100, id)
	}
}

func TestSequenceIsUniqueAmongGoroutines(t *testing.T) {
	var s sequence
	var seen sync.Map
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if _, twice := seen.LoadOrStore(s.next(time.UnixMilli(1)), true); twice {
					t.Error("an ID came twice")
				}
			}
		})
	}
	wg.Wait()
}
