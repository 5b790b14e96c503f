package bounces_test

import (
	"strings"
	"testing"

	"github.com/pabal-mta/mta/plugins/bounces"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestOverTheWire(t *testing.T) {
	p := plugintest.New(t, bounces.Plugin(), `{"languages": ["en", "ko"], "redirect": "ops@example.com"}`)
	n, err := p.Bounce(t.Context(), &mail.Failure{
		Kind: mail.FailurePermanent, From: mail.MustParseAddress("ann@example.com"), Header: []byte("Accept-Language: ko-KR\r\n"),
		Hostname: "mx1.example.com", Postmaster: mail.MustParseAddress("postmaster@example.com"),
		Recipients: []mail.FailedRecipient{{
			Recipient: mail.Recipient{Address: mail.MustParseAddress("bob@example.org")},
			Reply:     mail.NewReply(550, "5.1.1", "no"), Host: "mx.example.org",
		}},
	})
	if err != nil || n.Action != mail.NoticeRender || n.Language != "ko" || n.To.String() != "ops@example.com" || !strings.Contains(n.Text, "그런 메일 주소가 없습니다.") {
		t.Errorf("%+v, %v", n, err)
	}
	if problems := plugintest.Problems(t, bounces.Plugin(), `{"languages": ["tlh"]}`); len(problems) != 1 {
		t.Errorf("%v", problems)
	}
}
