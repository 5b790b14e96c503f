// Noop is a filter that is asked at every stage, is given every message, and has nothing to say: what it costs is the way
// to a plugin and back.
package main

import (
	"context"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Config is empty.
type Config struct{}

type noop struct{}

var (
	_ sdk.ConnectFilter = noop{}
	_ sdk.HeloFilter    = noop{}
	_ sdk.MailFilter    = noop{}
	_ sdk.RcptFilter    = noop{}
	_ sdk.MessageFilter = noop{}
)

func (noop) Connect(context.Context, *mail.Session) (mail.Verdict, error) {
	return mail.Continue(), nil
}

func (noop) Helo(context.Context, *mail.Session) (mail.Verdict, error) { return mail.Continue(), nil }

func (noop) Mail(context.Context, *mail.Session) (mail.Verdict, error) { return mail.Continue(), nil }

func (noop) Rcpt(context.Context, *mail.Session, mail.Recipient) (mail.Verdict, error) {
	return mail.Continue(), nil
}

func (noop) Message(context.Context, *mail.Session, *mail.Message) (mail.Verdict, error) {
	return mail.Continue(), nil
}

func main() {
	sdk.Serve(sdk.Plugin[Config]{
		Name:    "noop",
		Version: "1",
		Doc:     "a filter that is asked everything and has nothing to say",
		New:     func(context.Context, Config, sdk.Host) (any, error) { return noop{}, nil },
		Kinds:   (*noop)(nil),
	})
}
