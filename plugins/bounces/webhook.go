package bounces

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Limits of the webhook.
const (
	maxWaiting  = 1000 // calls that have not been taken; more are dropped, with a line in the log
	callTimeout = 10 * time.Second
	firstPause  = time.Second
	longPause   = 10 * time.Minute
)

// call is one report for the webhook.
type call struct {
	id   string
	body []byte
	made time.Time
}

// hook posts reports, one after the other: while the other side is out of order, the first is tried again and the others
// wait.
type hook struct {
	url    string
	secret []byte
	giveUp time.Duration
	log    *slog.Logger
	client *http.Client
	queue  chan call
	cancel context.CancelFunc
	done   chan struct{}
}

// dialer connects; a test puts its own in.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func newHook(cfg Config, log *slog.Logger, dial dialer) *hook {
	ctx, cancel := context.WithCancel(context.Background())
	h := &hook{
		url: cfg.Webhook, secret: []byte(cfg.Secret), giveUp: cfg.GiveUp, log: log, cancel: cancel,
		queue: make(chan call, maxWaiting), done: make(chan struct{}),
		client: &http.Client{
			Timeout: callTimeout,
			// What is posted goes where the operator wrote, nowhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport:     &http.Transport{DialContext: dial, MaxIdleConns: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10},
		},
	}
	go h.work(ctx)
	return h
}

func (h *hook) close() {
	h.cancel()
	<-h.done
	h.client.CloseIdleConnections()
}

// offer puts a report in the queue; it never waits.
func (h *hook) offer(f *mail.Failure, header mail.Header, suppressed bool) {
	body, err := json.Marshal(newPosted(f, header, suppressed))
	if err != nil {
		h.log.Error("a report could not be written for the webhook", "id", f.ID, "error", err)
		return
	}
	select {
	case h.queue <- call{f.ID, body, time.Now()}:
	default:
		h.log.Error("a report is dropped: too many are waiting for the webhook", "id", f.ID)
	}
}

func (h *hook) work(ctx context.Context) {
	defer close(h.done)
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-h.queue:
			h.deliver(ctx, c)
		}
	}
}

// deliver posts one report until it is taken, refused for good, or too old.
func (h *hook) deliver(ctx context.Context, c call) {
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := h.post(ctx, c)
		if err == nil || ctx.Err() != nil {
			return
		}
		var refused *refusal
		if errors.As(err, &refused) && !refused.temporary() || time.Since(c.made)+pause > h.giveUp {
			h.log.Error("the webhook did not take a report; it is given up", "id", c.id, "error", err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// refusal is an answer that is not 2xx.
type refusal struct{ code int }

func (r *refusal) Error() string { return fmt.Sprintf("the webhook answered %d", r.code) }

// temporary says whether the same call may be taken later (RFC 9110, 15; RFC 6585, 4).
func (r *refusal) temporary() bool {
	switch r.code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return r.code >= 500
}

func (h *hook) post(ctx context.Context, c call) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(c.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "mta-bounces")
	if len(h.secret) > 0 {
		req.Header.Set("Mta-Signature", sign(h.secret, time.Now(), c.body))
	}
	res, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return &refusal{res.StatusCode}
	}
	return nil
}

// sign proves who posts, and when: an old call can't be played again unseen.
func sign(secret []byte, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(t + "."))
	m.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(m.Sum(nil))
}

// posted is the JSON of a report.
type posted struct {
	Version      int               `json:"version"`
	Kind         string            `json:"kind"` // failed, delayed or delivered
	ID           string            `json:"id"`   // of the message in our queue; with kind and recipients the same at each try
	MessageID    string            `json:"message_id,omitempty"`
	From         string            `json:"from"`
	EnvID        string            `json:"envid,omitempty"`
	ReportingMTA string            `json:"reporting_mta"`
	Arrived      time.Time         `json:"arrived,omitzero"`
	Expires      time.Time         `json:"expires,omitzero"`
	Suppressed   bool              `json:"suppressed"` // no mail is sent about it
	Recipients   []postedRecipient `json:"recipients"`
}

type postedRecipient struct {
	Address  string    `json:"address"`
	Original string    `json:"original,omitempty"`
	Code     int       `json:"code"`
	Enhanced string    `json:"enhanced,omitempty"`
	Text     string    `json:"text"`
	Host     string    `json:"host,omitempty"` // who said so; not there when it was ourselves
	Time     time.Time `json:"time,omitzero"`
}

func newPosted(f *mail.Failure, header mail.Header, suppressed bool) posted {
	p := posted{
		Version: 1, Kind: kindNames[f.Kind], ID: f.ID, MessageID: clean(header.Get("Message-ID"), 500), From: f.From.String(),
		EnvID: f.EnvID, ReportingMTA: f.Hostname, Arrived: f.Arrived, Expires: f.Expires, Suppressed: suppressed,
	}
	for _, r := range f.Recipients {
		p.Recipients = append(p.Recipients, postedRecipient{
			Address: r.Recipient.Address.String(), Original: r.Recipient.Original, Code: r.Reply.Code,
			Enhanced: r.Reply.Enhanced.String(), Text: r.Reply.Text, Host: r.Host, Time: r.Time,
		})
	}
	return p
}

var kindNames = map[mail.FailureKind]string{
	mail.FailurePermanent: "failed", mail.FailureDelayed: "delayed", mail.FailureDelivered: "delivered",
}
