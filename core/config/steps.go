package config

import (
	"cmp"
	"slices"
	"time"
)

// Step is one plugin asked at one stage, everything resolved.
type Step struct {
	Stage      string
	Plugin     string
	When       *Condition // nil: always
	Timeout    time.Duration
	OnError    string
	OnTimeout  string
	OnOverload string
	Group      int      // not 0: asked together with the steps beside it of the same group
	Allow      []string // nil: everything
}

// Steps returns the steps of a pipeline in the order written; none for a name that is no pipeline.
func (c *Config) Steps(pipeline string) []Step {
	var steps []Step
	for _, p := range c.Pipelines {
		if p.Name != pipeline {
			continue
		}
		for i, on := range p.On {
			for _, name := range on.Use {
				step := c.step(on, c.Plugin(name))
				if on.Parallel {
					step.Group = i + 1
				}
				steps = append(steps, step)
			}
		}
	}
	return steps
}

// step takes what the block says, then what the plugin says, then the default of the stage.
func (c *Config) step(on *On, p *Plugin) Step {
	s := Step{Stage: on.Stage, Plugin: p.Name, When: on.When, Timeout: on.Timeout, OnError: on.OnError, Allow: on.Allow}
	if s.Timeout == 0 {
		s.Timeout = p.Timeout
	}
	if s.Timeout == 0 {
		s.Timeout = 5 * time.Second
		if on.Stage == "message" {
			s.Timeout = time.Minute
		}
	}
	s.OnError = cmp.Or(on.OnError, p.OnError)
	s.OnTimeout, s.OnOverload = cmp.Or(on.OnTimeout, s.OnError), cmp.Or(on.OnOverload, s.OnError)
	return s
}

// checkPipelines finds what is written in a pipeline and can't come to anything.
func (d *decoder) checkPipelines() {
	for _, p := range d.cfg.Pipelines {
		for _, on := range p.On {
			d.checkOn(on)
		}
		d.checkBudget(p)
	}
	d.checkUnasked()
}

func (d *decoder) checkOn(on *On) {
	ps := d.cfg.places
	if on.Parallel && len(on.Use) == 1 {
		d.warnAt(ps.at(on, "parallel"), "parallel does nothing: plugin %q is the only one here", on.Use[0])
	}
	for _, key := range []string{"on_error", "on_timeout", "on_overload"} {
		value := map[string]string{"on_error": on.OnError, "on_timeout": on.OnTimeout, "on_overload": on.OnOverload}[key]
		if value == "quarantine" && (on.Stage == "connect" || on.Stage == "helo") {
			d.errorAt(ps.at(on, key), `%s = "quarantine" can't be at stage %q: there is no message to hold`, key, on.Stage)
		}
	}
}

// checkBudget compares the time-outs of the stage message with what they have all together.
func (d *decoder) checkBudget(p *Pipeline) {
	var sum, longest time.Duration // longest of the group under way
	group := 0
	for _, s := range d.cfg.Steps(p.Name) {
		if s.Stage != "message" {
			continue
		}
		if s.Group == 0 || s.Group != group {
			sum, longest = sum+longest, 0
		}
		group, longest = s.Group, max(longest, s.Timeout)
	}
	if sum += longest; sum > p.DataBudget {
		d.warnAt(d.cfg.places.at(p, "data_budget"), "pipeline %q: the time-outs of stage \"message\" are %s together; after %s (data_budget) a message is put off whatever the steps say",
			p.Name, durationText(sum), durationText(p.DataBudget))
	}
}

// checkUnasked warns of a filter that answers at a stage at which no pipeline asks it.
func (d *decoder) checkUnasked() {
	asked := map[string][]string{}
	for _, u := range d.uses {
		if u.wants == "filter" {
			asked[u.plugin] = append(asked[u.plugin], u.stage)
		}
	}
	for _, p := range d.cfg.Plugins {
		for _, stage := range []string{"connect", "helo", "mail", "rcpt", "message"} {
			if asked[p.Name] != nil && slices.Contains(p.Kinds, stage) && !slices.Contains(asked[p.Name], stage) {
				d.warnAt(d.cfg.places.at(p, ""), "plugin %q answers at stage %q too, and no pipeline asks it there", p.Name, stage)
			}
		}
	}
}

// checkPlugin finds what is right key by key and wrong together.
func (d *decoder) checkPlugin(p *Plugin) {
	ps := d.cfg.places
	if p.Limits.PIDs > 0 && p.User == "" {
		d.hintAt(ps.at(&p.Limits, "pids"), `user = "mta-`+p.Name+`"`, "limits.pids counts all that its user runs, so plugin %q needs a user of its own", p.Name)
	}
	if r := &p.Restart; r.Min > r.Max {
		d.errorAt(ps.orAt(r, "min", 0, "max"), "restart.min (%s) is longer than restart.max (%s)", durationText(r.Min), durationText(r.Max))
	}
}
