//go:build linux

package scenario

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
	"github.com/pabal-mta/mta/cmd/mtabench/load"
	"github.com/pabal-mta/mta/cmd/mtabench/meter"
	"github.com/pabal-mta/mta/cmd/mtabench/peer"
	"github.com/pabal-mta/mta/cmd/mtabench/report"
)

const (
	maxMessages = 400_000                // in a load that is bound by time
	settle      = 200 * time.Millisecond // in which a second copy would show
)

// trial is one peer in one scenario.
type trial struct {
	*Bench
	scenario Scenario
	server   *peer.Server
	ledger   *ledger.Ledger
	rec      *report.Record
}

func (t *trial) whole(ctx context.Context, p *peer.Peer) (err error) {
	if err := t.Sink.Up(); err != nil {
		return err
	}
	t.server, err = p.Start(ctx, t.Dir, t.Groups, t.SinkPort)
	if t.server != nil {
		defer func() {
			t.server.Stop()
			err = errors.Join(err, t.server.Clear())
		}()
	}
	if err != nil {
		return err
	}
	t.set(report.Startup, ms(t.server.Startup))
	return t.scenario.run(ctx, t)
}

func (t *trial) set(figure string, value float64) { t.rec.Figures[figure] = value }

// open begins a new account.
func (t *trial) open(size int) {
	t.runs++
	t.ledger = ledger.New("run"+strconv.Itoa(t.runs), size)
	t.Sink.Book(t.ledger)
}

// warm sends a few hundred messages first: processes are started, files made, caches filled.
func (t *trial) warm(ctx context.Context) error {
	const n = 500
	t.open(n)
	spec := load.Spec{Address: t.server.Address(), Connections: 10, PerConn: 20, Size: 4 << 10, Recipients: 1, Time: 4 * time.Second}
	res, err := load.Run(ctx, spec, t.ledger)
	if err != nil {
		return err
	}
	if t.ledger.Accepted() == 0 {
		return fmt.Errorf("%s takes no mail: %s", t.server.Name, res.Sample)
	}
	t.await(ctx, 10*time.Second)
	return ctx.Err()
}

// await waits until all that was accepted has arrived, at most so long.
func (t *trial) await(ctx context.Context, limit time.Duration) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(limit); time.Now().Before(until) && ctx.Err() == nil; <-tick.C {
		if t.ledger.Delivered() >= t.ledger.Accepted() {
			return
		}
	}
}

// meter starts to measure on a disk with nothing left to write from what was before.
func (t *trial) meter() *meter.Meter {
	unix.Sync()
	return meter.Start(t.server.Group, t.server.Place.Run)
}

// through measures a load on its way through the server.
func through(ctx context.Context, t *trial) error {
	if err := t.warm(ctx); err != nil {
		return err
	}
	m := t.meter()
	t.open(maxMessages)
	res, err := t.send(ctx)
	if err != nil {
		return err
	}
	t.await(ctx, t.scenario.drain)
	usage := m.Stop()
	time.Sleep(settle)
	audit := t.close(res)
	t.endToEnd(audit, usage.Time)
	t.usage(usage, audit.Accepted)
	return ctx.Err()
}

func (t *trial) send(ctx context.Context) (load.Result, error) {
	spec := t.scenario.load
	spec.Address = t.server.Address()
	return load.Run(ctx, spec, t.ledger)
}

// close ends the account: what was accepted and how fast, and whether all is right.
func (t *trial) close(res load.Result) ledger.Audit {
	queued := t.server.Queued()
	a := t.ledger.Audit()
	t.rec.Sample = res.Sample
	t.set(report.Accepted, float64(a.Accepted))
	t.set(report.Refused, float64(res.TempFail+res.PermFail+res.Broken))
	if res.Elapsed > 0 {
		t.set(report.AcceptRate, float64(a.Accepted)/res.Elapsed.Seconds())
	}
	t.set(report.AcceptP50, ms(ledger.Quantile(a.AcceptLatency, .50)))
	t.set(report.AcceptP99, ms(ledger.Quantile(a.AcceptLatency, .99)))
	t.set(report.Delivered, float64(a.Delivered))
	t.set(report.Missing, float64(a.Missing))
	t.set(report.Queued, float64(queued))
	t.set(report.Transactions, float64(a.Transactions))
	if err := errors.Join(a.Wrong(queued), t.server.Alive()); err != nil {
		t.rec.Wrong = err.Error()
	}
	return a
}

// endToEnd says how fast messages came out. Where some are missing the whole time counts.
func (t *trial) endToEnd(a ledger.Audit, whole time.Duration) {
	took := a.LastDelivered
	if a.Missing > 0 {
		took = whole
	}
	if a.Delivered > 0 {
		t.set(report.EndToEndRate, float64(a.Delivered)/took.Seconds())
	}
	t.set(report.TransitP50, ms(ledger.Quantile(a.TransitTime, .50)))
	t.set(report.TransitP99, ms(ledger.Quantile(a.TransitTime, .99)))
}

// usage says what n messages have cost.
func (t *trial) usage(u meter.Usage, n int) {
	each := float64(max(1, n))
	t.noise(u)
	t.set(report.Disk, kib(u.Disk)/each)
	t.set(report.Flushes, float64(u.Flushes)/each)
	if t.server.Name == peer.Direct {
		return
	}
	t.set(report.CPU, u.Peer.Seconds()/each*1000)
	t.memory(u.Peak, report.RSS, report.Anon)
	t.set(report.Processes, float64(u.Peak.Processes))
	t.set(report.Written, kib(u.Written)/each)
	if u.Syncs >= 0 {
		t.set(report.Syncs, float64(u.Syncs)/each)
	}
}

func (t *trial) noise(u meter.Usage) {
	t.set(report.Self, u.Self.Seconds()/u.Time.Seconds())
	t.set(report.Noise, u.Other.Seconds()/u.Time.Seconds())
	t.set(report.Stolen, u.Stolen.Seconds()/u.Time.Seconds())
}

func (t *trial) memory(m meter.Memory, rss, anon string) {
	t.set(rss, kib(m.RSS)/1024)
	t.set(anon, kib(m.Anon)/1024)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func kib(bytes int64) float64 { return float64(bytes) / 1024 }

// idle measures a server that nobody speaks with.
func idle(ctx context.Context, t *trial) error {
	rest(ctx, 2*time.Second)
	m := meter.Start(t.server.Group, t.server.Place.Run)
	rest(ctx, 5*time.Second)
	u := m.Stop()
	t.noise(u)
	t.memory(u.Peak, report.RSS, report.Anon)
	t.set(report.Processes, float64(u.Peak.Processes))
	return ctx.Err()
}

// rest waits, or until the context ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
