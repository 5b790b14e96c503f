package config

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"

	"github.com/pabal-mta/mta/sdk/schema"
)

// atOnce bounds how many plugins are started at a time to be asked.
const atOnce = 4

// plugins asks every plugin what it is, decodes its config block with what it said, and checks where it is used.
func (d *decoder) plugins(ctx context.Context) {
	for _, p := range d.cfg.Plugins {
		d.checkSource(p)
	}
	if d.options.Describe == nil || d.options.Offline {
		d.undecoded()
		return
	}
	described := make([]*Description, len(d.cfg.Plugins))
	errs := d.ask(func(i int, p *Plugin) (err error) {
		described[i], err = d.options.Describe(ctx, p)
		return err
	})
	for i, p := range d.cfg.Plugins {
		switch {
		case p.Source == "" || d.unpinned(p):
		case errs[i] != nil:
			d.pluginError(p, errs[i])
		case described[i] != nil:
			d.describe(p, described[i])
		}
	}
	d.validate(ctx)
}

// ask calls f for every plugin that can be started, some at a time.
func (d *decoder) ask(f func(int, *Plugin) error) []error {
	errs := make([]error, len(d.cfg.Plugins))
	tickets := make(chan struct{}, atOnce)
	var wait sync.WaitGroup
	for i, p := range d.cfg.Plugins {
		if p.Source == "" || d.unpinned(p) {
			continue
		}
		wait.Go(func() {
			tickets <- struct{}{}
			defer func() { <-tickets }()
			errs[i] = f(i, p)
		})
	}
	wait.Wait()
	return errs
}

// pluginError tells what went wrong with a plugin.
func (d *decoder) pluginError(p *Plugin, err error) {
	text := strings.TrimSpace(err.Error())
	if prefix := fmt.Sprintf("plugin %q", p.Name); !strings.HasPrefix(text, prefix) {
		text = prefix + ": " + text
	}
	summary, detail, _ := strings.Cut(text, "\n")
	g := Diagnostic{Summary: summary, Detail: detail}
	g.at(d.cfg.places.at(p, "source"))
	d.report(g)
}

func (d *decoder) describe(p *Plugin, desc *Description) {
	p.Version, p.Kinds = desc.Version, slices.Clone(desc.Kinds)
	s := d.settings(p, desc.Schema)
	p.settings = s
	p.Config = s.json()
}

// undecoded reads config blocks without a schema: only the names in their expressions are checked.
func (d *decoder) undecoded() {
	for _, p := range d.cfg.Plugins {
		if in := d.bodies[p]; in != nil {
			d.looseBody(in.Body)
		}
	}
}

// validate gives each plugin its configuration, for what a schema can't say.
func (d *decoder) validate(ctx context.Context) {
	if d.options.Validate == nil || d.diags.HasErrors() {
		return
	}
	found := make([][]schema.Problem, len(d.cfg.Plugins))
	errs := d.ask(func(i int, p *Plugin) (err error) {
		found[i], err = d.options.Validate(ctx, p)
		return err
	})
	for i, p := range d.cfg.Plugins {
		if errs[i] != nil {
			d.pluginError(p, errs[i])
		}
		for _, x := range found[i] {
			d.problem(p, x)
		}
	}
}

// checkSource checks that a plugin of ours is known, and that any other is pinned.
func (d *decoder) checkSource(p *Plugin) {
	at := d.cfg.places.at(p, "source")
	name, builtin := cutBuiltin(p.Source)
	pinned := d.cfg.places.written(p, "sha256")
	switch {
	case p.Source == "":
	case builtin && d.options.Builtins != nil && !slices.Contains(d.options.Builtins, name):
		hint := ""
		if suggest(name, d.options.Builtins) == "" {
			hint = "built in: " + strings.Join(d.options.Builtins, ", ")
		}
		d.hintAt(at, hint, "there is no built-in plugin %q%s", name, meant(name, d.options.Builtins))
	case builtin && pinned:
		d.errorAt(d.cfg.places[key{p, "sha256"}].def, "a built-in plugin is part of this program; it has no sha256")
	case !builtin && !pinned && !d.mayBeUnpinned(p):
		d.hintAt(at, "mta plugin pin "+p.Name, "plugin %q has no sha256: what runs has to be what was checked", p.Name)
	}
}

