package engine

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/pipeline"
	"github.com/pabal-mta/mta/core/smtpd"
	"github.com/pabal-mta/mta/sdk/mail"
)

// explainTime bounds one explanation: what the stage message may take, and the DNS.
const explainTime = 6 * time.Minute

// Explain implements admin.Server. It holds the SMTP dialogue with a server of ours that is the listener's in all but its
// queue: what is accepted goes nowhere. The plugins are asked as they would be, and may remember that they were. Then it
// goes the way of each recipient, up to the point of connecting.
func (e *Engine) Explain(ctx context.Context, q admin.Question) (admin.Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, explainTime)
	defer cancel()
	g := e.use()
	defer g.done()
	d, err := e.newDialogue(g, q)
	if err != nil {
		return admin.Explanation{}, err
	}
	if err := d.hold(ctx); err != nil {
		return d.x, err
	}
	if d.x.Accepted {
		for _, to := range d.recipients(ctx) {
			d.x.Ways = append(d.x.Ways, g.explainWay(ctx, d.from, to, d.accepted))
		}
	}
	return d.x, nil
}

// dialogue is an SMTP session about a message that does not exist.
type dialogue struct {
	g        *generation
	q        admin.Question
	from, to mail.Address
	x        admin.Explanation
	server   *smtpd.Server
	client   net.Conn
	text     *textproto.Conn
	accepted *smtpd.Accepted // nil: the question has no content, or it was not accepted

	mu     sync.Mutex
	events []event.Event // since the last reply
}

func (e *Engine) newDialogue(g *generation, q admin.Question) (*dialogue, error) {
	d := &dialogue{g: g, q: q}
	var err error
	if d.to, err = mail.ParseAddress(q.To); err != nil {
		return nil, fmt.Errorf("the recipient: %w", err)
	}
	if q.From != "" {
		if d.from, err = mail.ParseAddress(q.From); err != nil {
			return nil, fmt.Errorf("the sender: %w", err)
		}
	}
	ip, err := netip.ParseAddr(cmp.Or(q.IP, "192.0.2.1"))
	if err != nil {
		return nil, fmt.Errorf("%q is no IP address", q.IP)
	}
	block := listenerFor(g.cfg, q)
	if block == nil {
		return nil, errors.New("there is no such listener")
	}
	d.x.Listener, d.x.Pipeline = block.Name, block.Pipeline
	cfg, err := e.serverConfig(g.cfg, block)
	if err != nil {
		return nil, err
	}
	cfg.TLS, cfg.Implicit, cfg.InsecureAuth = nil, false, true // the wire is in this process
	bus := new(event.Bus)
	bus.Listen(d.note)
	deps := smtpd.Deps{Policy: explainedPolicy{g}, Queue: d.take, NewID: func() string { return "explain" }, Events: bus}
	if block.Auth != "" {
		deps.Authenticator = believer{}
	}
	if p := findPipeline(g.cfg, block.Pipeline); p != nil {
		same := g.pipeline(p, bus)
		deps.Pipeline = func() *pipeline.Pipeline { return same }
	}
	if d.server, err = smtpd.New(cfg, deps); err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	d.client, d.text = client, textproto.NewConn(client)
	go func() {
		_ = d.server.Serve(&oneConn{conn: pipeFrom{server, net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 49152))}})
	}()
	return d, nil
}

// listenerFor finds the listener of a question: the one that it names, or the first that wants a login where somebody is
// logged in, and none where nobody is.
func listenerFor(cfg *config.Config, q admin.Question) *config.Listener {
	var first *config.Listener
	for _, l := range cfg.Listeners {
		switch {
		case q.Listener != "" && l.Name == q.Listener:
			return l
		case q.Listener == "" && (l.Auth != "") == (q.User != ""):
			return l
		case q.Listener == "" && first == nil:
			first = l
		}
	}
	return first
}

func findPipeline(cfg *config.Config, name string) *config.Pipeline {
	for _, p := range cfg.Pipelines {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// hold holds the dialogue, as far as the server lets it come.
func (d *dialogue) hold(ctx context.Context) error {
	defer func() {
		d.client.Close()
		_ = d.server.Shutdown(ctx)
	}()
	stop := context.AfterFunc(ctx, func() { d.client.Close() })
	defer stop()
	hello := "EHLO " + cmp.Or(d.q.Helo, "client.example")
	if l := listenerFor(d.g.cfg, d.q); l.Protocol == "lmtp" {
		hello = "LHLO " + cmp.Or(d.q.Helo, "client.example")
	}
	lines := []string{"", hello}
	if d.q.User != "" {
		lines = append(lines, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+d.q.User+"\x00explain")))
	}
	lines = append(lines, "MAIL FROM:<"+d.q.From+">", "RCPT TO:<"+d.q.To+">")
	if d.q.Content != nil {
		lines = append(lines, "DATA", ".")
	}
	for _, says := range lines {
		if strings.ContainsAny(says, "\r\n") {
			return fmt.Errorf("%q is not one line", says)
		}
		code, err := d.say(says)
		if err != nil {
			return fmt.Errorf("the dialogue broke off: %w", err)
		}
		if code >= 400 {
			return nil
		}
	}
	d.x.Accepted = true
	return nil
}

