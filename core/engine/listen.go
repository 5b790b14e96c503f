package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/pipeline"
	"github.com/pabal-mta/mta/core/smtpd"
	"github.com/pabal-mta/mta/sdk/mail"
)

// listening is one listener block that is being served.
type listening struct {
	block   *config.Listener
	server  *smtpd.Server
	sockets []net.Listener
}

// openListeners opens every listener of a configuration.
func (e *Engine) openListeners(cfg *config.Config) error {
	swap, err := e.prepareListeners(cfg)
	if err != nil {
		return err
	}
	swap()
	return nil
}

// prepareListeners opens what the configuration wants and is not open yet, and returns the function that begins to serve
// it and ends what is wanted no more. A socket that stays is handed on, so that no connection to it is refused.
func (e *Engine) prepareListeners(cfg *config.Config) (swap func(), err error) {
	var fresh []*listening
	next := map[string]*listening{}
	defer func() {
		if err != nil {
			for _, l := range fresh {
				closeAll(l.sockets)
			}
		}
	}()
	for _, block := range cfg.Listeners {
		if old := e.listening[block.Name]; old != nil && e.sameListener(old.block, block, cfg) {
			next[block.Name] = old
			continue
		}
		l, err := e.newListening(cfg, block)
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, l)
		next[block.Name] = l
	}
	return func() { e.swapListeners(fresh, next) }, nil
}

// sameListener reports whether a listener can go on as it is. What a session asks the current generation for (the
// pipeline, the authenticator, the routes) may have changed all the same.
func (e *Engine) sameListener(old, now *config.Listener, cfg *config.Config) bool {
	g := e.current.Load()
	return reflect.DeepEqual(old, now) && g.cfg.Hostname == cfg.Hostname && slices.Equal(g.cfg.Domains, cfg.Domains) &&
		slices.Equal(g.cfg.Networks, cfg.Networks) && reflect.DeepEqual(findTLS(g.cfg, old.TLS), findTLS(cfg, now.TLS))
}

func (e *Engine) swapListeners(fresh []*listening, next map[string]*listening) {
	for _, l := range fresh {
		for _, socket := range l.sockets {
			go func() {
				if err := l.server.Serve(socket); err != nil && !errors.Is(err, smtpd.ErrClosed) && !errors.Is(err, net.ErrClosed) {
					e.events.Emit(event.Event{Name: event.Warning, Listener: l.block.Name, Err: err, Reason: "the listener stopped"})
				}
			}()
		}
	}
	for name, old := range e.listening {
		if next[name] != old {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), drainTime)
				defer cancel()
				old.shutdown(ctx)
			}()
		}
	}
	e.listening = next
	e.open.Store(byName(next))
}

func (l *listening) shutdown(ctx context.Context) {
	_ = l.server.Shutdown(ctx) // its error is that ctx ended, and then the sessions are cut off
}

// newListening opens the sockets of a block and makes its server.
func (e *Engine) newListening(cfg *config.Config, block *config.Listener) (*listening, error) {
	settings, err := tlsOf(cfg, block)
	if err != nil {
		return nil, err
	}
	l := &listening{block: block}
	for _, address := range block.Address {
		socket, err := e.socket(address)
		if err != nil {
			closeAll(l.sockets)
			return nil, fmt.Errorf("listener %q: %w", block.Name, err)
		}
		l.sockets = append(l.sockets, socket)
	}
	l.server, err = e.newServer(cfg, block, settings)
	if err != nil {
		closeAll(l.sockets)
		return nil, fmt.Errorf("listener %q: %w", block.Name, err)
	}
	return l, nil
}

func (e *Engine) newServer(cfg *config.Config, block *config.Listener, settings *tls.Config) (*smtpd.Server, error) {
	c, err := e.serverConfig(cfg, block)
	if err != nil {
		return nil, err
	}
	c.TLS = settings
	// A stage that has begun in a generation ends in it, with all of its steps.
	live := &pipeline.Pipeline{Current: func() (*pipeline.Pipeline, func()) {
		g := e.use()
		return g.pipelineOf(block), g.done
	}}
	deps := smtpd.Deps{
		Pipeline: func() *pipeline.Pipeline { return live },
		Policy:   policy{e}, Refuses: e.pressure.refuses, Queue: e.accept, Events: e.events, Memory: e.memory,
		NewID: func() string { return e.queue.NewID().String() },
	}
	if block.Auth != "" {
		deps.Authenticator = authenticator{e, block.Auth}
	}
	return smtpd.New(c, deps)
}

