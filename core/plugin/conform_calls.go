package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// kindChecks are the questions to a plugin of one kind.
func kindChecks(kind string) []check {
	s := sampleOf(kind)
	list := []check{
		{kind + "/answers", "A plain call is answered legally and in time.",
			"the server checks every answer: code class fits the action, no control characters, one answer for each recipient or address", s.answers},
		{kind + "/parallel", "64 calls at once are all answered legally and in time.",
			"run each request of a batch in a thread or task of its own, and answer in any order", s.parallel},
		{kind + "/deadline", "A call whose time is up is answered, and the plugin lives on.",
			"stop at timeout_ms and answer with ERROR_KIND_TIMEOUT; an answer that comes too late is no harm, one that never comes is", s.deadline},
		{kind + "/cancel", "A call that is cancelled is answered once and within 2 s.",
			"stop working on the numbers in Requests.cancel, and answer them all the same", s.cancel},
		{kind + "/hostile", "Whatever a peer may legally send does it no harm: 8-bit and binary content, long lines, huge headers.",
			"headers, logins and contents are bytes, not text; take them as they come", s.hostile},
	}
	if s.content {
		list = append(list, check{kind + "/large", "5 MiB of content through Large is answered legally and in time.",
			"read the chunks to the end of the stream, then send the response, then the chunks of a content that says streamed", s.large})
	}
	if kind == "message" {
		list = append(list, check{kind + "/needs", "What it needs of a message is said so that every server sends at least that.",
			"header_names go with header, body_prefix with body: a server that does not know the narrow wish obeys the wide one", checkNeeds})
	}
	return list
}

// legal passes what a plugin may answer to a call that has nothing wrong with it. With lenient it may also say that it
// could not do its work, as long as it has not crashed.
func legal(err error, lenient bool) error {
	var reply *mail.Reply
	var failed *calls.Failed
	switch {
	case errors.As(err, &reply), errors.Is(err, mail.ErrBadLogin):
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case lenient && errors.As(err, &failed) && !failed.Panic:
		return nil
	case err != nil:
		return errors.New(printable(err.Error()))
	}
	return nil
}

// once makes one call.
func (s *sample) once(ctx context.Context, c *calls.Client, in input) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.call(ctx, c, in)
}

// still returns err if there is one, and the end of the process if that is why; if there is none it makes a plain call.
func (e *examinee) still(ctx context.Context, p *process, s *sample, err error) error {
	if err == nil {
		err = legal(s.once(ctx, p.client, plain(0)), false)
	}
	if err == nil {
		return e.died(p)
	}
	return e.whyNot(p, err)
}

// whyNot prefers the end of the process to an error that may come from it.
func (e *examinee) whyNot(p *process, err error) error {
	select {
	case <-p.child.gone:
		return fmt.Errorf("%w: %w", err, e.died(p))
	case <-time.After(pipeGrace):
		return err
	}
}

func (s *sample) answers(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	err = legal(s.once(ctx, p.client, plain(1)), false)
	return fmt.Sprintf("%.1f ms", time.Since(began).Seconds()*1000), e.still(ctx, p, s, err)
}

func (s *sample) parallel(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	errs := make([]error, 64)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = legal(s.once(ctx, p.client, plain(i)), false) })
	}
	wg.Wait()
	return fmt.Sprintf("%.1f ms for all", time.Since(began).Seconds()*1000), e.still(ctx, p, s, errors.Join(firstOf(errs)))
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// deadline has the plugin believe that it has a millisecond.
func (s *sample) deadline(ctx context.Context, e *examinee) (string, error) {
	return "", e.tapped(ctx, func(ctx context.Context, p *process, t *tap) error {
		t.rewrite(func(r *pluginv1.Request) { r.TimeoutMs = 1 })
		errs := make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, 2*promptly)
				defer cancel()
				err := s.call(ctx, t.client, plain(i))
				if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
					err = nil // the plugin says so itself, as it should
				}
				errs[i] = legal(err, true)
			})
		}
		wg.Wait()
		t.rewrite(nil)
		return t.still(ctx, e, p, s, firstOf(errs))
	})
}

