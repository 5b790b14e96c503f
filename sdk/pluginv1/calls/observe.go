package calls

import (
	"context"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// observer is the method of the kind in package sdk.
type observer interface {
	Observe(context.Context, []mail.Event) error
}

func putEvent(e *mail.Event) *pb.Event {
	return &pb.Event{
		Name: text(e.Name), TimeUnixNs: putTime(e.Time), Session: text(e.Session), Id: text(e.ID), Listener: text(e.Listener),
		Remote: text(e.Remote), User: text(e.User), From: text(e.From), To: text(e.To), Route: text(e.Route), Host: text(e.Host),
		Plugin: text(e.Plugin), Stage: text(e.Stage), Class: text(e.Class), Reply: text(e.Reply), Reason: text(e.Reason),
		Error: text(e.Error), Size: e.Size, Count: int64(e.Count), Attempt: int64(e.Attempt), NextUnixNs: putTime(e.Next), TookNs: int64(e.Took),
	}
}

func takeEvent(p *pb.Event) mail.Event {
	return mail.Event{
		Name: p.GetName(), Time: takeTime(p.GetTimeUnixNs()), Session: p.GetSession(), ID: p.GetId(), Listener: p.GetListener(),
		Remote: p.GetRemote(), User: p.GetUser(), From: p.GetFrom(), To: p.GetTo(), Route: p.GetRoute(), Host: p.GetHost(),
		Plugin: p.GetPlugin(), Stage: p.GetStage(), Class: p.GetClass(), Reply: p.GetReply(), Reason: p.GetReason(),
		Error: p.GetError(), Size: p.GetSize(), Count: int(p.GetCount()), Attempt: int(p.GetAttempt()), Next: takeTime(p.GetNextUnixNs()),
		Took: time.Duration(p.GetTookNs()),
	}
}

// Observe tells what happened; see sdk.Observer.
func (c *Client) Observe(ctx context.Context, events []mail.Event) error {
	p := &pb.ObserveCall{Events: make([]*pb.Event, len(events))}
	for i := range events {
		p.Events[i] = putEvent(&events[i])
	}
	q := &question{req: &pb.Request{Call: &pb.Request_Observe{Observe: p}}, bytes: 300 * len(events)}
	r, _, err := c.ask(ctx, q)
	if err == nil && r.GetObserved() == nil {
		err = want(q, r)
	}
	return err
}

func callObserve(ctx context.Context, v any, p *pb.ObserveCall) (*answer, error) {
	f, ok := v.(observer)
	if !ok {
		return nil, ErrUnsupported
	}
	events := make([]mail.Event, len(p.GetEvents()))
	for i, e := range p.GetEvents() {
		events[i] = takeEvent(e)
	}
	if err := f.Observe(ctx, events); err != nil {
		return nil, err
	}
	return &answer{res: &pb.Response{Result: &pb.Response_Observed{Observed: &pb.Observed{}}}}, nil
}
