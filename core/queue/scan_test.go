package queue

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestPatientList lists while messages are committed, and while none are.
func TestPatientList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := Open("", Options{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		defer closeQueue(t, q)
		const n = 64 * 50
		m := message([]byte("x"), "bob@example.net")
		for range n {
			add(t, q, m)
		}
		time.Sleep(time.Second)
		list := func(f Filter) time.Duration {
			t.Helper()
			begun := time.Now()
			if got := listed(t, q, f); len(got) < n {
				t.Errorf("%d listed", len(got))
			}
			return time.Since(begun)
		}
		if d := list(Filter{Patient: true}); d > 0 {
			t.Errorf("rested for %v, and nobody had need of it", d)
		}
		quit, ended := make(chan bool), make(chan bool)
		go func() {
			defer close(ended)
			for {
				select {
				case <-quit:
					return
				case <-time.After(10 * time.Millisecond):
					add(t, q, m)
				}
			}
		}()
		time.Sleep(time.Second)
		if d := list(Filter{Patient: true}); d < 50*restLeast || d > 60*restMost {
			t.Errorf("rested for %v", d)
		}
		if d := list(Filter{}); d > 0 {
			t.Errorf("a list that somebody waits for rested for %v", d)
		}
		close(quit)
		<-ended
		time.Sleep(time.Second)
	})
}

// TestListSome: what is found is handed over some at a time, in order and all of it; and soon, though nothing else is found for long.
func TestListSome(t *testing.T) {
	q, err := Open("", Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	defer closeQueue(t, q)
	const n = 300
	var ids []ID
	for i := range n {
		ids = append(ids, add(t, q, message(nil, fmt.Sprintf("u%d@example.net", i))).ID)
	}
	for _, tt := range []struct {
		f           Filter
		want, calls int
	}{{Filter{}, n, n/politeness + 1}, {Filter{Limit: 100}, 100, 2}, {Filter{IDs: ids}, n, n/politeness + 1}, {Filter{To: "nobody@example.net"}, 0, 0}} {
		got, calls := 0, 0
		err := q.ListSome(t.Context(), tt.f, func(some []*Record) error {
			for _, rec := range some {
				if rec.ID != ids[got] {
					t.Fatalf("row %d is message %v, want %v", got, rec.ID, ids[got])
				}
				got++
			}
			calls++
			return nil
		})
		if err != nil || got != tt.want || calls != tt.calls {
			t.Errorf("%d rows in %d calls, want %d in %d; %v", got, calls, tt.want, tt.calls, err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	err = q.ListSome(ctx, Filter{To: "u0@example.net"}, func([]*Record) error { stop(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the only row comes when all is read: %v", err)
	}
	no := errors.New("no more")
	if err := q.ListSome(t.Context(), Filter{}, func([]*Record) error { return no }); !errors.Is(err, no) {
		t.Errorf("the error of the caller: %v", err)
	}
}
