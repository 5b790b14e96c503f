package schedule

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// TestEverythingAtOnce mixes messages of all kinds, peers of all moods and an operator with a heavy hand, for virtual
// weeks. At the end every message is gone, no recipient got one twice, and whatever failed was told of.
func TestEverythingAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 600
		var mu sync.Mutex
		rnd := rand.New(rand.NewPCG(3, 4))
		roll := func(n int) int { mu.Lock(); defer mu.Unlock(); return rnd.IntN(n) }
		moods := []deliver.Outcome{delivered, delivered, later, dead, never}
		got := map[string]int{}
		w := newWorld(t, func(o *Options) {
			o.Limits = Limits{Connections: 17, SiteConnections: 3, Memory: 64 << 10}
			o.Retry.Jitter = 0.2
			plain := New(Options{Hostname: "mx1.example.com"}).o.Bounce
			o.Bounce = func(ctx context.Context, r *Report) (*queue.Message, error) {
				if roll(10) == 0 {
					return nil, errReport
				}
				return plain(ctx, r)
			}
		})
		w.queue.delay = time.Millisecond
		w.net.before = func(context.Context, *deliver.Job) { time.Sleep(time.Duration(roll(20_000)) * time.Millisecond) }
		w.net.answer = func(j *deliver.Job, r mail.Recipient) deliver.Outcome {
			o := moods[roll(len(moods))]
			if o.Class == deliver.Delivered {
				mu.Lock()
				got[j.ID+" "+r.Address.String()]++
				mu.Unlock()
			}
			return o
		}
		var ids []queue.ID
		for i := range many {
			m := message()
			for n := range 1 + roll(5) {
				m.Envelope.To = append(m.Envelope.To, mail.Recipient{
					Address: mail.MustParseAddress(fmt.Sprintf("u%d@d%d.example", n, roll(30))),
					Notify:  []mail.Notify{0, 0, mail.NotifyNever, mail.NotifySuccess | mail.NotifyFailure}[roll(4)],
				})
			}
			if roll(10) == 0 {
				m.Envelope.From = mail.Address{}
			}
			if roll(20) == 0 {
				m.Held = "quarantine"
			}
			ids = append(ids, w.accept(m))
			if i%5 == 0 {
				heavyHand(t, w, ids[roll(len(ids)):][:1], roll(5))
				time.Sleep(time.Duration(roll(100_000)) * time.Millisecond)
			}
		}
		time.Sleep(6 * 24 * time.Hour)
		if _, err := w.Release(ids); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * 7 * 24 * time.Hour)
		synctest.Wait()
		if st := w.Stats(5); w.queue.size() != 0 || st.Waiting+st.Ready+st.Leased+st.Held != 0 {
			t.Errorf("%d left in the queue, %+v", w.queue.size(), st)
		}
		for who, n := range got {
			if n > 1 {
				t.Errorf("%s got it %d times", who, n)
			}
		}
		if len(got) < many {
			t.Errorf("only %d deliveries: the test tests little", len(got))
		}
	})
}

func heavyHand(t *testing.T, w *world, ids []queue.ID, what int) {
	var err error
	switch what {
	case 0:
		_, err = w.Retry(ids)
	case 1:
		_, err = w.Hold(ids, "look")
	case 2:
		_, err = w.Release(ids)
	case 3:
		_, err = w.Delete(ids)
	default:
		_, err = w.Bounce(ids, "")
	}
	if err != nil && err != errReport {
		t.Error(err)
	}
}
