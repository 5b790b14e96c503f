package dns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// answer is what the DNS said to one question.
type answer struct {
	kind    Kind // 0: there are records; NoDomain or NoRecord
	records []dns.RR
	secure  bool // the resolver has proven it by DNSSEC (the AD bit)
	expires time.Time
}

// negativeTTL is how long it is kept that there is nothing, at most (RFC 2308, 5 lets up to three hours).
const negativeTTL = 5 * time.Minute

type question struct {
	name  string
	qtype uint16
}

// cache keeps answers, and joins those who ask the same at the same time.
type cache struct {
	mu      sync.Mutex
	limit   int
	answers map[question]answer
	asking  map[question]*asked
}

// asked is a question that is under way, or was answered from the cache (done is nil).
type asked struct {
	question
	done   chan struct{}
	answer answer
	err    error
}

// lookup returns an answer from the cache or from a server. Its error is always a temporary one.
func (c *Client) lookup(ctx context.Context, name string, qtype uint16) (answer, error) {
	return c.wait(ctx, c.start(ctx, name, qtype))
}

// start asks, unless the answer is known or somebody else is asking already.
func (c *Client) start(ctx context.Context, name string, qtype uint16) *asked {
	q := question{canonical(name), qtype}
	if !isHost(q.name) {
		return &asked{question: q, answer: answer{kind: NoDomain}} // nothing that can't be a name is asked for
	}
	c.cache.mu.Lock()
	defer c.cache.mu.Unlock()
	if a, ok := c.cache.answers[q]; ok && time.Now().Before(a.expires) {
		return &asked{question: q, answer: a}
	}
	call, ok := c.cache.asking[q]
	if !ok {
		call = &asked{question: q, done: make(chan struct{})}
		c.cache.asking[q] = call
		// The question outlives who asked first: others may be waiting for it.
		go c.ask(context.WithoutCancel(ctx), call)
	}
	return call
}

// wait returns the answer when it has come.
func (c *Client) wait(ctx context.Context, call *asked) (answer, error) {
	if call.done == nil {
		return call.answer, nil
	}
	select {
	case <-call.done:
		return call.answer, call.err
	case <-ctx.Done():
		return answer{}, c.failure(Temporary, call.name, call.qtype, context.Cause(ctx))
	}
}

// ask asks the servers, keeps the answer and tells who waits.
func (c *Client) ask(ctx context.Context, call *asked) {
	a, err := c.askServers(ctx, call.question)
	if call.answer = a; err != nil {
		call.err = c.failure(Temporary, call.name, call.qtype, err)
	}
	c.cache.mu.Lock()
	delete(c.cache.asking, call.question)
	if err == nil {
		c.cache.keep(call.question, a)
	}
	c.cache.mu.Unlock()
	close(call.done)
}

// keep stores an answer; for want of room it throws away what has expired, and then any.
func (c *cache) keep(q question, a answer) {
	if len(c.answers) >= c.limit {
		now := time.Now()
		for k, old := range c.answers {
			if old.expires.Before(now) {
				delete(c.answers, k)
			}
		}
		for k := range c.answers {
			if len(c.answers) < c.limit*9/10+1 {
				break
			}
			delete(c.answers, k)
		}
	}
	c.answers[q] = a
}

// askServers asks one server after another, some rounds, until one can tell.
func (c *Client) askServers(ctx context.Context, q question) (answer, error) {
	err := errors.New("no name server is known")
	for range c.o.Attempts {
		for _, server := range c.servers.list() {
			var a answer
			if a, err = c.askServer(ctx, server, q); err == nil {
				return a, nil
			}
		}
	}
	return answer{}, err
}

// askServer asks one server by UDP, and again by TCP when the answer is cut (RFC 7766, 5).
func (c *Client) askServer(ctx context.Context, server string, q question) (answer, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.name), q.qtype)
	m.SetEdns0(1232, true)     // the size that is not fragmented anywhere; DO: say what DNSSEC proves
	m.AuthenticatedData = true // RFC 6840, 5.7
	var reply *dns.Msg
	for _, network := range []string{"udp", "tcp"} {
		var err error
		client := dns.Client{Net: network, Timeout: c.o.Timeout, UDPSize: 1232}
		ctx, stop := context.WithTimeout(ctx, c.o.Timeout)
		reply, _, err = client.ExchangeContext(ctx, m, server)
		stop()
		if err != nil {
			return answer{}, fmt.Errorf("name server %s: %w", server, err)
		}
		if !reply.Truncated {
			break
		}
	}
	if len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, m.Question[0].Name) || reply.Question[0].Qtype != q.qtype {
		return answer{}, fmt.Errorf("name server %s answered another question", server)
	}
	switch reply.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return c.read(reply, q), nil
	}
	return answer{}, fmt.Errorf("name server %s: %s", server, dns.RcodeToString[reply.Rcode])
}

// read takes the records that were asked for, following aliases inside the answer (RFC 1034, 3.6.2). Others are junk.
func (c *Client) read(reply *dns.Msg, q question) answer {
	a := answer{secure: reply.AuthenticatedData}
	ttl := c.o.MaxTTL
	name := dns.Fqdn(q.name)
	for range len(reply.Answer) + 1 {
		alias := ""
		for _, r := range reply.Answer {
			h := r.Header()
			if !strings.EqualFold(h.Name, name) {
				continue
			}
			cname, isAlias := r.(*dns.CNAME)
			switch {
			case h.Rrtype == q.qtype:
				a.records = append(a.records, r)
			case isAlias:
				alias = cname.Target
			default:
				continue
			}
			ttl = min(ttl, time.Duration(h.Ttl)*time.Second)
		}
		if alias == "" || len(a.records) > 0 {
			break
		}
		name = alias
	}
	if len(a.records) == 0 {
		a.kind, ttl = NoRecord, min(ttl, negativeTTL)
		if reply.Rcode == dns.RcodeNameError {
			a.kind = NoDomain
		}
	}
	a.expires = time.Now().Add(max(ttl, time.Second))
	return a
}
