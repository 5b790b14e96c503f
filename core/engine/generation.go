package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/pipeline"
	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/core/tlspolicy"
)

// generation is everything that one reading of the configuration made and that a reload replaces as a whole: the plugins'
// processes, the routes and how they deliver, the pipelines. Work that has begun in a generation ends in it.
type generation struct {
	cfg         *config.Config
	events      *event.Bus
	host        *plugin.Host
	routes      route.Table
	pipelines   map[string]*pipeline.Pipeline
	directories map[string]directory // by route
	notifiers   []notifier
	deliverer   *deliver.Deliverer

	refs atomic.Int64 // users, and one for being current
	idle chan struct{}
	once sync.Once
}

// newGeneration starts the plugins of a configuration and builds what stands on them. On an error nothing is left running.
func (e *Engine) newGeneration(ctx context.Context, cfg *config.Config) (*generation, error) {
	g := &generation{
		cfg: cfg, events: e.events, idle: make(chan struct{}),
		pipelines: map[string]*pipeline.Pipeline{}, directories: map[string]directory{},
	}
	g.refs.Store(1)
	resolver, err := dns.New(dns.Options{Servers: cfg.DNS.Servers})
	if err != nil {
		return nil, err
	}
	host, err := plugin.Start(ctx, e.specs(cfg), plugin.Options{
		Events: e.events, Logger: e.options.Logger, Version: e.options.Version, Services: e.services(cfg.Hostname, resolver),
	})
	if err != nil {
		return nil, err
	}
	g.host = host
	if err := g.build(e, resolver); err != nil {
		host.Stop(ctx)
		return nil, err
	}
	return g, nil
}

// build makes the rooms of a generation out of its configuration.
func (g *generation) build(e *Engine, resolver *dns.Client) error {
	for _, p := range g.cfg.Pipelines {
		pipe := g.pipeline(p, g.events)
		if len(e.options.Dev) > 0 {
			pipe.Budget = devBudget
		}
		g.pipelines[p.Name] = pipe
	}
	for _, name := range g.cfg.Bounce.Notify {
		g.notifiers = append(g.notifiers, g.host.Plugin(name))
	}
	ways := map[string]deliver.Way{}
	for _, r := range g.cfg.Routes {
		way, err := g.way(r)
		if err != nil {
			return fmt.Errorf("route %q: %w", r.Name, err)
		}
		ways[r.Name] = way
		g.routes = append(g.routes, g.route(r))
	}
	g.deliverer = deliver.New(deliver.Options{
		Hostname: g.cfg.Hostname, Ways: ways, DNS: resolver, Events: e.events, SelfAddrs: selfAddrs(g.cfg),
	})
	return nil
}

// devBudget is the time for the message stage of a server whose plugins somebody may be stepping through.
const devBudget = 24 * time.Hour

func (g *generation) pipeline(block *config.Pipeline, events *event.Bus) *pipeline.Pipeline {
	p := &pipeline.Pipeline{Name: block.Name, Stages: map[pipeline.Stage][]pipeline.Step{}, Events: events, Budget: block.DataBudget}
	for _, s := range g.cfg.Steps(block.Name) {
		stage := pipeline.Stage(s.Stage)
		step := pipeline.Step{
			Plugin: s.Plugin, Filter: g.host.Plugin(s.Plugin), Timeout: s.Timeout, OnError: pipeline.OnError(s.OnError),
			OnTimeout: pipeline.OnError(s.OnTimeout), OnOverload: pipeline.OnError(s.OnOverload), Group: s.Group, Allow: grants(s.Allow),
		}
		if s.When != nil {
			step.When = condition(s.When)
		}
		p.Stages[stage] = append(p.Stages[stage], step)
	}
	return p
}

// grants keeps apart what allows nothing, and what allows everything because nothing is written.
func grants(names []string) []pipeline.Grant {
	if names == nil {
		return nil
	}
	list := make([]pipeline.Grant, len(names))
	for i, n := range names {
		list[i] = pipeline.Grant(n)
	}
	return list
}