// say says a line, and notes what is answered.
func (d *dialogue) say(says string) (code int, err error) {
	switch {
	case says == ".":
		w := d.text.DotWriter()
		if _, err = w.Write(d.q.Content); err == nil {
			err = w.Close()
		}
	case says != "":
		err = d.text.PrintfLine("%s", says)
	}
	if err != nil {
		return 0, err
	}
	code, text, err := d.text.ReadResponse(0)
	if err != nil && code == 0 {
		return 0, err
	}
	if login, _, ok := strings.Cut(says, " PLAIN "); ok {
		says = login + " PLAIN (" + d.q.User + ")"
	}
	line := admin.Line{Says: says, Reply: fmt.Sprintf("%d %s", code, text)}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		switch {
		case e.Name == event.FilterVerdict:
			line.Steps = append(line.Steps, stepAnswer(e))
		case e.Name == event.SessionRefused && e.Err != nil:
			line.Why = e.Err.Error()
		}
	}
	d.events = nil
	d.x.Dialogue = append(d.x.Dialogue, line)
	return code, nil
}

func stepAnswer(e event.Event) admin.StepAnswer {
	a := admin.StepAnswer{Stage: e.Stage, Plugin: e.Plugin, Verdict: e.Class, Reply: e.Reply, Reason: e.Reason, Edits: e.Edits, Took: e.Took}
	if e.Err != nil {
		a.Error = e.Err.Error()
	}
	return a
}

func (d *dialogue) note(e event.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

// take is the queue of the dialogue.
func (d *dialogue) take(_ context.Context, a *smtpd.Accepted) (string, error) {
	d.accepted, d.x.Held = a, a.Held
	if raw, _, err := mail.RawHeader(a.Content); err == nil {
		for s := bufio.NewScanner(strings.NewReader(string(raw))); s.Scan(); {
			d.x.Header = append(d.x.Header, s.Text())
		}
	}
	a.Release()
	return "explain", nil
}

// recipients are those that are left when aliases and filters have had their way; without content, when aliases have.
func (d *dialogue) recipients(ctx context.Context) []mail.Address {
	if d.accepted != nil {
		list := make([]mail.Address, len(d.accepted.Envelope.To))
		for i, r := range d.accepted.Envelope.To {
			list[i] = r.Address
		}
		return list
	}
	if _, aliases, err := d.g.rcpt(ctx, true, d.to); err == nil && len(aliases) > 0 {
		return aliases
	}
	return []mail.Address{d.to}
}

// explainWay goes the way of one recipient, with the functions that a delivery goes by.
func (g *generation) explainWay(ctx context.Context, from, to mail.Address, a *smtpd.Accepted) admin.WayOfOne {
	w := admin.WayOfOne{To: to.String()}
	r, passed := g.routes.Find(to)
	for _, miss := range passed {
		w.Passed = append(w.Passed, miss.Route.Name+": "+miss.Why)
	}
	if r == nil {
		w.Problem = replyNoRoute.String()
		return w
	}
	w.Route, w.Kind = r.Name, r.Kind.String()
	for _, block := range g.cfg.Routes {
		if block.Name == r.Name {
			w.Store, w.Convert = block.Store, block.Convert
		}
	}
	job := &deliver.Job{ID: "explain", Route: r.Name, Domain: to.Domain(), Attempt: 1, Content: mail.Bytes(nil)}
	job.Envelope.From = from
	if a != nil {
		job.Envelope, job.Meta = a.Envelope, a.Meta
	}
	job.Envelope.To = []mail.Recipient{{Address: to}}
	hops, failure := g.deliverer.Explain(ctx, job)
	for _, h := range hops {
		w.Hops = append(w.Hops, admin.Hop{Host: h.Host, Addresses: h.Addresses, TLS: h.TLS, Problem: h.Problem})
	}
	if failure != nil {
		w.Problem = failure.Reply.String()
	}
	return w
}

// explainedPolicy decides about recipients as the generation does.
type explainedPolicy struct{ g *generation }

// Rcpt implements smtpd.RcptPolicy.
func (p explainedPolicy) Rcpt(ctx context.Context, _ *mail.Session, trusted bool, a mail.Address) (mail.Reply, []mail.Address, error) {
	return p.g.rcpt(ctx, trusted, a)
}

// believer takes everybody at their word. It stands where no mail is taken.
type believer struct{}

// Authenticate implements smtpd.Authenticator.
func (believer) Authenticate(_ context.Context, login mail.Login) (mail.Identity, error) {
	return mail.Identity{User: login.User}, nil
}

// oneConn is a listener that has one connection and then no more.
type oneConn struct {
	conn net.Conn
	used bool
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	if l.used {
		return nil, io.EOF
	}
	l.used = true
	return l.conn, nil
}

// Close implements net.Listener.
func (l *oneConn) Close() error { return nil }

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// pipeFrom is one end of a pipe that seems to come from an address.
type pipeFrom struct {
	net.Conn
	from net.Addr
}

// RemoteAddr is where the client seems to be.
func (p pipeFrom) RemoteAddr() net.Addr { return p.from }
