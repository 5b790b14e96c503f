// Package conform asks a running plugin the questions that show whether it keeps the contract of plugin.proto: the calls of
// each kind, plain, in parallel, late, cancelled, hostile and large, and what only a broken or a later server sends.
//
// It knows neither processes nor tests: `mta plugin check` and plugintest.Conform hand it plugins. The plugin really works
// meanwhile: a store stores. What it finds wrong is an error in words for the plugin's author.
package conform

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// Promptly is how long a plugin may take for what needs no work: Describe, a cancelled call, its own end.
const Promptly = 2 * time.Second

// Grace is how long the end of a plugin may take to be seen, after a call that it was the cause of.
const Grace = 50 * time.Millisecond

// Timeout bounds one check.
const Timeout = 90 * time.Second

// Check is one question to a plugin.
type Check struct {
	Name, Proves, Hint string // "rcpt/parallel", one sentence, and what to do when it fails
	// Ask returns a note for the report, and an error when the plugin has failed.
	Ask func(ctx context.Context, e Examinee) (note string, err error)
}

// Examinee is whoever runs the plugin.
type Examinee interface {
	// Plugin returns the plugin, running and configured. The checks share it, and begin with a new one after a failure.
	Plugin(ctx context.Context) (*Plugin, error)
	// Kinds are what the plugin can do, as far as IsKind knows it.
	Kinds() []string
}

// Plugin is one that runs and is configured.
type Plugin struct {
	Client *calls.Client
	Conn   grpc.ClientConnInterface
	Tap    *Tap // stands between the two
	// Ended returns why the plugin is of no more use, or nil while it lives. It waits so long for its end.
	Ended func(patience time.Duration) error
}

// NewPlugin makes a plugin of a connection, whose client is to configure it and is to be opened.
func NewPlugin(conn grpc.ClientConnInterface, ended func(time.Duration) error) *Plugin {
	p := &Plugin{Conn: conn, Tap: &Tap{ClientConnInterface: conn, open: make(map[uint64]bool), changed: make(chan struct{}, 1)}, Ended: ended}
	p.Client = calls.NewClient(p.Tap)
	p.Tap.client = p.Client
	return p
}

// IsKind reports whether there are checks for a kind; a later SDK may name more than this one knows.
func IsKind(kind string) bool { return sampleOf(kind) != nil }

// Normal makes a plain call of the first kind.
func Normal(ctx context.Context, e Examinee) error {
	p, err := e.Plugin(ctx)
	if err != nil {
		return err
	}
	return p.still(ctx, sampleOf(e.Kinds()[0]), nil)
}

// Plain makes a plain call of a kind, and reports whether its answer was one that a plugin may give.
func Plain(ctx context.Context, c *calls.Client, kind string, i int) error {
	return legal(sampleOf(kind).once(ctx, c, plain(i)), true)
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
		return errors.New(calls.Printable(err.Error()))
	}
	return nil
}

// once makes one call.
func (s *sample) once(ctx context.Context, c *calls.Client, in input) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.call(ctx, c, in)
}

// still returns err if there is one, and the end of the plugin if that is why; if there is none it makes a plain call.
func (p *Plugin) still(ctx context.Context, s *sample, err error) error {
	if err == nil {
		err = legal(s.once(ctx, p.Client, plain(0)), false)
	}
	if err == nil {
		return p.Ended(0)
	}
	return p.whyNot(err)
}

// whyNot adds the end of the plugin to an error that may come from it.
func (p *Plugin) whyNot(err error) error {
	if why := p.Ended(Grace); why != nil {
		return fmt.Errorf("%w: %w", err, why)
	}
	return err
}
