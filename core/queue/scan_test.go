package queue

import (
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
