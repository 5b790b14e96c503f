package conform

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// Kind returns the questions to a plugin of one kind.
func Kind(kind string) []Check {
	s := sampleOf(kind)
	list := []Check{
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
		list = append(list, Check{kind + "/large", "5 MiB of content through Large is answered legally and in time, in chunks and, if it takes those, by a descriptor.",
			"read the chunks to the end of the stream, then send the response, then the chunks of a content that says streamed", s.large})
	}
	if kind == "message" {
		list = append(list, Check{kind + "/needs", "What it needs of a message is said so that every server sends at least that.",
			"header_names go with header, body_prefix with body: a server that does not know the narrow wish obeys the wide one", checkNeeds})
	}
	return list
}

func (s *sample) answers(ctx context.Context, e Examinee) (string, error) {
	return s.timed(ctx, e, func(p *Plugin) error { return legal(s.once(ctx, p.Client, plain(1)), false) })
}

func (s *sample) parallel(ctx context.Context, e Examinee) (string, error) {
	return s.timed(ctx, e, func(p *Plugin) error {
		errs := make([]error, 64)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = legal(s.once(ctx, p.Client, plain(i)), false) })
		}
		wg.Wait()
		return firstOf(errs)
	})
}

func (s *sample) large(ctx context.Context, e Examinee) (string, error) {
	return s.timed(ctx, e, func(p *Plugin) error {
		if err := legal(s.once(calls.InChunks(ctx), p.Client, largeInput()), false); err != nil {
			return err
		}
		return legal(s.once(ctx, p.Client, largeInput()), false)
	})
}

// timed notes how long something took.
func (s *sample) timed(ctx context.Context, e Examinee, do func(*Plugin) error) (string, error) {
	p, err := e.Plugin(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	err = do(p)
	return fmt.Sprintf("%.1f ms", time.Since(began).Seconds()*1000), p.still(ctx, s, err)
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
func (s *sample) deadline(ctx context.Context, e Examinee) (string, error) {
	p, err := e.Plugin(ctx)
	if err != nil {
		return "", err
	}
	defer p.Tap.rewrite(func(r *pluginv1.Request) { r.TimeoutMs = 1 })()
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 2*Promptly)
			defer cancel()
			err := s.call(ctx, p.Client, plain(i))
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				err = nil // the plugin says so itself, as it should
			}
			errs[i] = legal(err, true)
		})
	}
	wg.Wait()
	p.Tap.rewrite(nil)
	return "", p.still(ctx, s, firstOf(errs))
}

// cancel gives calls up as soon as they are on their way.
func (s *sample) cancel(ctx context.Context, e Examinee) (string, error) {
	p, err := e.Plugin(ctx)
	if err != nil {
		return "", err
	}
	ctx2, giveUp := context.WithCancel(ctx)
	defer giveUp()
	const n = 8
	p.Tap.await(n, giveUp)
	var wg sync.WaitGroup
	var done atomic.Int64
	for i := range n {
		wg.Go(func() {
			if s.call(ctx2, p.Client, plain(i)) == nil {
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return fmt.Sprintf("%d of 8 before their answer", n-done.Load()), p.still(ctx, s, p.Tap.settled(ctx))
}

func (s *sample) hostile(ctx context.Context, e Examinee) (string, error) {
	p, err := e.Plugin(ctx)
	if err != nil {
		return "", err
	}
	refused := 0
	list := hostileInputs()
	for _, in := range list {
		err := s.once(ctx, p.Client, in)
		var failed *calls.Failed
		if errors.As(err, &failed) {
			refused++
		}
		if err := p.still(ctx, s, legal(err, true)); err != nil {
			return "", fmt.Errorf("%s: %w", in.what, err)
		}
	}
	if refused > 0 {
		return fmt.Sprintf("%d inputs, of which %d were answered with an error", len(list), refused), nil
	}
	return fmt.Sprintf("%d inputs", len(list)), nil
}

// checkNeeds looks at what the configured plugin says.
func checkNeeds(ctx context.Context, e Examinee) (string, error) {
	p, err := e.Plugin(ctx)
	if err != nil {
		return "", err
	}
	k := p.Client.Kind("message")
	return strings.Join(calls.Needs(k), ", "), calls.CheckKind(k)
}
