package schedule

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// nothing is a queue and a deliverer that do nothing, so that only the schedule is measured.
type nothing struct {
	ended atomic.Int64
	full  chan struct{} // one for each message under way
}

func (n *nothing) Recover(context.Context, func(*queue.Record) error) error { return nil }
func (n *nothing) Load(queue.ID) (*queue.Record, mail.Content, error) {
	return nil, nil, queue.ErrNotFound
}
func (n *nothing) Settle(_ *queue.Record, _ []*queue.Message, done func([]*queue.Record, error)) {
	done(nil, nil)
	n.ended.Add(1)
	<-n.full
}
func (n *nothing) Delete(queue.ID, func(error)) {}

func (n *nothing) Attempt(_ context.Context, j *deliver.Job) []deliver.Outcome {
	out := make([]deliver.Outcome, len(j.Envelope.To))
	for i := range out {
		out[i] = delivered
	}
	return out
}

// BenchmarkOffer is what one message costs from Offer to the end of Settle, with a next hop and a queue that cost nothing.
func BenchmarkOffer(b *testing.B) {
	for _, sites := range []int{1, 1000} {
		b.Run(fmt.Sprintf("sites=%d", sites), func(b *testing.B) {
			n := &nothing{full: make(chan struct{}, 1000)}
			s := New(Options{Queue: n, Deliver: n, Routes: func() route.Table { return routes }})
			if err := s.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			to := make([]mail.Recipient, sites)
			for i := range to {
				to[i].Address = mail.MustParseAddress(fmt.Sprintf("bob@d%d.example", i))
			}
			content, received := mail.Bytes(make([]byte, 4096)), time.Now()
			from := mail.MustParseAddress("ann@example.org")
			b.ReportAllocs()
			id := queue.ID(0)
			for b.Loop() {
				id++
				r := &queue.Record{ID: id, Envelope: mail.Envelope{From: from}, Recipients: []queue.Recipient{{Recipient: to[int(id)%sites]}}, Received: received, Size: 4096}
				n.full <- struct{}{}
				s.Offer(r, content)
			}
			for n.ended.Load() < int64(id) {
				runtime.Gosched()
			}
			if err := s.Stop(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// TestMemoryOfWaiting measures what a waiting message costs, at one site and at a site of its own.
func TestMemoryOfWaiting(t *testing.T) {
	const many = 200_000
	for _, tt := range []struct{ sites, most int }{{100, 150}, {many, 450}} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := New(Options{Queue: &nothing{}, Routes: func() route.Table { return routes }})
		due := time.Now().Add(time.Hour)
		for i := range many {
			r := &queue.Record{ID: queue.ID(i + 1), Next: due.Add(time.Duration(i*7919%many) * time.Millisecond)}
			r.Recipients = []queue.Recipient{{Recipient: mail.Recipient{Address: mail.MustParseAddress(fmt.Sprintf("u@d%d.example", i%tt.sites))}}}
			s.remember(r)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		each := int(after.HeapAlloc-before.HeapAlloc) / many
		t.Logf("%d bytes for each of %d messages at %d sites", each, many, tt.sites)
		if each > tt.most {
			t.Errorf("more than %d", tt.most)
		}
		runtime.KeepAlive(s)
	}
}

// deadHost is a queue with a backlog of messages to dead.example, on a disk whose reads cost next to nothing, and a deliverer that
// finds that host dead and all others alive.
type deadHost struct {
	nothing
	backlog int
	loads   atomic.Int64
	took    chan time.Duration // from the arrival of a message for another host to its attempt
}

func (d *deadHost) record(i int) *queue.Record {
	to := mail.Recipient{Address: mail.MustParseAddress("bob@dead.example")}
	return &queue.Record{ID: queue.ID(i + 1), Received: time.Now(), Next: time.Now(), Attempts: 1, Recipients: []queue.Recipient{{Recipient: to}}}
}

func (d *deadHost) Recover(_ context.Context, fn func(*queue.Record) error) error {
	for i := range d.backlog {
		if err := fn(d.record(i)); err != nil {
			return err
		}
	}
	return nil
}

func (d *deadHost) Load(id queue.ID) (*queue.Record, mail.Content, error) {
	d.loads.Add(1)
	return d.record(int(id) - 1), mail.Bytes([]byte(body)), nil
}

func (d *deadHost) Settle(_ *queue.Record, _ []*queue.Message, done func([]*queue.Record, error)) {
	done(nil, nil)
}

func (d *deadHost) Attempt(_ context.Context, j *deliver.Job) []deliver.Outcome {
	if j.Domain == "dead.example" {
		return []deliver.Outcome{dead}
	}
	d.took <- time.Since(j.Received)
	return []deliver.Outcome{delivered}
}

// BenchmarkBesideDeadHost is how long a message for a host that is alive waits for its attempt beside the backlog of one that is
// dead: all of it is due, as after a start.
func BenchmarkBesideDeadHost(b *testing.B) {
	for _, backlog := range []int{0, 90_000, 900_000} {
		b.Run(fmt.Sprintf("backlog=%d", backlog), func(b *testing.B) {
			d := &deadHost{backlog: backlog, took: make(chan time.Duration, 1)}
			s := New(Options{Queue: d, Deliver: d, Routes: func() route.Table { return routes }})
			if err := s.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			to := []queue.Recipient{{Recipient: mail.Recipient{Address: mail.MustParseAddress("ann@live.example")}}}
			var all []time.Duration
			id := queue.ID(backlog)
			for b.Loop() {
				id++
				s.Offer(&queue.Record{ID: id, Received: time.Now(), Size: 100, Recipients: slices.Clone(to)}, mail.Bytes([]byte(body)))
				all = append(all, <-d.took)
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds()), "p99-ns")
			b.ReportMetric(float64(d.loads.Load()), "loads")
			if err := s.Stop(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkBesideList is what a message costs from Offer to the end of Settle beside a list of 100,000 waiting ones, of which five
// rows are made for each message: each asks by itself when it is due, or 64 together, or there is no list.
func BenchmarkBesideList(b *testing.B) {
	for _, together := range []int{0, 1, 64} {
		b.Run(fmt.Sprintf("together=%d", together), func(b *testing.B) {
			d := &deadHost{backlog: 100_000}
			n := &nothing{full: make(chan struct{}, 1000)}
			s := New(Options{Queue: n, Deliver: n, Routes: func() route.Table { return routes }})
			for i := range d.backlog {
				rec := d.record(i)
				rec.Next = time.Now().Add(10 * time.Minute)
				s.remember(rec)
			}
			if err := s.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			over, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				list := make([]*queue.Record, together)
				for rows := 0; together > 0; {
					for ; int64(rows) < 5*n.ended.Load(); rows += together {
						for i := range list {
							list[i] = &queue.Record{ID: queue.ID((rows+i)%d.backlog + 1)}
						}
						s.Due(list)
					}
					select {
					case <-over:
						return
					default:
						runtime.Gosched()
					}
				}
			}()
			to := []queue.Recipient{{Recipient: mail.Recipient{Address: mail.MustParseAddress("ann@live.example")}}}
			id := queue.ID(d.backlog)
			for b.Loop() {
				id++
				n.full <- struct{}{}
				s.Offer(&queue.Record{ID: id, Received: time.Now(), Size: 100, Recipients: slices.Clone(to)}, mail.Bytes([]byte(body)))
			}
			close(over)
			<-ended
			if err := s.Stop(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
