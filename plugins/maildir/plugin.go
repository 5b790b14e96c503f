package maildir

import (
	"context"
	"strconv"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Plugin is the builtin "maildir".
func Plugin() sdk.Served {
	return sdk.Of(sdk.Plugin[Config]{
		Name: "maildir", Version: "0.1.0", Doc: "where mail is kept: a Maildir for each account, as Dovecot reads it",
		Kinds: (*Maildir)(nil),
		New: func(_ context.Context, cfg Config, host sdk.Host) (any, error) {
			m, err := New(cfg, host.Logger())
			if err != nil {
				return nil, err
			}
			return m, m.Listen(cfg, host)
		},
	})
}

// Check finds what is wrong with paths and addresses.
func (c Config) Check() (problems []schema.Problem) {
	report := func(err error, path ...string) {
		if err != nil {
			problems = append(problems, schema.Problem{Path: path, Summary: err.Error()})
		}
	}
	_, err := parseTemplate(c.Path)
	report(err, "path")
	for from, to := range c.Aliases {
		_, _, err := parseAlias(from, to)
		report(err, "aliases", from)
	}
	_, err = parseOptional(c.Postmaster)
	report(err, "postmaster")
	for i, l := range c.IMAP {
		problems = append(problems, l.Check("imap", strconv.Itoa(i))...)
	}
	for i, l := range c.POP3 {
		problems = append(problems, l.Check("pop3", strconv.Itoa(i))...)
	}
	return problems
}
