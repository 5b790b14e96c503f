package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pabal-mta/mta/core/pipeline"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// The replies of the policy.
var (
	replyRelayDenied = mail.NewReply(550, "5.7.1", "relaying denied: log in, or send from a network that may relay")
	replyNoRoute     = mail.NewReply(550, "5.4.4", "no route to that domain")
	replyUnknown     = mail.NewReply(550, "5.1.1", "no such mailbox here")
	replyFull        = mail.NewReply(452, "4.2.2", "the mailbox is full, try again later")
	replyDirectory   = mail.NewReply(451, "4.3.0", "the mailbox can't be looked up now, try again later")
)

// directory says which mailboxes exist.
type directory interface {
	Lookup(ctx context.Context, addresses []mail.Address) ([]mail.Mailbox, error)
}

// isOurs reports whether mail for the domain is taken from anyone.
func (g *generation) isOurs(domain string) bool { return slices.Contains(g.cfg.Domains, domain) }

// Rcpt decides about one recipient: the zero Reply takes it, and aliases, if any, take its place. Whether a plugin
// would take it is not asked here: relaying is decided by the core alone.
func (g *generation) rcpt(ctx context.Context, trusted bool, a mail.Address) (reply mail.Reply, aliases []mail.Address, err error) {
	ours := g.isOurs(a.Domain())
	if !ours && !trusted {
		return replyRelayDenied, nil, nil
	}
	r := g.routes.Take(a)
	if r == nil {
		return replyNoRoute, nil, nil
	}
	if d := g.directories[r.Name]; d != nil {
		return g.lookup(ctx, d, a)
	}
	if ours && g.isSelf(r) {
		return replyNoRoute, nil, fmt.Errorf("route %q would deliver mail for our own domain %s by its MX, which is us", r.Name, a.Domain())
	}
	return mail.Reply{}, nil, nil
}

// isSelf reports a route that asks the DNS for hosts. For a domain of ours that leads back here.
func (g *generation) isSelf(r *route.Route) bool { return r.Kind == route.MX }

func (g *generation) lookup(ctx context.Context, d directory, a mail.Address) (mail.Reply, []mail.Address, error) {
	boxes, err := d.Lookup(ctx, []mail.Address{a})
	if err != nil {
		return replyDirectory, nil, err
	}
	switch box := boxes[0]; box.State {
	case mail.MailboxExists:
		return mail.Reply{}, nil, nil
	case mail.MailboxAlias:
		return mail.Reply{}, box.Aliases, nil
	case mail.MailboxFull:
		return replyFull, nil, nil
	case mail.MailboxUnknown:
		return g.unknown(a)
	default:
		return replyDirectory, nil, fmt.Errorf("the directory gave no answer for %s", a)
	}
}

// unknown refuses a mailbox that does not exist, but for postmaster, which always reaches someone (RFC 5321, 4.5.1).
func (g *generation) unknown(a mail.Address) (mail.Reply, []mail.Address, error) {
	if to := g.cfg.Postmaster; strings.EqualFold(a.Local(), "postmaster") && !to.IsNull() && to != a {
		return mail.Reply{}, []mail.Address{to}, nil
	}
	return replyUnknown, nil, nil
}

// priority is what the configuration gives a message that brings none. A condition that can't be answered counts as false.
func (e *Engine) priority(s *mail.Session, m *mail.Message) int8 {
	if e.current.Load() == nil { // a plugin submits while the server starts
		return 0
	}
	g := e.use()
	defer g.done()
	for _, p := range g.cfg.Queue.Priorities {
		is, err := p.When.Eval(factsOf(pipeline.Facts{Session: s, Message: m}))
		e.warnOn(err, "priority "+p.Name+" can't be decided")
		if is {
			return int8(p.Level)
		}
	}
	return 0
}
