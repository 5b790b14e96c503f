package deliver

import (
	"context"
	"errors"
	"net/netip"

	"github.com/pabal-mta/mta/core/tlspolicy"
)

// Hop is a host that an attempt would go to.
type Hop struct {
	Host      string   // as it stands in mta.hcl, or in the DNS with its port
	Addresses []string // those that it would be connected at, in this order
	TLS       string   // how much of it the host must show
	Problem   string   // why the host, or some of its addresses, would not do; "" when nothing is known
}

// Explain finds the hosts of a job with one recipient as Attempt does, and connects to none of them; a router is asked. The
// failure is what the recipient would be told where not even that can be done. A job that is stored here has no hosts.
func (d *Deliverer) Explain(ctx context.Context, job *Job) (hops []Hop, failure *Outcome) {
	way, ok := d.o.Ways[job.Route]
	if !ok || way.Kind == KindStore {
		return nil, nil
	}
	a := &attempt{Deliverer: d, job: job, way: way, outcomes: make([]Outcome, len(job.Envelope.To))}
	if way.Kind == KindRouter {
		list, err := a.hops(ctx)
		if err != nil {
			o := unrouted(err)
			return nil, &o
		}
		parts := a.divide(list)
		if len(parts) == 0 {
			return nil, &a.outcomes[0]
		}
		a = parts[0].attempt
	}
	_, hosts, failure := a.destination(ctx)
	if failure != nil {
		return nil, failure
	}
	for _, h := range hosts {
		hops = append(hops, a.explain(ctx, h))
	}
	return hops, nil
}

// Hosts returns the names of the hosts that mail of a route to a domain goes to, as Attempt finds them; where the domain
// makes no difference it may be "". Mail that is stored here, or whose hosts a router chooses each time, has none.
func (d *Deliverer) Hosts(ctx context.Context, route, domain string) ([]string, error) {
	way, ok := d.o.Ways[route]
	if !ok || way.Kind == KindStore || way.Kind == KindRouter {
		return nil, nil
	}
	a := &attempt{Deliverer: d, job: &Job{Route: route, Domain: domain}, way: way}
	_, hosts, failure := a.destination(ctx)
	if failure != nil {
		return nil, errors.New(failure.Reply.String())
	}
	var names []string
	for _, h := range hosts {
		if h.socket == "" {
			names = append(names, h.name)
		}
	}
	return names, nil
}

func (a *attempt) explain(ctx context.Context, h host) Hop {
	hop := Hop{Host: h.String(), TLS: tlsWords(tlspolicy.For(a.way.mode(), h.name, a.way.Roots, a.requireTLS()))}
	if h.socket != "" {
		hop.Addresses = []string{h.socket}
		return hop
	}
	s := &search{attempt: a}
	addresses, err := s.addresses(ctx, h.name)
	if err != nil {
		hop.Problem = unresolved(h.name, err).Reply.String()
		return hop
	}
	for _, ip := range addresses {
		c := candidate{h, endpoint{ip: netip.AddrPortFrom(ip.Unmap(), h.port)}}
		if s.allowed(c) {
			hop.Addresses = append(hop.Addresses, c.at.String())
		}
	}
	for _, o := range []*Outcome{s.perm, s.temp} {
		if o != nil {
			hop.Problem = o.Reply.String()
		}
	}
	return hop
}

func tlsWords(p tlspolicy.Policy) string {
	switch {
	case p.Verified():
		return "a certificate for " + p.Name + " is wanted (" + string(p.Source) + ")"
	case p.Required():
		return "required, any certificate (" + string(p.Source) + ")"
	case p.Wanted():
		return "where it is offered and works"
	default:
		return "none"
	}
}
