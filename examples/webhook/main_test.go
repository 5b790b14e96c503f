package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// crm is the other system, which answers as it is told.
func crm(t *testing.T, answer http.HandlerFunc) (config map[string]string) {
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return map[string]string{"url": s.URL + "/bounces", "token": "tulip"}
}

var failure = &mail.Failure{
	ID: "6H0", Kind: mail.FailurePermanent, From: mail.MustParseAddress("ann@here.example"), Arrived: time.Unix(1_800_000_000, 0).UTC(),
	Recipients: []mail.FailedRecipient{{
		Recipient: mail.Recipient{Address: mail.MustParseAddress(`"a\"b"@there.example`)}, Reply: mail.NewReply(550, "5.1.1", "no such user"), Host: "mx.there.example",
	}},
}

const posted = `{"id":"6H0","kind":"failed","from":"ann@here.example","arrived":"2027-01-15T08:00:00Z","recipients":` +
	`[{"address":"\"a\\\"b\"@there.example","reply":"550 5.1.1 no such user","host":"mx.there.example"}]}`

func TestBounce(t *testing.T) {
	heard := make(chan string, 10)
	config := crm(t, func(_ http.ResponseWriter, r *http.Request) {
		var b json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&b)
		heard <- r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(b)
	})
	for name, p := range map[string]*plugintest.Plugin{"memory": plugintest.New(t, sdk.Of(plugin()), config), "process": plugintest.Exec(t, os.Args[0], config)} {
		n, err := p.Bounce(t.Context(), failure)
		if err != nil || n.Action != mail.NoticeDefault {
			t.Errorf("%s: %v, %v", name, n, err)
		}
		if got := <-heard; got != "POST /bounces Bearer tulip "+posted {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestTrouble leaves the report to the server in each case.
func TestTrouble(t *testing.T) {
	elsewhere := crm(t, func(http.ResponseWriter, *http.Request) { t.Error("the token went elsewhere") })
	for name, answer := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere["url"], http.StatusTemporaryRedirect)
		},
		"silence": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then the end of the connection is seen
			<-r.Context().Done()
		},
	} {
		p := plugintest.New(t, sdk.Of(plugin()), crm(t, answer))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := p.Bounce(ctx, failure); err == nil || strings.Contains(err.Error(), "tulip") {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	for _, config := range []string{`{}`, `{"url": "crm.example"}`, `{"url": "file:///etc/passwd"}`} {
		if problems := plugintest.Problems(t, sdk.Of(plugin()), config); len(problems) == 0 {
			t.Errorf("%s was taken", config)
		}
	}
}
