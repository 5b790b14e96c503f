package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Plugin is all that a plugin says of itself. C is its configuration: a struct with the tags of package schema.
type Plugin[C any] struct {
	Name    string // one word, such as "greylist"
	Version string
	Doc     string // one line: what it does

	// New makes the value whose methods are called. It is called once, before any of them. An error ends the process;
	// one that is Problems points into the configuration.
	New func(ctx context.Context, cfg C, host Host) (any, error)

	// Kinds is a nil pointer of the type that New returns, such as (*Greylist)(nil). With it the server knows what the
	// plugin can do before it is configured, so that `mta check` can prove how it is used. It may be left out.
	Kinds any
}

// Needs says how much of a message a MessageFilter wants to see. What it does not need is not sent, but by a server that is
// older than Fields and Prefix: it sends all fields, and all of the content.
type Needs struct {
	Header bool // Message.Header is filled
	Body   bool // Message.Content can be read; without it, only its size is known
	// Fields, without Header, are the names of the fields that Message.Header is filled with, such as "Subject". Their IDs are
	// those that they have among all fields.
	Fields []string
	// Prefix, without Body, is how many bytes of Message.Content, which begins with the header, can be read: 1 to MaxPrefix.
	// Its size is that of the whole.
	Prefix int
}

// MaxPrefix bounds Needs.Prefix.
const MaxPrefix = calls.MaxPrefix

// Needer is implemented by a MessageFilter that wants less than header and body. It is asked on the value that New made,
// and on Plugin.Kinds, so it must not look at its receiver.
type Needer interface {
	Needs() Needs
}

// Checker is implemented by a configuration (C or *C) that knows more than its types say. Check runs in `mta check` too,
// so it touches nothing but its receiver.
type Checker interface {
	Check() []schema.Problem
}

// Problems is an error that points into the configuration.
type Problems []schema.Problem

// Error lists the problems.
func (p Problems) Error() string {
	errs := make([]error, len(p))
	for i := range p {
		errs[i] = p[i]
	}
	return errors.Join(errs...).Error()
}

// Served is a Plugin whose configuration type has been put aside, so that plugins can stand in one list.
type Served interface {
	About() About
	// Schema returns the schema of the configuration.
	Schema() (*schema.Schema, error)

	decode(config []byte) (any, []schema.Problem)
	start(ctx context.Context, config any, host Host) (any, error)
	kinds() any
}

// About is who a plugin is.
type About struct {
	Name, Version, Doc string
}

// Of puts a plugin's configuration type aside.
func Of[C any](p Plugin[C]) Served { return served[C]{p} }

type served[C any] struct{ p Plugin[C] }

func (s served[C]) About() About { return About{s.p.Name, s.p.Version, s.p.Doc} }

func (s served[C]) Schema() (*schema.Schema, error) { return schema.Of(new(C)) }

func (s served[C]) kinds() any { return s.p.Kinds }

func (s served[C]) decode(config []byte) (any, []schema.Problem) {
	c := new(C)
	if len(config) == 0 {
		config = []byte("{}")
	}
	if problems := schema.Decode(config, c); len(problems) > 0 {
		return nil, problems
	}
	if k, ok := any(c).(Checker); ok {
		if problems := k.Check(); len(problems) > 0 {
			return nil, problems
		}
	}
	return *c, nil
}

func (s served[C]) start(ctx context.Context, config any, host Host) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the plugin panicked while it was made: %v", p)
		}
	}()
	if v, err = s.p.New(ctx, config.(C), host); err != nil {
		return nil, err
	}
	got := calls.KindNames(v)
	if len(got) == 0 {
		return nil, fmt.Errorf("%T has no method of any kind of plugin, such as Rcpt(context.Context, *mail.Session, mail.Recipient) (mail.Verdict, error)", v)
	}
	for _, k := range calls.KindNames(s.p.Kinds) {
		if !slices.Contains(got, k) {
			return nil, fmt.Errorf("Plugin.Kinds promises %q and %T does not do it", k, v)
		}
	}
	for _, k := range kindsOf(v) {
		if err := calls.CheckKind(k); err != nil {
			return nil, fmt.Errorf("the Needs of %T: %w", v, err)
		}
	}
	return v, nil
}

// fill says in a kind what a value needs of a message. What is narrowed is wanted all the same: a server that does not know
// the narrow wish must not send less.
func fill(k *pb.Kind, v any) {
	n := Needs{Header: true, Body: true}
	if needer, ok := v.(Needer); ok {
		n = needer.Needs()
	}
	k.Header, k.Body = n.Header || len(n.Fields) > 0, n.Body || n.Prefix > 0
	if !n.Header {
		k.HeaderNames = n.Fields
	}
	if !n.Body {
		k.BodyPrefix = uint32(max(n.Prefix, 0))
	}
}

func schemaJSON(p Served) ([]byte, error) {
	s, err := p.Schema()
	if err != nil {
		return nil, fmt.Errorf("the configuration type of plugin %s: %w", p.About().Name, err)
	}
	return json.Marshal(s)
}
