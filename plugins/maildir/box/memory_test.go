package box

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryIsBounded: what does not fit waits for its turn, and is refused when that does not come.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		take := func(n int64) (time.Duration, error) {
			start := time.Now()
			err := m.take(n)
			return time.Since(start), err
		}
		if waited, err := take(2 * memoryPerAccount); err != nil || waited != 0 {
			t.Fatalf("one that is larger than all goes alone: %v, %v", waited, err)
		}
		if waited, err := take(memoryFree); !errors.Is(err, ErrBusy) || waited != memoryWait {
			t.Errorf("beside it: %v, %v", waited, err)
		}
		if waited, err := take(memoryFree - 1); err != nil || waited != 0 {
			t.Errorf("a small one: %v, %v", waited, err)
		}
		time.AfterFunc(time.Second, func() { m.give(2 * memoryPerAccount) })
		for range 2 {
			if waited, err := take(memoryPerAccount / 2); err != nil || waited > time.Second {
				t.Errorf("after it: %v, %v", waited, err)
			}
		}
		if _, err := take(memoryFree); !errors.Is(err, ErrBusy) {
			t.Errorf("beside two halves: %v", err)
		}
	})
}