// serverConfig is what a listener's block says, but for its TLS.
func (e *Engine) serverConfig(cfg *config.Config, block *config.Listener) (smtpd.Config, error) {
	spool, err := e.dir(cfg, "spool")
	if err != nil {
		return smtpd.Config{}, err
	}
	domain := cfg.Hostname
	if len(cfg.Domains) > 0 {
		domain = cfg.Domains[0]
	}
	return smtpd.Config{
		Name: block.Name, Hostname: cfg.Hostname, Postmaster: domain, Implicit: block.Implicit,
		AuthRequired: block.Auth != "", InsecureAuth: block.InsecureAuth, LMTP: block.Protocol == "lmtp",
		Submission: block.Auth != "", BareLF: block.BareLF, Hide: block.Hide, Networks: cfg.Networks, SpoolDir: spool,
		Limits: smtpd.Limits{
			Connections: block.Limits.Connections, ConnectionsPerIP: block.Limits.ConnectionsPerIP,
			MessageSize: int64(block.Limits.MessageSize), Recipients: block.Limits.Recipients,
		},
	}, nil
}

// socket opens an address, or hands on the one that is open already.
func (e *Engine) socket(address string) (net.Listener, error) {
	for _, l := range e.listening {
		for i, a := range l.block.Address {
			if a == address {
				return duplicate(l.sockets[i])
			}
		}
	}
	l, err := net.Listen(family(address), address)
	if err != nil {
		return nil, inWords(err)
	}
	return l, nil
}

// family keeps an IPv6 socket from taking IPv4 connections too, so that 0.0.0.0:25 can stand beside [::]:25.
func family(address string) string {
	a, err := netip.ParseAddrPort(address)
	switch {
	case err != nil:
		return "tcp"
	case a.Addr().Is4():
		return "tcp4"
	default:
		return "tcp6"
	}
}

// duplicate returns another handle of an open socket: the socket stays open when the first handle is closed.
func duplicate(l net.Listener) (net.Listener, error) {
	t, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("%T can't be handed on", l)
	}
	f, err := t.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

func closeAll(list []net.Listener) {
	for _, l := range list {
		l.Close()
	}
}

func findTLS(cfg *config.Config, name string) *config.TLS {
	for _, t := range cfg.TLS {
		if t.Name == name {
			return t
		}
	}
	return nil
}

func tlsOf(cfg *config.Config, block *config.Listener) (*tls.Config, error) {
	if block.TLS == "" {
		return nil, nil
	}
	c, err := loadCertificate(findTLS(cfg, block.TLS))
	if err != nil {
		return nil, err
	}
	return c.config(), nil
}

// inWords explains the errors of listening that an operator meets.
func inWords(err error) error {
	op := new(net.OpError)
	switch {
	case !errors.As(err, &op):
		return err
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is taken: another program listens there; is an mta running already? (mta status)", op.Addr)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: ports below 1024 need root or CAP_NET_BIND_SERVICE (the unit in examples/systemd has it)", op.Addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine has no such address", op.Addr)
	}
	return err
}

// pipelineOf returns the pipeline that a session of the listener goes through now. A session may outlive its listener, or
// the name of its pipeline, by a reload: then its mail is put off, and never taken unasked.
func (g *generation) pipelineOf(block *config.Listener) *pipeline.Pipeline {
	name := block.Pipeline
	for _, l := range g.cfg.Listeners {
		if l.Name == block.Name {
			name = l.Pipeline
		}
	}
	if p := g.pipelines[name]; p != nil || name == "" {
		return p
	}
	step := []pipeline.Step{{Plugin: "none", Filter: goneFilter{}, Timeout: authTimeout, OnError: pipeline.OnErrorTempFail}}
	return &pipeline.Pipeline{Name: name, Events: g.events, Stages: map[pipeline.Stage][]pipeline.Step{"mail": step, "message": step}}
}

// goneFilter stands for the steps of a pipeline that the configuration has no more.
type goneFilter struct{}

var errGone = errors.New("the pipeline of this session is no more in the configuration")

// Mail implements the filter of that stage.
func (goneFilter) Mail(context.Context, *mail.Session) (mail.Verdict, error) {
	return mail.Verdict{}, errGone
}

// Message implements the filter of that stage.
func (goneFilter) Message(context.Context, *mail.Session, *mail.Message) (mail.Verdict, error) {
	return mail.Verdict{}, errGone
}

// policy asks the current generation about recipients.
type policy struct{ e *Engine }

// Rcpt implements smtpd.RcptPolicy.
func (p policy) Rcpt(ctx context.Context, _ *mail.Session, trusted bool, a mail.Address) (mail.Reply, []mail.Address, error) {
	g := p.e.use()
	defer g.done()
	return g.rcpt(ctx, trusted, a)
}

// authTimeout bounds one login.
const authTimeout = 30 * time.Second

// authenticator asks the current generation's plugin about logins.
type authenticator struct {
	e    *Engine
	name string
}

// Authenticate implements smtpd.Authenticator.
func (a authenticator) Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	g := a.e.use()
	defer g.done()
	p := g.host.Plugin(a.name)
	if p == nil {
		return mail.Identity{}, fmt.Errorf("there is no plugin %q any more", a.name)
	}
	return p.Authenticate(ctx, login)
}
