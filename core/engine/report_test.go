package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/sdk/mail"
)

type says struct {
	notice mail.Notice
	err    error
}

func (s says) Bounce(context.Context, *mail.Failure) (mail.Notice, error) { return s.notice, s.err }

func TestNotice(t *testing.T) {
	render := mail.Notice{Action: mail.NoticeRender, Text: "sorry"}
	for _, row := range []struct {
		name string
		asks []notifier
		want mail.NoticeAction
	}{
		{"nobody", nil, mail.NoticeDefault},
		{"one that renders", []notifier{says{notice: render}}, mail.NoticeRender},
		{"the first that says anything", []notifier{says{notice: mail.Notice{Action: mail.NoticeDefault}}, says{notice: render}}, mail.NoticeRender},
		{"one that suppresses", []notifier{says{notice: mail.Notice{Action: mail.NoticeSuppress}}, says{notice: render}}, mail.NoticeSuppress},
		{"one that fails is passed over", []notifier{says{err: errors.New("down")}, says{notice: render}}, mail.NoticeRender},
		{"one that says nothing at all is a bug of it", []notifier{says{}}, mail.NoticeDefault},
		{"all fail", []notifier{says{err: errors.New("down")}}, mail.NoticeDefault},
	} {
		g := &generation{cfg: &config.Config{Bounce: config.Bounce{Notify: []string{"a", "b"}}}, notifiers: row.asks}
		if got := g.notice(t.Context(), &mail.Failure{}); got.Action != row.want {
			t.Errorf("%s: %v, want %v", row.name, got.Action, row.want)
		}
	}
}

func TestPostmasterFor(t *testing.T) {
	g := testGeneration(nil)
	for to, want := range map[string]string{
		"ann@example.com":  "postmaster@example.com",
		"x@inside.example": "postmaster@inside.example",
		"bob@other.test":   "postmaster@example.com",
	} {
		if got := g.postmasterFor(mail.MustParseAddress(to)); got.String() != want {
			t.Errorf("a report to %s comes from %s, want %s", to, got, want)
		}
	}
	g.cfg.Domains = nil
	if got := g.postmasterFor(mail.MustParseAddress("a@b.test")); got.String() != "postmaster@mx.example.com" {
		t.Errorf("without domains it comes from %s", got)
	}
}
