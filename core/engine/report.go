package engine

import (
	"context"
	"time"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/schedule"
	"github.com/pabal-mta/mta/sdk/mail"
)

// notifyTimeout bounds one call of a bounce notifier. When it has passed, the server's own words go out.
const notifyTimeout = 30 * time.Second

// notifier is a plugin that words, redirects or suppresses reports.
type notifier interface {
	Bounce(ctx context.Context, f *mail.Failure) (mail.Notice, error)
}

// notice asks the notifiers in their order for the human part of a report. The first one that says anything but
// "default" decides. A notifier that fails is passed over: a report is never lost to a plugin.
func (g *generation) notice(ctx context.Context, f *mail.Failure) mail.Notice {
	for i, n := range g.notifiers {
		ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
		notice, err := n.Bounce(ctx, f)
		cancel()
		switch {
		case err != nil:
			g.events.Emit(event.Event{Name: event.Warning, Plugin: g.cfg.Bounce.Notify[i], ID: f.ID, Err: err,
				Reason: "the bounce notifier failed; the report goes out without it"})
		case notice.Action == mail.NoticeRender || notice.Action == mail.NoticeSuppress:
			return notice
		}
	}
	return mail.Notice{Action: mail.NoticeDefault}
}

// report makes the message that the schedule asks for, or nil when a notifier wants none.
func (e *Engine) report(ctx context.Context, r *schedule.Report) (*queue.Message, error) {
	g := e.use()
	defer g.done()
	f := r.Failure(g.cfg.Hostname, g.postmasterFor(r.To))
	n := g.notice(ctx, &f)
	if n.Action == mail.NoticeSuppress {
		return nil, nil
	}
	return r.Write(f, n)
}

// postmasterFor returns who a report to the address comes from: the postmaster of its own domain when that is ours, so
// that an answer finds its way, otherwise our first.
func (g *generation) postmasterFor(to mail.Address) mail.Address {
	if g.isOurs(to.Domain()) {
		if a, err := mail.NewAddress("postmaster", to.Domain()); err == nil {
			return a
		}
	}
	return postmaster(g.cfg)
}

// postmaster is the address of the postmaster of our first domain. It is the null address only if we have no good name,
// which the configuration does not let through.
func postmaster(cfg *config.Config) mail.Address {
	domain := cfg.Hostname
	if len(cfg.Domains) > 0 {
		domain = cfg.Domains[0]
	}
	a, err := mail.NewAddress("postmaster", domain)
	if err != nil {
		return mail.Address{}
	}
	return a
}
