package plugintest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// Host is the server that a plugin under test talks to. Its zero value is ready: it stores, takes every message, knows no
// accounts and no names; its fields are set while the plugin asks nothing. The plugin reaches it over the wire, with the
// server's own checks of every limit. Times to live are those of the clock, so that within testing/synctest they pass at
// once.
type Host struct {
	Accounts map[string]string  // passwords by account; nil: the plugin's block names no authenticator
	Zone     map[string]Records // what the DNS says of a name
	Refuse   error              // the answer to Submit, such as a *mail.Reply; nil takes the message

	wire wire // to the plugin

	mu        sync.Mutex
	fail      error
	values    map[string]value
	submitted []*mail.Message
	metrics   map[string]float64
}

// Records are what the DNS says of one name.
type Records struct {
	MX        []mail.MX
	Addresses []netip.Addr
	TXT       []string
}

type value struct {
	data    []byte
	expires time.Time // zero: never
}

var (
	_ calls.Services = (*Host)(nil)
	_ sdk.KV         = (*Host)(nil)
)

// Fail makes everything fail from now on, as if the server were in trouble, until it is called with nil.
func (h *Host) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

// Stall has everything that the plugin asks wait, as if the server hung, until resume is called. The methods of Host itself,
// which a test calls, go on.
func (h *Host) Stall() (resume func()) { return h.wire.stop() }

// failure returns what everything fails with.
func (h *Host) failure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fail
}

// Submitted returns the messages that the plugin has submitted, in their order.
func (h *Host) Submitted() []*mail.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.submitted)
}

// Metric returns a counter or gauge of the plugin, as far as it was reported: that takes up to a second.
func (h *Host) Metric(name string) float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.metrics[name]
}

// Keys returns the keys that are there, sorted.
func (h *Host) Keys() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.values {
		h.get(key)
	}
	return slices.Sorted(maps.Keys(h.values))
}

// get returns a value that has not expired, or nil. The caller holds mu.
func (h *Host) get(key string) []byte {
	v, ok := h.values[key]
	if ok && !v.expires.IsZero() && !time.Now().Before(v.expires) {
		delete(h.values, key)
		return nil
	}
	return v.data
}

// set sets a value; nil deletes it. The caller holds mu.
func (h *Host) set(key string, data []byte, ttl time.Duration) {
	if data == nil {
		delete(h.values, key)
		return
	}
	v := value{data: append([]byte{}, data...)}
	if ttl > 0 {
		v.expires = time.Now().Add(ttl)
	}
	if h.values == nil {
		h.values = map[string]value{}
	}
	h.values[key] = v
}

// Get is part of sdk.KV: a test may look into the plugin's store, and fill it.
func (h *Host) Get(_ context.Context, key string) ([]byte, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.get(key)
	return slices.Clone(v), v != nil, h.fail
}

// Set is part of sdk.KV.
func (h *Host) Set(_ context.Context, key string, data []byte, ttl time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail == nil {
		h.set(key, append([]byte{}, data...), ttl)
	}
	return h.fail
}

// Delete is part of sdk.KV.
func (h *Host) Delete(_ context.Context, key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail == nil {
		h.set(key, nil, 0)
	}
	return h.fail
}

// Incr is part of sdk.KV.
func (h *Host) Incr(_ context.Context, key string, by int64, ttl time.Duration) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return 0, h.fail
	}
	old := h.get(key)
	if old == nil {
		h.set(key, strconv.AppendInt(nil, by, 10), ttl)
		return by, nil
	}
	n, err := strconv.ParseInt(string(old), 10, 64)
	if err != nil || by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		return 0, calls.ErrNotNumber
	}
	v := h.values[key]
	v.data = strconv.AppendInt(nil, n+by, 10)
	h.values[key] = v
	return n + by, nil
}

// CompareAndSet is part of sdk.KV.
func (h *Host) CompareAndSet(_ context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.get(key); h.fail != nil || (now == nil) != (old == nil) || string(now) != string(old) {
		return false, h.fail
	}
	h.set(key, new, ttl)
	return true, nil
}

// Submit keeps the message for Submitted.
func (h *Host) Submit(_ context.Context, m *mail.Message) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return "", h.fail
	}
	if h.Refuse != nil {
		return "", h.Refuse
	}
	h.submitted = append(h.submitted, m)
	return fmt.Sprintf("test-%d", len(h.submitted)), nil
}

// Authenticate looks into Accounts.
func (h *Host) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	password, known := h.Accounts[l.User]
	switch err := h.failure(); {
	case err != nil:
		return mail.Identity{}, err
	case h.Accounts == nil:
		return mail.Identity{}, fmt.Errorf("%w: the plugin's block has no auth = plugin.NAME", calls.ErrNotProvided)
	case !known || password != l.Password:
		return mail.Identity{}, mail.ErrBadLogin
	}
	return mail.Identity{User: l.User}, nil
}

// MX looks into Zone.
func (h *Host) MX(_ context.Context, domain string) ([]mail.MX, error) {
	return found(h, h.Zone[domain].MX)
}

// Addresses looks into Zone.
func (h *Host) Addresses(_ context.Context, host string) ([]netip.Addr, error) {
	return found(h, h.Zone[host].Addresses)
}

// TXT looks into Zone.
func (h *Host) TXT(_ context.Context, name string) ([]string, error) {
	return found(h, h.Zone[name].TXT)
}

func found[T any](h *Host, list []T) ([]T, error) {
	err := h.failure()
	if err == nil && len(list) == 0 {
		return nil, calls.ErrNotFound
	}
	return list, err
}

// Report keeps the figures for Metric.
func (h *Host) Report(_ context.Context, samples []calls.Sample) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return h.fail
	}
	if h.metrics == nil {
		h.metrics = map[string]float64{}
	}
	for _, s := range samples {
		if s.Gauge {
			h.metrics[s.Name] = s.Value
		} else {
			h.metrics[s.Name] += s.Value
		}
	}
	return nil
}
