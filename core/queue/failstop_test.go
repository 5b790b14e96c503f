package queue

import (
	"errors"
	"os"
	"testing"
)

// TestFailStop makes the first write of the mark fail. Nothing is acknowledged from then on, the server is told once, and
// however often it is started again, the same messages are there: all that were acknowledged, and at most the one whose
// group was on disk already.
func TestFailStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fatal := make(chan error, 2)
	q, err := Open(dir, Options{MinFree: -1, Fatal: func(err error) { fatal <- err }})
	if err != nil {
		t.Fatal(err)
	}
	acked := map[ID]bool{}
	for i := range 5 {
		acked[add(t, q, message(pattern(i, 3000), "bob@example.net")).ID] = true
	}
	delivered := add(t, q, message(nil, "carol@example.net"))
	if err := remove(q, delivered.ID); err != nil {
		t.Fatal(err)
	}
	q.mark.f.Close()
	for range 3 {
		if _, err := q.Add(t.Context(), message(nil, "dave@example.net")); !errors.Is(err, ErrStopped) || !errors.Is(err, os.ErrClosed) {
			t.Errorf("Add: %v", err)
		}
	}
	if err := remove(q, delivered.ID); !errors.Is(err, ErrStopped) {
		t.Errorf("Delete: %v", err)
	}
	if err := <-fatal; !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
	_ = q.Close()
	if len(fatal) > 0 {
		t.Errorf("told twice: %v", <-fatal)
	}
	var first []ID
	for round := range 3 {
		q := openQueue(t, dir)
		var ids []ID
		for _, rec := range recovered(t, q) {
			ids = append(ids, rec.ID)
			if rec.ID == delivered.ID {
				t.Error("a delivered message came back")
			}
		}
		if round == 0 {
			first = ids
		}
		found := 0
		for _, id := range ids {
			if acked[id] {
				found++
			}
		}
		if found != len(acked) || len(ids) > len(acked)+1 || len(ids) != len(first) || q.Stats().Missing != 0 || len(q.Problems()) > 0 {
			t.Errorf("start %d: %d messages, %d of %d acknowledged; %+v, %q", round, len(ids), found, len(acked), q.Stats(), q.Problems())
		}
		closeQueue(t, q)
	}
}