// cancel gives calls up as soon as they are on their way.
func (s *sample) cancel(ctx context.Context, e *examinee) (string, error) {
	var late int64 // calls that were not answered before they were cancelled
	err := e.tapped(ctx, func(ctx context.Context, p *process, t *tap) error {
		ctx2, giveUp := context.WithCancel(ctx)
		defer giveUp()
		const n = 8
		t.await(n, giveUp)
		var wg sync.WaitGroup
		var done atomic.Int64
		for i := range n {
			wg.Go(func() {
				if s.call(ctx2, t.client, plain(i)) == nil {
					done.Add(1)
				}
			})
		}
		wg.Wait()
		late = n - done.Load()
		return t.still(ctx, e, p, s, t.settled(ctx))
	})
	return fmt.Sprintf("%d of 8 before their answer", late), err
}

func (s *sample) hostile(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	refused := 0
	list := hostileInputs()
	for _, in := range list {
		err := s.once(ctx, p.client, in)
		var failed *calls.Failed
		if errors.As(err, &failed) {
			refused++
		}
		if err := e.still(ctx, p, s, legal(err, true)); err != nil {
			return "", fmt.Errorf("%s: %w", in.what, err)
		}
	}
	if refused > 0 {
		return fmt.Sprintf("%d inputs, of which %d were answered with an error", len(list), refused), nil
	}
	return fmt.Sprintf("%d inputs", len(list)), nil
}

func (s *sample) large(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	err = legal(s.once(ctx, p.client, largeInput()), false)
	return fmt.Sprintf("%.1f ms", time.Since(began).Seconds()*1000), e.still(ctx, p, s, err)
}

// checkNeeds looks at what the configured plugin says.
func checkNeeds(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	k := p.client.Kind("message")
	return printable(strings.Join(needs(k), ", ")), calls.CheckKind(k)
}

// normal makes a plain call of the first kind.
func (e *examinee) normal(ctx context.Context, p *process) error {
	s := sampleOf(e.report.Kinds[0])
	return e.still(ctx, p, s, nil)
}

// many makes about n calls of all kinds, sixteen at a time, for ten seconds at most, and returns how many it made.
func (e *examinee) many(ctx context.Context, p *process, n int) int64 {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var next, made atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n && ctx.Err() == nil; i = int(next.Add(1)) {
				s := sampleOf(e.report.Kinds[i%len(e.report.Kinds)])
				if legal(s.call(ctx, p.client, plain(i)), true) == nil {
					made.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return made.Load()
}

// checkFutureFields sends, all through, fields that nobody knows.
func checkFutureFields(ctx context.Context, e *examinee) (string, error) {
	p, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	defer p.end()
	rpc := pluginv1.NewPluginClient(p.conn)
	ask := &pluginv1.DescribeRequest{}
	addUnknown(ask.ProtoReflect())
	if _, err := rpc.Describe(ctx, ask); err != nil {
		return "", errors.New("Describe: " + printable(status.Convert(err).Message()))
	}
	return "", e.tapped(ctx, func(ctx context.Context, p *process, t *tap) error {
		t.rewrite(func(r *pluginv1.Request) { addUnknown(r.ProtoReflect()) })
		for _, k := range e.report.Kinds {
			s := sampleOf(k)
			if err := t.still(ctx, e, p, s, legal(s.once(ctx, t.client, plain(0)), false)); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
		}
		return nil
	})
}

// checkFutureCalls sends calls of a kind that comes later.
func checkFutureCalls(ctx context.Context, e *examinee) (string, error) {
	return "", e.tapped(ctx, func(ctx context.Context, p *process, t *tap) error {
		s := sampleOf(e.report.Kinds[0])
		t.rewrite(func(r *pluginv1.Request) {
			r.Call = nil
			addUnknown(r.ProtoReflect())
		})
		err := s.once(ctx, t.client, plain(0))
		if err == nil {
			err = errors.New("it was answered as if it were known")
		}
		if !errors.Is(err, calls.ErrUnsupported) {
			return e.whyNot(p, err)
		}
		t.rewrite(nil)
		return t.still(ctx, e, p, s, nil)
	})
}