// condition lets a `when` of the configuration be asked with the facts of a pipeline.
func condition(c *config.Condition) func(pipeline.Facts) (bool, error) {
	return func(f pipeline.Facts) (bool, error) { return c.Eval(factsOf(f)) }
}

func factsOf(f pipeline.Facts) config.Facts {
	s := f.Session
	out := config.Facts{
		Authenticated: s.Authenticated(), User: s.User, RemoteIP: s.Remote.Addr(), Helo: s.Helo, TLS: s.TLS != nil,
		Listener: s.Listener, Sender: s.From, Meta: s.Meta,
	}
	if f.Rcpt != nil {
		out.Recipient = f.Rcpt.Address
	}
	if f.Message != nil {
		out.Size, out.Recipients = f.Message.Content.Size(), len(f.Message.Envelope.To)
	}
	return out
}

var kinds = map[string]route.Kind{"store": route.Store, "lmtp": route.LMTP, "smarthost": route.Smarthost, "mx": route.MX, "router": route.Router}

func (g *generation) route(r *config.Route) *route.Route {
	out := &route.Route{Name: r.Name, Kind: kinds[r.Way()], Domains: r.Domains}
	out.Local = out.Kind.Final()
	return out
}

// way says how a route delivers, with the plugins in it.
func (g *generation) way(r *config.Route) (deliver.Way, error) {
	mode, err := tlspolicy.ParseMode(r.TLS)
	if err != nil {
		return deliver.Way{}, err
	}
	w := deliver.Way{
		Kind: r.Way(), TLS: mode, Port: r.Port, User: r.User, Password: string(r.Password),
		AllowLoopback: r.AllowLoopback, SourceIP: r.Source,
	}
	switch w.Kind {
	case deliver.KindStore:
		p := g.host.Plugin(r.Store)
		w.Store = p
		if slices.Contains(p.Kinds(), "directory") {
			g.directories[r.Name] = p
		}
	case deliver.KindLMTP:
		w.Hosts = r.LMTP
	case deliver.KindSmarthost:
		w.Hosts = r.Smarthost
	case deliver.KindRouter:
		w.Router = g.host.Plugin(r.Router)
	}
	for _, name := range r.Convert {
		w.Converters = append(w.Converters, g.converter(name, w.Kind))
	}
	return w, nil
}

// converter returns a converter of a route. A converter is asked about every message, since it may be a signer; our own
// mime converter has nothing to say about one that the next host takes as it is, so that call is saved.
func (g *generation) converter(name, kind string) deliver.Converter {
	p := g.host.Plugin(name)
	if g.cfg.Plugin(name).Builtin() == "mime" && kind != deliver.KindStore {
		return deliver.WhenNeeded(p)
	}
	return p
}

// selfAddrs are the addresses of our own SMTP listeners: mail never goes to them.
func selfAddrs(cfg *config.Config) []netip.AddrPort {
	var list []netip.AddrPort
	for _, l := range cfg.Listeners {
		for _, a := range l.Address {
			if ap, err := netip.ParseAddrPort(a); err == nil {
				list = append(list, ap)
			}
		}
	}
	return list
}

// done ends one use of the generation.
func (g *generation) done() {
	if g.refs.Add(-1) == 0 {
		g.once.Do(func() { close(g.idle) })
	}
}

// use returns the current generation; its user calls done.
func (e *Engine) use() *generation {
	for {
		g := e.current.Load()
		g.refs.Add(1)
		if e.current.Load() == g {
			return g
		}
		g.done() // a reload came in between; the count may have ended already
	}
}

// retire waits until nobody uses the generation, or until ctx ends, and stops its plugins.
func (g *generation) retire(ctx context.Context) {
	g.done()
	select {
	case <-g.idle:
	case <-ctx.Done():
	}
	g.deliverer.Close(ctx)
	g.host.Stop(ctx)
}
