// Webhook is a plugin that tells another system of mail that did not arrive: each report to a sender is posted as JSON, too.
//
// The report itself goes out in the server's own words. A post that fails is in the server's log and is not repeated, and
// the sender hears of the failure all the same: whoever must not miss any keeps a queue of its own behind the address.
//
// In mta.hcl:
//
//	plugin "webhook" {
//	  source = "/usr/lib/mta/plugins/webhook"
//	  config {
//	    url   = "https://crm.example/bounces"
//	    token = "secret" # or env("CRM_TOKEN")
//	  }
//	}
//
//	bounce {
//	  notify = [plugin.webhook]
//	}
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Config is the plugin's block of mta.hcl.
type Config struct {
	URL   string        `mta:"url" doc:"where reports are posted"`
	Token schema.Secret `mta:"token,optional" doc:"sent as Authorization: Bearer"`
}

// Check finds what the types alone can't.
func (c *Config) Check() []schema.Problem {
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return []schema.Problem{{Path: []string{"url"}, Summary: "not an http or https address"}}
	}
	return nil
}

// Report is what is posted.
type Report struct {
	ID         string      `json:"id"`   // of the message in the queue
	Kind       string      `json:"kind"` // failed, delayed or delivered
	From       string      `json:"from"`
	Arrived    time.Time   `json:"arrived"`
	Recipients []Recipient `json:"recipients"`
}

// Recipient is one that the report is about.
type Recipient struct {
	Address string `json:"address"`
	Reply   string `json:"reply"` // the last word on it
	Host    string `json:"host,omitempty"`
}

var kinds = map[mail.FailureKind]string{mail.FailurePermanent: "failed", mail.FailureDelayed: "delayed", mail.FailureDelivered: "delivered"}

// Webhook is the notifier.
type Webhook struct {
	cfg    Config
	client *http.Client
}

func newWebhook(_ context.Context, c Config, _ sdk.Host) (any, error) {
	// The token goes where the operator wrote, nowhere else.
	follow := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Webhook{c, &http.Client{CheckRedirect: follow}}, nil
}

// Bounce posts a report and leaves the words to the server, which sends its own when this fails, too.
func (w *Webhook) Bounce(ctx context.Context, f *mail.Failure) (mail.Notice, error) {
	r := Report{ID: f.ID, Kind: kinds[f.Kind], From: f.From.String(), Arrived: f.Arrived}
	for _, x := range f.Recipients {
		r.Recipients = append(r.Recipients, Recipient{x.Recipient.Address.String(), x.Reply.String(), x.Host})
	}
	body, err := json.Marshal(r)
	if err != nil {
		return mail.Notice{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return mail.Notice{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if w.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+string(w.cfg.Token))
	}
	res, err := w.client.Do(req)
	if err != nil {
		return mail.Notice{}, err
	}
	res.Body.Close()
	if res.StatusCode/100 != 2 {
		return mail.Notice{}, fmt.Errorf("%s answered %s", w.cfg.URL, res.Status)
	}
	return mail.Notice{Action: mail.NoticeDefault}, nil
}

func plugin() sdk.Plugin[Config] {
	return sdk.Plugin[Config]{
		Name: "webhook", Version: "0.1.0", Doc: "posts what could not be delivered", Kinds: (*Webhook)(nil), New: newWebhook,
	}
}

func main() { sdk.Serve(plugin()) }
