package deliver

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/pabal-mta/mta/sdk/mail"
)

// route asks the router of the way where each recipient goes, and sends the message there. The recipients of one hop
// travel together; the hops are tried side by side, so that a dead one delays no other.
func (a *attempt) route(ctx context.Context) {
	hops, err := a.hops(ctx)
	if r, ok := replyIn(err); ok {
		a.all(Outcome{Class: classOf(r), Phase: phaseRoute, Reply: r, Err: err})
		return
	}
	if err != nil {
		a.all(unrouted(err))
		return
	}
	var running sync.WaitGroup
	for _, part := range a.divide(hops) {
		running.Go(func() { part.run(ctx) })
	}
	running.Wait()
}

// hops asks the router.
func (a *attempt) hops(ctx context.Context) ([]mail.Hop, error) {
	ctx, stop := context.WithTimeout(ctx, a.o.Limits.Route)
	defer stop()
	hops, err := a.way.Router.Route(ctx, &mail.Routing{
		ID: a.job.ID, Envelope: a.job.Envelope, Size: a.job.Content.Size(), Attempt: a.job.Attempt, Arrived: a.job.Received,
		Meta: a.job.Meta,
	})
	if err == nil && len(hops) != len(a.outcomes) {
		err = fmt.Errorf("the router gave %d hops for %d recipients", len(hops), len(a.outcomes))
	}
	return hops, err
}

func unrouted(err error) Outcome {
	return ours(TempFail, phaseRoute, 451, "4.3.0", "the next host can't be found out now").because(err)
}

// part is the recipients of an attempt that go to one hop. Each outcome has one part that writes it.
type part struct {
	*attempt
	whole *attempt
	index []int // of its recipients in the whole
}

// divide makes a part of the recipients of each hop, and gives those without one their outcome.
func (a *attempt) divide(hops []mail.Hop) []*part {
	var parts []*part
	byKey := map[string]*part{}
	for i, h := range hops {
		rcpt := a.job.Envelope.To[i]
		if err := h.Check(); err != nil {
			a.outcomes[i] = unrouted(err)
			continue
		}
		if h.Reply.Code != 0 {
			a.outcomes[i] = Outcome{Class: classOf(h.Reply), Phase: phaseRoute, Reply: h.Reply}
			continue
		}
		domain := rcpt.Address.Domain()
		key := h.Route + "\n" + strings.Join(h.Hosts, "\n") + "\n"
		if len(h.Hosts) == 0 {
			key += domain // a way by mx parts the domains
		}
		p := byKey[key]
		if p == nil {
			way, name, err := a.wayOf(h)
			if err != nil {
				a.outcomes[i] = unrouted(err)
				continue
			}
			p = a.part(way, name, domain)
			byKey[key] = p
			parts = append(parts, p)
		}
		p.index = append(p.index, i)
		p.job.Envelope.To = append(p.job.Envelope.To, rcpt)
	}
	return parts
}

func (a *attempt) part(way Way, name, domain string) *part {
	job := *a.job
	job.Route, job.Domain, job.Envelope.To = name, domain, nil
	return &part{whole: a, attempt: &attempt{Deliverer: a.Deliverer, job: &job, way: way, routed: true}}
}

// wayOf returns how the message gets to a hop, and the name that its connections are kept under. A hop that names a route
// goes the way of that route, login and all; one that names hosts never gets a password.
func (a *attempt) wayOf(h mail.Hop) (w Way, name string, err error) {
	if h.Route != "" {
		w, ok := a.o.Ways[h.Route]
		if !ok || w.Kind != KindSmarthost && w.Kind != KindMX {
			return w, "", fmt.Errorf("the router names the route %q, and there is none that delivers by smarthost or mx", h.Route)
		}
		return w, h.Route, nil
	}
	w = a.way
	w.Router, w.User, w.Password, w.InsecureAuth = nil, "", "", false
	if h.MX {
		w.Kind = KindMX
		return w, a.job.Route, nil
	}
	w.Kind, w.Hosts = KindSmarthost, h.Hosts
	return w, a.job.Route + " " + strings.Join(h.Hosts, " "), nil
}

// run sends the message to one hop.
func (p *part) run(ctx context.Context) {
	p.outcomes = make([]Outcome, len(p.index))
	defer func() {
		if v := recover(); v != nil {
			p.all(ours(TempFail, "", 451, "4.3.0", "the attempt failed for a reason of ours").because(fmt.Errorf("panic: %v\n%s", v, debug.Stack())))
		}
		for i, o := range p.outcomes {
			p.whole.outcomes[p.index[i]] = o
		}
	}()
	p.relay(ctx)
}
