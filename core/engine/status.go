package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/archive"
	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/retry"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/core/schedule"
	"github.com/pabal-mta/mta/sdk/mail"
)

// topSites is how many destinations the status names.
const topSites = 20

func (e *Engine) openSchedule(ctx context.Context, cfg *config.Config) error {
	policy, limits := scheduleSettings(cfg)
	e.schedule = schedule.New(schedule.Options{
		Queue: e.queue, Routes: func() route.Table { return e.current.Load().routes }, Deliver: attempter{e},
		Retry: policy, Limits: limits, Hosts: e.hosts, Events: e.events, Hostname: cfg.Hostname, Postmaster: postmaster(cfg), Bounce: e.report,
	})
	suspended, err := openSuspensions(cfg.DataDir)
	if err != nil {
		return err
	}
	e.suspended = suspended
	e.schedule.Suspend(suspended.all())
	e.pressure = &pressure{room: e.queue.HasRoom, lag: e.schedule.Pressure, tell: e.events.Emit}
	e.intake.Lock()
	defer e.intake.Unlock()
	if err := e.schedule.Start(ctx); err != nil {
		return err
	}
	e.intake.begin(e.schedule.Offer)
	return nil
}

// scheduleSettings is the part of the schedule that a reload may change.
func scheduleSettings(cfg *config.Config) (retry.Policy, schedule.Limits) {
	q := cfg.Queue
	limits := schedule.Limits{SiteConnections: q.Connections}
	for _, d := range q.Destinations {
		limits.Destinations = append(limits.Destinations, schedule.Destination{
			Name: d.Name, Hosts: d.MX, Connections: d.Connections, Count: d.Rate.Count, Per: d.Rate.Per,
		})
	}
	return retry.Policy{Delays: q.Retry, Jitter: q.Jitter, WarnAfter: q.WarnAfter, Expire: q.Expire}, limits
}

// hosts says for the schedule where mail goes, by the routes that are in force.
func (e *Engine) hosts(ctx context.Context, route, domain string) ([]string, error) {
	g := e.use()
	defer g.done()
	return g.deliverer.Hosts(ctx, route, domain)
}

// attempter lets each attempt be made by the generation that is current when it begins.
type attempter struct{ e *Engine }

// Attempt implements schedule.Deliverer.
func (a attempter) Attempt(ctx context.Context, job *deliver.Job) []deliver.Outcome {
	g := a.e.use()
	defer g.done()
	outcomes := g.deliverer.Attempt(ctx, job)
	if reason := a.e.suspects.note(job.ID, outcomes); reason != "" && ctx.Err() == nil {
		a.e.hold(job.ID, reason)
	}
	return outcomes
}

// hold holds a message whose attempt is just ending.
func (e *Engine) hold(name, reason string) {
	id, err := queue.ParseID(name)
	if err == nil {
		_, err = e.schedule.Hold([]queue.ID{id}, reason)
	}
	e.warnOn(err, "a message could not be held: "+reason)
}

// Status implements admin.Server.
func (e *Engine) Status() admin.Status {
	g := e.use()
	defer g.done()
	s := admin.Status{
		Version: e.options.Version, Hostname: g.cfg.Hostname, PID: os.Getpid(), Started: e.started,
		Config: e.options.ConfigPath, Loaded: *e.loaded.Load(), Ready: "ok", Plugins: pluginStatus(g.host.Status(), e.observed.lost),
	}
	if err := e.Ready(); err != nil {
		s.Ready = err.Error()
	}
	stored, planned := e.queue.Stats(), e.schedule.Stats(topSites)
	s.Queue = admin.QueueStatus{
		Waiting: planned.Waiting + planned.Ready, Active: planned.Leased, Held: planned.Held, FreeDisk: stored.Free, Full: stored.Full,
		Damaged: stored.Damaged, Missing: stored.Missing, Problems: e.queue.Problems(),
	}
	s.Queue.Refusing, s.Queue.RefusingSince, s.Queue.Lag = e.pressure.state()
	for _, x := range e.suspended.all() {
		s.Suspended = append(s.Suspended, e.suspension(x))
	}
	for _, site := range planned.Top {
		s.Sites = append(s.Sites, siteStatus(site))
	}
	for _, l := range e.served() {
		s.Listeners = append(s.Listeners, admin.ListenerStatus{Name: l.block.Name, Address: l.block.Address, Sessions: l.server.Sessions()})
	}
	return s
}

func siteStatus(s schedule.SiteStats) admin.SiteStatus {
	name := s.Route
	if s.Domain != "" {
		name = s.Domain + " (" + s.Route + ")"
	}
	out := admin.SiteStatus{Name: name, Waiting: s.Messages, Active: s.Active, SlowStart: s.Ramp}
	if s.Suspended != nil {
		out.Suspended = whyOf(s.Suspended)
	}
	if s.Failures > 0 {
		out.FailingSince, out.LastReply, out.NextTry = s.Since, s.LastReply, s.Next
	}
	return out
}

