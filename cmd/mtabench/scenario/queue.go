//go:build linux

package scenario

import (
	"context"
	"maps"
	"time"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
	"github.com/pabal-mta/mta/cmd/mtabench/load"
	"github.com/pabal-mta/mta/cmd/mtabench/report"
)

// flushEvery is how often a server is told to try its whole queue again, while it does not by itself.
const flushEvery = 20 * time.Second

// backlog fills the queue while the sink is down, and lets it out.
func backlog(ctx context.Context, t *trial) error {
	if err := t.warm(ctx); err != nil {
		return err
	}
	m := t.meter()
	res, err := t.fill(ctx)
	if err != nil {
		return err
	}
	rest(ctx, time.Second)
	t.memory(t.server.Group.Memory(), report.FullRSS, report.FullAnon)
	if err := t.Sink.Up(); err != nil {
		return err
	}
	t.drain(ctx)
	usage := m.Stop()
	time.Sleep(settle)
	audit := t.close(res)
	t.usage(usage, audit.Accepted)
	return ctx.Err()
}

// fill sends with the sink down.
func (t *trial) fill(ctx context.Context) (load.Result, error) {
	t.Sink.Down()
	t.open(t.scenario.load.Messages)
	stop := t.watch(ctx)
	res, err := t.send(ctx)
	stop()
	if err != nil {
		return res, err
	}
	first, last := tenths(t.ledger.Audit())
	t.set(report.FillFirst, first)
	t.set(report.FillLast, last)
	if first > 0 {
		t.set(report.FillShare, last/first)
	}
	return res, ctx.Err()
}

// watch tells about the progress of long work until it is stopped.
func (t *trial) watch(ctx context.Context) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	go func() {
		for rest(ctx, 15*time.Second); ctx.Err() == nil; rest(ctx, 15*time.Second) {
			t.Progress("%s %s: %d accepted, %d delivered", t.server.Name, t.scenario.Name, t.ledger.Accepted(), t.ledger.Delivered())
		}
	}()
	return stop
}

// tenths are the rates at which the first and the last tenth were accepted.
func tenths(a ledger.Audit) (first, last float64) {
	n := len(a.AcceptTimes) / 10
	if n < 2 {
		return 0, 0
	}
	rate := func(times []time.Duration) float64 {
		return float64(len(times)-1) / (times[len(times)-1] - times[0]).Seconds()
	}
	return rate(a.AcceptTimes[:n]), rate(a.AcceptTimes[len(a.AcceptTimes)-n:])
}

// drain lets the queue out, and measures from now to the first delivery, and from the first to the last.
func (t *trial) drain(ctx context.Context) {
	start := t.ledger.Elapsed()
	flushing, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ; flushing.Err() == nil; rest(flushing, flushEvery) {
			t.server.Flush(flushing)
		}
	}()
	stopWatching := t.watch(ctx)
	t.await(ctx, t.scenario.drain)
	stopWatching()
	stop()
	<-ended
	a := t.ledger.Audit()
	if a.Delivered < 2 {
		return
	}
	t.set(report.DrainFirst, (a.FirstDelivered - start).Seconds())
	t.set(report.DrainRate, float64(a.Delivered-1)/(a.LastDelivered-a.FirstDelivered).Seconds())
}

// million fills the queue of our own server with very much, restarts it, and lets some of it out.
func million(ctx context.Context, t *trial) error {
	if err := t.warm(ctx); err != nil {
		return err
	}
	m := t.meter()
	res, err := t.fill(ctx)
	usage := m.Stop()
	if err != nil {
		return err
	}
	accepted := t.ledger.Accepted()
	t.usage(usage, accepted)
	t.memory(t.server.Group.Memory(), report.FullRSS, report.FullAnon)
	t.Progress("%s %s: %d are queued; the server restarts", t.server.Name, t.scenario.Name, accepted)
	if err := t.restart(ctx); err != nil {
		return err
	}
	t.close(res)
	return ctx.Err()
}

// restart stops the server, brings the sink back and starts the server on its queue.
func (t *trial) restart(ctx context.Context) error {
	t.server.Stop()
	if err := t.Sink.Up(); err != nil {
		return err
	}
	begun := t.ledger.Elapsed()
	if err := t.server.Again(ctx, t.Groups); err != nil {
		return err
	}
	t.set(report.Ready, t.server.Startup.Seconds())
	t.memory(t.server.Group.Memory(), report.ReadyRSS, report.ReadyAnon)
	listing, stop := context.WithCancel(ctx)
	figures, ended := map[string]float64{}, make(chan error, 1)
	go func() { ended <- t.lists(listing, figures) }()
	t.drain(ctx)
	stop()
	if err := <-ended; err != nil {
		return err
	}
	maps.Copy(t.rec.Figures, figures)
	a := t.ledger.Audit()
	if a.Delivered > 0 {
		t.set(report.FirstDelivery, (a.FirstDelivered - begun).Seconds())
	}
	return nil
}

// An operator asks for lists while the queue is drained: by turns there is a window without one and a window with one.
const (
	listWindow = 4 * time.Second
	listPairs  = 10
)

// lists asks for lists of what is queued, and measures how soon they begin and what they take from the drain, until the queue
// is empty. Without one whole pair there are no figures.
func (t *trial) lists(ctx context.Context, figures map[string]float64) error {
	for t.ledger.Delivered() == 0 && ctx.Err() == nil {
		rest(ctx, 10*time.Millisecond)
	}
	rest(ctx, listWindow)     // the drain gets under way
	var without, with float64 // the sums of the rates of whole pairs
	var worst time.Duration
	listed, took := 0, time.Duration(0)
	for range listPairs {
		alone, err := t.window(ctx, nil)
		if err != nil {
			return err
		}
		beside, err := t.window(ctx, func(ctx context.Context) error {
			begun := time.Now()
			first, n, err := t.server.List(ctx)
			worst = max(worst, first)
			listed, took = listed+n, took+time.Since(begun)
			return err
		})
		if err != nil && ctx.Err() == nil { // else the queue is empty, and the list was stopped
			return err
		}
		if ctx.Err() != nil || t.ledger.Delivered() >= t.ledger.Accepted() {
			break
		}
		without, with = without+alone, with+beside
	}
	if without == 0 {
		return nil
	}
	figures[report.ListFirst] = worst.Seconds()
	figures[report.ListRate] = float64(listed) / took.Seconds()
	figures[report.ListShare] = with / without
	return nil
}

// window does something for the time of a window, and returns the rate of the drain meanwhile.
func (t *trial) window(ctx context.Context, do func(context.Context) error) (rate float64, err error) {
	ctx, end := context.WithTimeout(ctx, listWindow)
	defer end()
	before, begun := t.ledger.Delivered(), time.Now()
	if do != nil {
		err = do(ctx)
	}
	<-ctx.Done()
	return float64(t.ledger.Delivered()-before) / time.Since(begun).Seconds(), err
}
