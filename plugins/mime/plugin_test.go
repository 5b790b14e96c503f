package mime_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/plugins/mime"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestOverTheWire(t *testing.T) {
	p := plugintest.New(t, mime.Plugin(), nil)
	large := "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
		strings.Repeat("Grüße aus Köln und anderswo\r\n", 100_000)
	wire, err := p.Convert(t.Context(), &mail.Conversion{Content: mail.Bytes([]byte(large))})
	if err != nil || wire.Content == nil || wire.Body != mail.Body7Bit {
		t.Fatalf("%+v, %v", wire, err)
	}
	back, err := p.Convert(t.Context(), &mail.Conversion{Content: wire.Content, Target: mail.Target{Mailbox: true}})
	if err != nil || back.Content == nil || back.Body != mail.Body8Bit {
		t.Fatalf("%+v, %v", back, err)
	}
	if b, err := io.ReadAll(mail.Reader(back.Content)); err != nil || string(b) != large {
		t.Errorf("%d bytes came back of %d, %v", len(b), len(large), err)
	}
	signed := "Content-Type: multipart/signed; boundary=a\r\n\r\n--a\r\n\r\né\r\n--a--\r\n"
	_, err = p.Convert(t.Context(), &mail.Conversion{Content: mail.Bytes([]byte(signed))})
	var r *mail.Reply
	if !errors.As(err, &r) || r.Code != 554 || r.Enhanced != (mail.EnhancedCode{5, 6, 3}) {
		t.Errorf("a signed message: %v", err)
	}
	if problems := plugintest.Problems(t, mime.Plugin(), `{"mailbox": "7bit"}`); len(problems) != 1 {
		t.Errorf("%v", problems)
	}
}
