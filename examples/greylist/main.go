// Greylist is a plugin that asks strangers to come again: the first time that a network sends from an address to another,
// it is answered 451, and taken when it tries again after a while, as every mail server does and many a spam sender does
// not. Who has come back a few times is known and waits no more.
//
// What it remembers lies in the server's store for plugins (sdk.KV), so that it survives restarts and needs no database.
// Two processes of the plugin may run at once: each decision is one step of the store.
//
// In mta.hcl:
//
//	plugin "greylist" {
//	  source   = "/usr/lib/mta/plugins/greylist"
//	  on_error = "accept" # while the store is in trouble, mail goes on
//	  config {
//	    delay    = "5m"
//	    networks = ["192.0.2.0/24"]
//	  }
//	}
//
//	pipeline "inbound" {
//	  on "rcpt" { use = [plugin.greylist] }
//	}
//
// At /metrics: mta_plugin_greylist_delayed_total, _returned_total and _known_total.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Config is the plugin's block of mta.hcl.
type Config struct {
	Delay      time.Duration  `mta:"delay,optional" default:"5m" doc:"how long a stranger has to wait"`
	Window     time.Duration  `mta:"window,optional" default:"48h" doc:"how long we wait for a stranger to come again"`
	Keep       time.Duration  `mta:"keep,optional" default:"840h" doc:"how long who came again is remembered after its last message"`
	TrustAfter int            `mta:"trust_after,optional" default:"5" doc:"a network from which so many senders came again waits no more; 0 is never"`
	Networks   []netip.Prefix `mta:"networks,optional" doc:"networks that never wait"`
}

// Check finds what the types alone can't.
func (c *Config) Check() []schema.Problem {
	var problems []schema.Problem
	if c.Delay <= 0 {
		problems = append(problems, schema.Problem{Path: []string{"delay"}, Summary: "has to be longer than 0"})
	}
	if c.Window <= c.Delay {
		problems = append(problems, schema.Problem{Path: []string{"window"}, Summary: "has to be longer than delay: nobody could come again in time"})
	}
	if c.Keep <= 0 {
		problems = append(problems, schema.Problem{Path: []string{"keep"}, Summary: "has to be longer than 0"})
	}
	return problems
}

var _ sdk.RcptFilter = (*Greylist)(nil)

// Greylist is the filter.
type Greylist struct {
	cfg  Config
	host sdk.Host
}

func newGreylist(_ context.Context, c Config, h sdk.Host) (any, error) {
	return &Greylist{c, h}, nil
}

// Rcpt asks a stranger to come again.
func (g *Greylist) Rcpt(ctx context.Context, s *mail.Session, r mail.Recipient) (mail.Verdict, error) {
	ip := s.Remote.Addr().Unmap()
	if s.Authenticated() || !ip.IsValid() || g.exempt(ip) {
		return mail.Continue(), nil
	}
	network := networkOf(ip)
	trusted, err := g.trusted(ctx, network)
	if err != nil {
		return mail.Verdict{}, err
	}
	if trusted {
		g.host.Metrics().Count("known_total", 1)
		return mail.Continue(), nil
	}
	return g.meet(ctx, network, tripleOf(network, s.From, r.Address))
}

// What is stored of a triple: when it was first seen, in milliseconds since 1970, or that it came again.
const returned = "returned"

// meet decides about a network, sender and recipient.
func (g *Greylist) meet(ctx context.Context, network, triple string) (mail.Verdict, error) {
	kv := g.host.KV()
	now := time.Now()
	isNew, err := kv.CompareAndSet(ctx, triple, nil, strconv.AppendInt(nil, now.UnixMilli(), 10), g.cfg.Window)
	if err != nil {
		return mail.Verdict{}, err
	}
	if isNew {
		return g.later(g.cfg.Delay), nil
	}
	seen, found, err := kv.Get(ctx, triple)
	switch {
	case err != nil:
		return mail.Verdict{}, err
	case !found: // it expired at this very moment
		return g.later(g.cfg.Delay), nil
	case string(seen) == returned:
		g.host.Metrics().Count("known_total", 1)
		return mail.Continue(), kv.Set(ctx, triple, []byte(returned), g.cfg.Keep)
	}
	first, err := strconv.ParseInt(string(seen), 10, 64)
	if err != nil {
		return mail.Verdict{}, fmt.Errorf("the store holds %q: %w", seen, err)
	}
	if wait := time.UnixMilli(first).Add(g.cfg.Delay).Sub(now); wait > 0 {
		return g.later(wait), nil
	}
	return mail.Continue(), g.welcome(ctx, network, triple, seen)
}

// welcome remembers who came again; of two that come at once, one is counted.
func (g *Greylist) welcome(ctx context.Context, network, triple string, seen []byte) error {
	first, err := g.host.KV().CompareAndSet(ctx, triple, seen, []byte(returned), g.cfg.Keep)
	if err != nil || !first {
		return err
	}
	g.host.Metrics().Count("returned_total", 1)
	_, err = g.host.KV().Incr(ctx, network, 1, g.cfg.Keep)
	return err
}

func (g *Greylist) later(wait time.Duration) mail.Verdict {
	g.host.Metrics().Count("delayed_total", 1)
	return mail.TempFail(451, "4.7.1", "greylisted: come again in %d seconds", int((wait+time.Second-1)/time.Second))
}

// trusted reports whether enough senders of a network came again.
func (g *Greylist) trusted(ctx context.Context, network string) (bool, error) {
	if g.cfg.TrustAfter <= 0 {
		return false, nil
	}
	v, found, err := g.host.KV().Get(ctx, network)
	if err != nil || !found {
		return false, err
	}
	n, err := strconv.Atoi(string(v))
	return n >= g.cfg.TrustAfter, err
}

func (g *Greylist) exempt(ip netip.Addr) bool {
	for _, p := range g.cfg.Networks {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// networkOf is the key of the network that an address is in: a big sender tries again from a neighbour.
func networkOf(ip netip.Addr) string {
	bits := 24
	if ip.Is6() {
		bits = 64
	}
	return "network " + netip.PrefixFrom(ip, bits).Masked().String()
}

// tripleOf is the key of a network, sender and recipient. Addresses may be longer than a key, so they are hashed.
func tripleOf(network string, from, to mail.Address) string {
	sum := sha256.Sum256([]byte(strings.ToLower(network + "\n" + from.String() + "\n" + to.String())))
	return "triple " + hex.EncodeToString(sum[:])
}

func plugin() sdk.Plugin[Config] {
	return sdk.Plugin[Config]{
		Name: "greylist", Version: "0.1.0", Doc: "asks strangers to come again", Kinds: (*Greylist)(nil), New: newGreylist,
	}
}

func main() { sdk.Serve(plugin()) }
