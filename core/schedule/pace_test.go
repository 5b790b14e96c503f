package schedule

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// flood hands in n messages of 4 KiB one after another, as a session does, and returns how long it took and the most that
// was behind.
func (w *world) flood(ctx context.Context, n int) (took time.Duration, most int64) {
	begin := time.Now()
	m := message("bob@example.net")
	m.Content = mail.Bytes(make([]byte, 4<<10-1))
	for range n {
		w.Pace(ctx)
		w.accept(m)
		w.Schedule.mu.Lock()
		most = max(most, w.lag)
		w.Schedule.mu.Unlock()
	}
	return time.Since(begin), most
}

// TestPace: input that runs ahead comes as fast as output goes, and no faster.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Memory, o.Limits.SiteConnections = 32*paceShare<<10, 4 })
		w.net.before = func(context.Context, *deliver.Job) { time.Sleep(10 * time.Millisecond) }
		took, most := w.flood(t.Context(), 400)
		if most > 32+4 {
			t.Errorf("%d KiB behind, and 32 were to be", most)
		}
		if took < 900*time.Millisecond || took > 1100*time.Millisecond { // 4 connections, 10 ms each
			t.Errorf("400 messages came in %s", took)
		}
	})
}

// TestPaceGivesUp: a host that is slow holds nobody up.
func TestPaceGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Memory = 32 * paceShare << 10 })
		release := make(chan struct{})
		w.net.before = func(context.Context, *deliver.Job) { <-release }
		if took, _ := w.flood(t.Context(), 400); took != paceLimit {
			t.Errorf("400 messages came in %s; one wait of %s was to be enough", took, paceLimit)
		}
		time.Sleep(paceRest)
		if took, _ := w.flood(t.Context(), 10); took != paceLimit {
			t.Errorf("after the rest 10 messages came in %s", took)
		}
		close(release)
		synctest.Wait()
		if took, _ := w.flood(t.Context(), 1); took != 0 {
			t.Errorf("with nothing behind a message waited for %s", took)
		}
	})
}

// TestPaceEnds: a client that goes, and a server that stops, end the wait.
func TestPaceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Memory = paceShare << 10 })
		w.net.before = func(ctx context.Context, _ *deliver.Job) { <-ctx.Done() }
		w.flood(t.Context(), 1)
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		ended := make(chan queue.ID, 2)
		go func() { w.Pace(ctx); ended <- 1 }()
		go func() { w.Pace(t.Context()); ended <- 2 }()
		synctest.Wait()
		cancel()
		if who := <-ended; who != 1 {
			t.Errorf("%d ended first", who)
		}
		go func() {
			now, cut := context.WithCancel(context.Background())
			cut()
			_ = w.Stop(now) // it says that it has cut the attempt short
		}()
		if <-ended; time.Since(begin) != 0 {
			t.Errorf("ended after %s", time.Since(begin))
		}
	})
}
