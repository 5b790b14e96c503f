package sdk

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// Host is what the server does for a plugin. All of it works from New on, and until the plugin is closed. A call ends
// with its context, and after 30 seconds at the latest.
type Host interface {
	// Logger writes to the server's log, under the plugin's name.
	Logger() *slog.Logger
	// StateDir is a directory that is the plugin's own and outlives it. It may be "" in a test.
	StateDir() string
	// KV is a store of small values that is the plugin's own: it belongs to the label of the plugin's block, survives
	// restarts and reloads, and is shared by all processes of the plugin.
	KV() KV
	// Submit puts a new message into the server's queue, and returns its ID when it is on stable storage. The content's
	// lines end with CRLF; the server puts a Received field on top. A refusal is a *mail.Reply; more messages than the
	// server takes of one plugin in a second are ErrExhausted.
	Submit(ctx context.Context, m *mail.Message) (id string, err error)
	// Authenticate asks the authenticator that the plugin's block names with auth = plugin.NAME whether a login is
	// right. A wrong one is mail.ErrBadLogin; without such a line it is ErrNotProvided.
	Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error)
	// Resolver asks the server's cache of the DNS.
	Resolver() Resolver
	// Metrics are the plugin's own figures.
	Metrics() Metrics
}

// KV is a store of small values. A key has 1 to 512 bytes, a value at most 64 KiB; what exceeds that is ErrLimit, and a
// store that is full is ErrExhausted. A ttl of 0 keeps a value for ever. A change that returned nil is on stable storage.
type KV interface {
	// Get returns the value of a key, and whether there is one.
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
	// Set sets the value of a key.
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Delete removes a key, which need not be there.
	Delete(ctx context.Context, key string) error
	// Incr adds to a number and returns the sum, as one step. The number is 0 where there is none; ttl goes for a number
	// that this call begins, and one that is there keeps the time that it has. Get returns it in decimal digits.
	Incr(ctx context.Context, key string, by int64, ttl time.Duration) (int64, error)
	// CompareAndSet changes a key from the old value to the new one, as one step, and reports whether it had the old
	// one. Nil means that there is no value: as old, the key is made only where it is not there; as new, it is deleted.
	CompareAndSet(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error)
}

// Resolver asks the DNS. A name that does not exist, or has no such record, is ErrNotFound; any other error may pass.
type Resolver interface {
	// MX returns the hosts that take mail for a domain, the best first. A domain without MX is its own host.
	MX(ctx context.Context, domain string) ([]mail.MX, error)
	// Addresses returns the IPv4 and IPv6 addresses of a host.
	Addresses(ctx context.Context, host string) ([]netip.Addr, error)
	// TXT returns the text records of a name, each as one string.
	TXT(ctx context.Context, name string) ([]string, error)
}

// Metrics are shown at /metrics as mta_plugin_LABEL_NAME. A name has lower-case letters, digits and _, a letter first, at
// most 64; a plugin may have 100 of them. What breaks these rules is told in the log once and not counted. Changes are
// handed to the server about every second.
type Metrics interface {
	// Count adds to a counter; n is not negative.
	Count(name string, n float64)
	// Gauge sets a value that may rise and fall.
	Gauge(name string, v float64)
}

// The kinds of failure of a Host. Test for them with errors.Is.
var (
	ErrLimit       = calls.ErrLimit       // a key, value, name or message is too big or not legal
	ErrExhausted   = calls.ErrExhausted   // the plugin has used up its share of storage or of messages per second
	ErrNotProvided = calls.ErrNotProvided // mta.hcl, or the server, does not provide it
	ErrNotFound    = calls.ErrNotFound    // the DNS has no such record
)

// host is the Host that a plugin gets from its process.
type host struct {
	*calls.HostClient
	log      *slog.Logger
	stateDir string
	conn     *grpc.ClientConn
	metrics  *metrics
}

func dialUnix(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", socket)
}

// newHost makes the host of a plugin. The socket is dialled by the first call.
func newHost(log *slog.Logger, r *pb.ConfigureRequest, dial func(context.Context, string) (net.Conn, error)) (*host, error) {
	socket := r.GetHostSocket()
	conn, err := grpc.NewClient("passthrough:host",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if socket == "" {
				return nil, errNoHost
			}
			return dial(ctx, socket)
		}))
	if err != nil {
		return nil, err
	}
	h := &host{HostClient: calls.NewHostClient(conn, r.GetHostToken()), log: log, stateDir: r.GetStateDir(), conn: conn}
	h.metrics = newMetrics(log, h.Report)
	return h, nil
}

// errNoHost is what a server says that is older than the host.
var errNoHost = net.UnknownNetworkError("no host was named: the server is older than this plugin's SDK")

func (h *host) close() {
	h.metrics.close()
	_ = h.conn.Close() // calls that still run end with an error
}

func (h *host) Logger() *slog.Logger { return h.log }
func (h *host) StateDir() string     { return h.stateDir }
func (h *host) KV() KV               { return h.HostClient }
func (h *host) Resolver() Resolver   { return h.HostClient }
func (h *host) Metrics() Metrics     { return h.metrics }
