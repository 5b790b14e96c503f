// Bysender is a plugin that picks the next host by who sends: mail of one brand goes out through its own provider, with
// that provider's login, and everybody else's straight to the hosts of the recipient.
//
// The plugin never sees a password. It answers with the name of a route of mta.hcl, and the server goes the way of that
// route. Mail whose sender is in no rule, and reports, which have no sender, go the default way.
//
// In mta.hcl:
//
//	plugin "bysender" {
//	  source = "/usr/lib/mta/plugins/bysender"
//	  config {
//	    default = "mx" # or host:port, or the name of a route
//	    rule {
//	      senders = ["shop.example", "news@example.com"]
//	      to      = "provider"
//	    }
//	  }
//	}
//
//	route "provider" { # its way is taken where the plugin names it, and by no recipient of its own
//	  domains   = []
//	  smarthost = "smtp.provider.example:587"
//	  tls       = "verify"
//	  user      = "shop"
//	  password  = env("PROVIDER_PASSWORD")
//	}
//
//	route "out" {
//	  router = plugin.bysender
//	}
package main

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Config is the plugin's block of mta.hcl.
type Config struct {
	Default string `mta:"default,optional" default:"mx" doc:"where mail of all other senders goes: mx, host:port, or the name of a route"`
	Rules   []Rule `mta:"rule,block" doc:"who goes elsewhere; the first that fits counts"`
}

// Rule says where mail of some senders goes.
type Rule struct {
	Senders []string `mta:"senders" doc:"addresses, or domains"`
	To      string   `mta:"to" doc:"mx, host:port, or the name of a route"`
}

// Check finds what the types alone can't.
func (c *Config) Check() (problems []schema.Problem) {
	wrong := func(err error, path ...string) {
		if err != nil {
			problems = append(problems, schema.Problem{Path: path, Summary: err.Error()})
		}
	}
	wrong(hop(c.Default).Check(), "default")
	for i, r := range c.Rules {
		at := strconv.Itoa(i)
		wrong(hop(r.To).Check(), "rule", at, "to")
		for j, s := range r.Senders {
			_, err := canonical(s)
			wrong(err, "rule", at, "senders", strconv.Itoa(j))
		}
	}
	return problems
}

// hop reads where a rule leads.
func hop(to string) mail.Hop {
	switch {
	case to == "mx":
		return mail.Hop{MX: true}
	case strings.ContainsAny(to, ":."):
		return mail.Hop{Hosts: []string{to}}
	}
	return mail.Hop{Route: to}
}

// canonical is a sender as it is compared: an address, or a domain.
func canonical(s string) (string, error) {
	if !strings.Contains(s, "@") {
		return mail.ParseDomain(s)
	}
	a, err := mail.ParseAddress(s)
	return a.String(), err
}

var _ sdk.Router = (*BySender)(nil)

// BySender is the router.
type BySender struct {
	byDefault mail.Hop
	rules     []Rule // canonical
}

func newBySender(_ context.Context, c Config, _ sdk.Host) (any, error) {
	for i := range c.Rules {
		for j, s := range c.Rules[i].Senders {
			c.Rules[i].Senders[j], _ = canonical(s) // Check has looked at it
		}
	}
	return &BySender{hop(c.Default), c.Rules}, nil
}

// Route gives all recipients of a message the hop of its sender.
func (b *BySender) Route(_ context.Context, r *mail.Routing) ([]mail.Hop, error) {
	return slices.Repeat([]mail.Hop{b.of(r.Envelope.From)}, len(r.Envelope.To)), nil
}

func (b *BySender) of(from mail.Address) mail.Hop {
	for _, r := range b.rules {
		if !from.IsNull() && (slices.Contains(r.Senders, from.String()) || slices.Contains(r.Senders, from.Domain())) {
			return hop(r.To)
		}
	}
	return b.byDefault
}

func plugin() sdk.Plugin[Config] {
	return sdk.Plugin[Config]{
		Name: "bysender", Version: "0.1.0", Doc: "picks the next host by who sends", Kinds: (*BySender)(nil), New: newBySender,
	}
}

func main() { sdk.Serve(plugin()) }
