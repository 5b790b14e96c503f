//go:build linux

package scenario

import (
	"context"
	"time"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
	"github.com/pabal-mta/mta/cmd/mtabench/load"
	"github.com/pabal-mta/mta/cmd/mtabench/report"
)

// deadDomain has no host: the namespace of a trial has no DNS.
const deadDomain = "dead.test"

// besideDead measures mail for a host that lives, with nothing queued, then beside very much that waits for one that is dead, and then
// while an operator has all of that tried again.
func besideDead(ctx context.Context, t *trial) error {
	if err := t.warm(ctx); err != nil {
		return err
	}
	alone, err := t.alive(ctx)
	if err != nil {
		return err
	}
	dead := t.scenario.load
	dead.Address, dead.Domain = t.server.Address(), deadDomain
	t.open(dead.Messages)
	stop := t.watch(ctx)
	res, err := load.Run(ctx, dead, t.ledger)
	stop()
	if err != nil {
		return err
	}
	t.set(report.DeadQueued, float64(t.ledger.Accepted()))
	t.rec.Sample = res.Sample
	t.memory(t.server.Group.Memory(), report.FullRSS, report.FullAnon)
	rest(ctx, 5*time.Second)

	m := t.meter()
	beside, err := t.alive(ctx)
	if err != nil {
		return err
	}
	t.noise(m.Stop())
	t.set(report.EndToEndRate, beside.rate)
	t.set(report.AcceptP99, ms(beside.accept))
	t.set(report.TransitP99, ms(beside.transit))
	t.shares(beside, alone, report.DeadRate, report.DeadP99)

	retrying, end := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t.server.Retry(retrying, deadDomain)
	}()
	retried, err := t.alive(ctx)
	end()
	<-ended
	if err != nil {
		return err
	}
	t.shares(retried, alone, report.RetryRate, report.RetryP99)
	return ctx.Err()
}

// living is how mail for a living host fares.
type living struct {
	rate            float64
	accept, transit time.Duration // the 99th percentiles, to the 250 and from there
}

// alive sends mail for the living host, as much as goes through, for the time of e2e-4k.
func (t *trial) alive(ctx context.Context) (living, error) {
	spec := t.scenario.load
	spec.Address, spec.Messages, spec.Time = t.server.Address(), 0, aliveTime
	t.open(maxMessages)
	res, err := load.Run(ctx, spec, t.ledger)
	if err != nil {
		return living{}, err
	}
	t.await(ctx, t.scenario.drain)
	time.Sleep(settle)
	a := t.close(res)
	l := living{accept: ledger.Quantile(a.AcceptLatency, .99), transit: ledger.Quantile(a.TransitTime, .99)}
	if a.Delivered > 0 {
		l.rate = float64(a.Delivered) / a.LastDelivered.Seconds()
	}
	t.Progress("%s %s: %d of %d through at %.0f/s; 99 %% within %v and %v more", t.server.Name, t.scenario.Name, a.Delivered, a.Accepted, l.rate, l.accept, l.transit)
	return l, ctx.Err()
}

const aliveTime = 8 * time.Second

// shares sets what is left of the rate, and how many times as long the slowest hundredth of the messages takes in all.
func (t *trial) shares(now, alone living, rate, p99 string) {
	if alone.rate > 0 && alone.accept+alone.transit > 0 {
		t.set(rate, now.rate/alone.rate)
		t.set(p99, float64(now.accept+now.transit)/float64(alone.accept+alone.transit))
	}
}