// unpinned reports a program that must not be started yet.
func (d *decoder) unpinned(p *Plugin) bool {
	_, builtin := cutBuiltin(p.Source)
	return !builtin && p.SHA256 == "" && !d.mayBeUnpinned(p)
}

func (d *decoder) mayBeUnpinned(p *Plugin) bool {
	return d.options.Unpinned || slices.Contains(d.options.ByHand, p.Name)
}

// checkUses compares what each plugin is with what the places that name it want.
func (d *decoder) checkUses() {
	for _, u := range d.uses {
		p := d.cfg.Plugin(u.plugin)
		if p == nil {
			continue
		}
		if p.Kinds != nil {
			d.checkKind(p, u)
		}
		if must := mustAnswer(u.wants); must != "" && p.OnError == "accept" {
			d.errorAt(d.cfg.places.at(p, "on_error"), `on_error = "accept" can't be: %s uses plugin %q, and %s`, u.path, p.Name, must)
		}
	}
}

// mustAnswer tells why a plugin that failed can't be passed over, or "" where it can.
func mustAnswer(wants string) string {
	switch wants {
	case "authenticator":
		return "a login is never accepted unasked"
	case "store":
		return "mail that was not stored is not delivered"
	case "router":
		return "mail without a next host can't be sent"
	case "converter":
		return "mail that was not converted can't be sent"
	default:
		return ""
	}
}

// checkAuth refuses plugins that would ask each other in a circle whether a login is right.
func (d *decoder) checkAuth() {
	for _, p := range d.cfg.Plugins {
		way := p.Name
		next := d.cfg.Plugin(p.Auth)
		for range d.cfg.Plugins {
			if next == nil {
				break
			}
			way += " asks " + next.Name
			if next == p {
				d.errorAt(d.cfg.places.at(p, "auth"), "plugin %q would ask itself whether a login is right (%s)", p.Name, way)
				return // once for a circle
			}
			next = d.cfg.Plugin(next.Auth)
		}
	}
}

// checkKind compares the kinds of mta.plugin.v1: authenticator, store, directory, converter, bounce, router, observer, and each stage.
func (d *decoder) checkKind(p *Plugin, u use) {
	if u.wants != "filter" {
		if !slices.ContainsFunc(p.Kinds, func(k string) bool { return kindName(k) == u.wants }) {
			d.errorAt(u.at, "plugin %q is %s; %s wants %s", p.Name, kindWords(p.Kinds), u.path, article(u.wants))
		}
		return
	}
	stages := slices.DeleteFunc(slices.Clone(p.Kinds), func(k string) bool { return stageLetters[k] == "" })
	switch {
	case slices.Contains(stages, u.stage):
	case len(stages) == 0:
		d.errorAt(u.at, "plugin %q is %s; on %q wants a filter", p.Name, kindWords(p.Kinds), u.stage)
	default:
		d.errorAt(u.at, "plugin %q does not answer at stage %q; it answers at %s", p.Name, u.stage, quoteAll(stages, ", "))
	}
}

// kindName is a kind in words.
func kindName(kind string) string {
	switch {
	case kind == "bounce":
		return "bounce notifier"
	case stageLetters[kind] != "":
		return kind + " filter"
	default:
		return kind
	}
}

// kindWords is "a store", "a store and a directory".
func kindWords(kinds []string) string {
	if len(kinds) == 0 {
		return "of no kind"
	}
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = article(kindName(k))
	}
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// problem finds the place of what a plugin said of its own configuration.
func (d *decoder) problem(p *Plugin, x schema.Problem) {
	g := Diagnostic{Summary: fmt.Sprintf("plugin %q: %s", p.Name, x.Summary), Detail: x.Detail}
	at, ok := p.settings.at(x.Path)
	if !ok {
		at = d.headOf(p)
	}
	g.at(at)
	d.report(g)
}

// headOf is the head of a plugin's config block, or of the plugin where it has none.
func (d *decoder) headOf(p *Plugin) hcl.Range {
	if in := d.bodies[p]; in != nil {
		return in.DefRange()
	}
	return d.cfg.places.at(p, "")
}
