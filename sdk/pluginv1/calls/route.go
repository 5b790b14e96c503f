package calls

import (
	"context"
	"fmt"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

func askRoute(r *mail.Routing) *question {
	return &question{req: &pb.Request{Call: &pb.Request_Route{Route: &pb.RouteCall{
		Id: text(r.ID), Envelope: putEnvelope(&r.Envelope), Size: r.Size, Attempt: uint32(max(r.Attempt, 0)), ArrivedUnixNs: putTime(r.Arrived),
		Meta: putMeta(r.Meta),
	}}}}
}

func takeRouting(p *pb.RouteCall) (*mail.Routing, error) {
	e, err := takeEnvelope(p.GetEnvelope())
	return &mail.Routing{
		ID: p.GetId(), Envelope: e, Size: p.GetSize(), Attempt: int(p.GetAttempt()), Arrived: takeTime(p.GetArrivedUnixNs()),
		Meta: p.GetMeta(),
	}, err
}

func answerHops(list []mail.Hop) *answer {
	p := &pb.Hops{Hops: make([]*pb.Hop, len(list))}
	for i, h := range list {
		p.Hops[i] = &pb.Hop{Mx: h.MX, Route: text(h.Route), Reply: putReply(h.Reply)}
		for _, host := range h.Hosts {
			p.Hops[i].Hosts = append(p.Hops[i].Hosts, text(host))
		}
	}
	return &answer{res: &pb.Response{Result: &pb.Response_Hops{Hops: p}}}
}

// takeHops returns hops that are legal, one for each recipient, or an error.
func takeHops(p *pb.Hops, want int) ([]mail.Hop, error) {
	if len(p.GetHops()) != want {
		return nil, fmt.Errorf("%d hops for %d recipients", len(p.GetHops()), want)
	}
	out := make([]mail.Hop, want)
	for i, h := range p.GetHops() {
		out[i] = mail.Hop{Hosts: h.GetHosts(), MX: h.GetMx(), Route: h.GetRoute()}
		if h.GetReply() != nil {
			var err error
			if out[i].Reply, err = takeReply(h.GetReply()); err != nil {
				return nil, fmt.Errorf("hop %d: %w", i+1, err)
			}
		}
		if err := out[i].Check(); err != nil {
			return nil, fmt.Errorf("hop %d: %w", i+1, err)
		}
	}
	return out, nil
}

// Route asks for the next hop of each recipient; see sdk.Router.
func (c *Client) Route(ctx context.Context, r *mail.Routing) ([]mail.Hop, error) {
	q := askRoute(r)
	res, _, err := c.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	if res.GetHops() == nil {
		return nil, want(q, res)
	}
	hops, err := takeHops(res.GetHops(), len(r.Envelope.To))
	if err != nil {
		return nil, bad(q, err)
	}
	return hops, nil
}

func callRoute(ctx context.Context, v any, p *pb.RouteCall) (*answer, error) {
	f, ok := v.(router)
	if !ok {
		return nil, ErrUnsupported
	}
	r, err := takeRouting(p)
	if err != nil {
		return nil, err
	}
	hops, err := f.Route(ctx, r)
	if err != nil {
		return nil, err
	}
	return answerHops(hops), nil
}
