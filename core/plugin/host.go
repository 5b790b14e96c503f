package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Host runs the plugins of one configuration. A reload starts a second Host beside it and then stops the first.
type Host struct {
	plugins []*Plugin
	peers   map[string]*peer // by label; not changed after it was made
}

// Start starts all plugins at once and returns when each is ready for calls. If one of them does not come up, none is left
// running, and the error tells of all that did not.
func Start(ctx context.Context, specs []Spec, o Options) (*Host, error) {
	h := &Host{plugins: make([]*Plugin, len(specs)), peers: map[string]*peer{}}
	for _, s := range specs {
		h.peers[s.Name] = &peer{up: make(chan struct{})}
	}
	errs := make([]error, len(specs))
	var wg sync.WaitGroup
	for i, s := range specs {
		wg.Go(func() {
			self := h.peers[s.Name]
			defer close(self.up)
			p, err := newPlugin(s, o, h)
			if err == nil {
				err = p.begin(ctx)
			}
			if err == nil {
				h.plugins[i], self.p = p, p
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		h.Stop(ctx)
		return nil, err
	}
	return h, nil
}

// Plugin returns the plugin with that label, or nil.
func (h *Host) Plugin(name string) *Plugin {
	for _, p := range h.plugins {
		if p != nil && p.spec.Name == name {
			return p
		}
	}
	return nil
}

// Stop drains and ends all plugins. Calls under way may finish until ctx ends; new ones fail.
func (h *Host) Stop(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range h.plugins {
		if p != nil {
			wg.Go(func() { p.end(ctx) })
		}
	}
	wg.Wait()
}

// Status returns how the plugins are doing, in the order in which they were given to Start.
func (h *Host) Status() []Status {
	out := make([]Status, len(h.plugins))
	for i, p := range h.plugins {
		out[i] = p.Status()
	}
	return out
}

// Description is what a plugin says of itself.
type Description struct {
	Name, Version, Doc string
	SDK                string         // such as "go/1"
	Kinds              []string       // nil when it can't say before it is configured
	Needs              []string       // what it is given of a message at stage message, in words
	Schema             *schema.Schema // of its config block
}

// Describe starts a plugin, asks it what it is, and ends it.
func Describe(ctx context.Context, s Spec) (*Description, error) {
	var d *Description
	err := briefly(ctx, &s, func(_ context.Context, _ *launcher, p *process) (err error) {
		d, err = describe(p)
		return err
	})
	if err != nil {
		return nil, s.fail(err)
	}
	return d, nil
}

func describe(p *process) (*Description, error) {
	a := p.about
	d := &Description{Name: calls.Printable(a.GetName()), Version: calls.Printable(a.GetVersion()), Doc: calls.Printable(a.GetDoc()), SDK: calls.Printable(a.GetSdk())}
	for _, k := range a.GetKinds() {
		d.Kinds = append(d.Kinds, calls.Printable(k.GetName()))
		if k.GetName() == "message" {
			d.Needs = calls.Needs(k)
		}
	}
	if err := json.Unmarshal(a.GetSchemaJson(), &d.Schema); err != nil {
		return nil, fmt.Errorf("its schema can't be read: %w", err)
	}
	return d, nil
}

// Validate starts a plugin, has it check its configuration, and ends it. What it finds wrong is returned with paths into
// the config block; the error is about the plugin itself.
func Validate(ctx context.Context, s Spec) ([]schema.Problem, error) {
	err := briefly(ctx, &s, func(ctx context.Context, l *launcher, p *process) error { return l.configure(ctx, p, true) })
	var wrong *ConfigError
	if errors.As(err, &wrong) {
		return wrong.Problems, nil
	}
	if err != nil {
		return nil, s.fail(err)
	}
	return nil, nil
}

// briefly runs a process for one question.
func briefly(ctx context.Context, s *Spec, ask func(context.Context, *launcher, *process) error) error {
	if s.Dev == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startTimeout)
		defer cancel()
	}
	quiet := *s
	quiet.StateDir = "" // nothing is made for a question
	l, err := newLauncher(&quiet, Options{}, newOutput(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	defer l.close()
	p, err := l.start(ctx)
	if err != nil {
		return err
	}
	defer p.end()
	return ask(ctx, l, p)
}