func pluginStatus(list []plugin.Status, lost func(label string) uint64) []admin.PluginStatus {
	out := make([]admin.PluginStatus, len(list))
	for i, p := range list {
		out[i] = admin.PluginStatus{
			Name: p.Name, Source: p.Source, Version: p.Version, Kinds: p.Kinds, State: stateOf(p), PID: p.PID, Since: p.Since,
			Restarts: p.Restarts, Calls: p.Calls, Errors: p.Errors, Problem: p.Error, EventsLost: lost(p.Name),
			SHA256: p.SHA256, PIDs: p.PIDs, Breaker: p.Breaker, Waiting: p.Waiting, Queued: p.Queued, Refused: p.Refused,
			Next: p.Next, InForce: p.InForce,
		}
	}
	return out
}

// healthy is the state of a plugin that is as it should be.
const healthy = "healthy"

// stateOf is a plugin's state in one word: that of its process, or that calls to it fail at once for a while.
func stateOf(p plugin.Status) string {
	switch {
	case p.State != "up":
		return p.State
	case p.Breaker == "open":
		return "failing"
	default:
		return healthy
	}
}

// Ready implements admin.Server: the listeners are open (they open last), the queue takes mail, and every plugin is up.
func (e *Engine) Ready() error {
	if e.open.Load() == nil {
		return errors.New("starting")
	}
	g := e.use()
	defer g.done()
	var errs []error
	if reason, _, _ := e.pressure.state(); reason != "" {
		errs = append(errs, errors.New(reason))
	}
	for _, p := range g.host.Status() {
		if state := stateOf(p); state != healthy {
			errs = append(errs, fmt.Errorf("plugin %q is %s", p.Name, state))
		}
	}
	return errors.Join(errs...)
}

// List implements admin.Server.
func (e *Engine) List(ctx context.Context, f queue.Filter, fn func(admin.Listed) error) error {
	return e.queue.ListSome(ctx, f, func(some []*queue.Record) error {
		suspended := e.schedule.Due(some) // the record is not written for each message of a dead site
		for i, rec := range some {
			l := admin.Listed{Record: rec}
			if x := cmp.Or(suspended[i], e.suspended.ofSender(rec)); x != nil {
				l.Suspended = whyOf(x)
			}
			if err := fn(l); err != nil {
				return err
			}
		}
		return nil
	})
}

// Content implements admin.Server.
func (e *Engine) Content(id queue.ID) (*queue.Record, mail.Content, error) { return e.queue.Load(id) }

// Envelope implements admin.Server.
func (e *Engine) Envelope(id queue.ID) (archive.Envelope, error) {
	rec, err := e.queue.Record(id)
	if err != nil {
		return archive.Envelope{}, err
	}
	return archive.Of(rec, e.queue.Name()), nil
}

// Check implements admin.Server.
func (e *Engine) Check(ctx context.Context, fn func(*queue.Record, error) error) (queue.Checked, error) {
	return e.queue.Check(ctx, fn)
}

// Restore implements admin.Server.
func (e *Engine) Restore(ctx context.Context, from string, rec *queue.Record, c mail.Content, lost bool) (*queue.Record, error) {
	rec, err := e.queue.Restore(ctx, from, rec, c, lost)
	if err == nil {
		e.events.Emit(event.Event{
			Name: event.MessageQueued, ID: rec.ID.String(), From: rec.Envelope.From.String(), Count: len(rec.Recipients), Size: rec.Size, Reason: "imported",
		})
		e.schedule.Offer(rec, nil)
	}
	return rec, err
}

// Act implements admin.Server.
func (e *Engine) Act(_ context.Context, verb admin.Verb, ids []queue.ID, reason string) (int, error) {
	reason = strings.TrimSpace(reason)
	switch verb {
	case admin.Retry:
		return e.schedule.Retry(ids)
	case admin.Hold:
		return e.schedule.Hold(ids, reason)
	case admin.Release:
		return e.schedule.Release(ids)
	case admin.Bounce:
		return e.schedule.Bounce(ids, reason)
	case admin.Delete:
		return e.schedule.Delete(ids)
	}
	return 0, fmt.Errorf("there is no verb %q", verb)
}

// served is the listeners; none while the server starts.
func (e *Engine) served() []*listening {
	if list := e.open.Load(); list != nil {
		return *list
	}
	return nil
}

// byName sorts what is being served, so that every status looks alike.
func byName(m map[string]*listening) *[]*listening {
	list := make([]*listening, 0, len(m))
	for _, l := range m {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b *listening) int { return strings.Compare(a.block.Name, b.block.Name) })
	return &list
}

var _ admin.Server = (*Engine)(nil)

// warnOn tells what went wrong where nobody waits for the answer.
func (e *Engine) warnOn(err error, reason string) {
	if err != nil {
		e.events.Emit(event.Event{Name: event.Warning, Err: err, Reason: reason})
	}
}
