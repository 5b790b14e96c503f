package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/core/kv"
	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// services is what the server does for one plugin. What must outlive a reload is in the engine; the DNS is that of the
// generation.
type services struct {
	engine   *Engine
	label    string
	hostname string
	resolver *dns.Client
}

// services returns what is done for the plugins of a generation.
func (e *Engine) services(hostname string, resolver *dns.Client) func(label string) plugin.Services {
	return func(label string) plugin.Services { return &services{e, label, hostname, resolver} }
}

// Authenticate is done by the room of the plugins, which knows whom to ask.
func (s *services) Authenticate(context.Context, mail.Login) (mail.Identity, error) {
	return mail.Identity{}, sdk.ErrNotProvided
}

// kvError tells a plugin what kind of failure it was.
func kvError(err error) error {
	switch {
	case errors.Is(err, kv.ErrFull):
		return fmt.Errorf("%w: %w", sdk.ErrExhausted, err)
	case errors.Is(err, kv.ErrNotNumber):
		return fmt.Errorf("%w: %w", sdk.ErrLimit, err)
	}
	return err
}

func (s *services) Get(ctx context.Context, key string) ([]byte, bool, error) {
	v, found, err := s.engine.kv.Get(ctx, s.label, key)
	return v, found, kvError(err)
}

func (s *services) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return kvError(s.engine.kv.Set(ctx, s.label, key, value, ttl))
}

func (s *services) Delete(ctx context.Context, key string) error {
	return kvError(s.engine.kv.Delete(ctx, s.label, key))
}

func (s *services) Incr(ctx context.Context, key string, by int64, ttl time.Duration) (int64, error) {
	n, err := s.engine.kv.Incr(ctx, s.label, key, by, ttl)
	return n, kvError(err)
}

func (s *services) CompareAndSet(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	ok, err := s.engine.kv.CompareAndSet(ctx, s.label, key, old, new, ttl)
	return ok, kvError(err)
}

// dnsError tells what is not there from what could not be asked.
func dnsError(err error) error {
	var e *dns.Error
	if errors.As(err, &e) && e.Kind != dns.Temporary {
		return fmt.Errorf("%w: %w", sdk.ErrNotFound, err)
	}
	return err
}

func (s *services) MX(ctx context.Context, domain string) ([]mail.MX, error) {
	hosts, err := s.resolver.MX(ctx, domain)
	list := make([]mail.MX, len(hosts))
	for i, h := range hosts {
		list[i] = mail.MX{Host: h.Name, Pref: h.Pref}
	}
	return list, dnsError(err)
}

func (s *services) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	list, err := s.resolver.Addresses(ctx, host)
	return list, dnsError(err)
}

func (s *services) TXT(ctx context.Context, name string) ([]string, error) {
	list, _, err := s.resolver.TXT(ctx, name)
	return list, dnsError(err)
}

func (s *services) Report(_ context.Context, samples []plugin.Sample) error {
	for _, x := range samples {
		if err := s.engine.metrics.Plugin(s.label, x.Name, x.Gauge, x.Value); err != nil {
			return fmt.Errorf("%w: %w", sdk.ErrLimit, err)
		}
	}
	return nil
}

// How many messages one plugin may submit: so many a second, and so many at once after a pause.
const (
	submitRate  = 10
	submitBurst = 50
)

// buckets holds each plugin to its rate, across reloads.
type buckets struct {
	mu   sync.Mutex
	full map[string]time.Time // when the plugin's bucket is full again
}

// take takes one from a plugin's bucket, or reports that it is empty.
func (b *buckets) take(label string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	full := b.full[label]
	if full.Before(now) {
		full = now
	}
	full = full.Add(time.Second / submitRate)
	if full.Sub(now) > submitBurst*time.Second/submitRate {
		return false
	}
	if b.full == nil {
		b.full = map[string]time.Time{}
	}
	b.full[label] = full
	return true
}
