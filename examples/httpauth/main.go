// Httpauth is a plugin that asks an HTTP service whether a login is right, such as the one that a web application has
// anyway.
//
// The service gets a POST of {"user", "password", "service", "remote"} and answers 200 with {"user", "addresses"}, or 401 or
// 403 when account and password do not belong together. Everything else means that nobody knows: the client is answered
// 454 and tries again, instead of asking for another password.
//
// In mta.hcl:
//
//	plugin "accounts" {
//	  source = "/usr/lib/mta/plugins/httpauth"
//	  config {
//	    url = "https://app.example/api/login"
//	  }
//	}
//
//	listener "submission" {
//	  address       = ["127.0.0.1:2587"]
//	  auth          = plugin.accounts
//	  insecure_auth = true # loopback; elsewhere: tls = tls.NAME
//	}
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Config is the plugin's block of mta.hcl.
type Config struct {
	URL   string        `mta:"url" doc:"the service: https, or http on this machine"`
	Token schema.Secret `mta:"token,optional" doc:"sent as Authorization: Bearer"`
}

// Check keeps passwords off wires that others can read.
func (c *Config) Check() []schema.Problem {
	u, err := url.Parse(c.URL)
	if err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())) {
		return nil
	}
	return []schema.Problem{{Path: []string{"url"}, Summary: "has to be https, or http on this machine: passwords are sent there"}}
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

type question struct {
	User     string `json:"user"`
	Password string `json:"password"`
	Service  string `json:"service"` // smtp, imap, pop3
	Remote   string `json:"remote"`  // who asks
}

type answer struct {
	User      string   `json:"user"`      // the account's canonical name
	Addresses []string `json:"addresses"` // that it may send from, beside its name
}

// HTTPAuth is the authenticator.
type HTTPAuth struct {
	cfg    Config
	client *http.Client
}

func newHTTPAuth(_ context.Context, c Config, _ sdk.Host) (any, error) {
	return &HTTPAuth{c, &http.Client{
		// Passwords go where the operator wrote, nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: new(net.Dialer).DialContext, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: true},
	}}, nil
}

// Authenticate asks the service. Its deadline is that of the call.
func (h *HTTPAuth) Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error) {
	body, err := json.Marshal(question{login.User, login.Password, login.Service, login.Remote.Addr().String()})
	if err != nil {
		return mail.Identity{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return mail.Identity{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if h.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+string(h.cfg.Token))
	}
	res, err := h.client.Do(req)
	if err != nil {
		return mail.Identity{}, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return identity(io.LimitReader(res.Body, maxAnswer))
	case http.StatusUnauthorized, http.StatusForbidden:
		return mail.Identity{}, mail.ErrBadLogin
	}
	return mail.Identity{}, fmt.Errorf("%s answered %s", h.cfg.URL, res.Status)
}

// identity reads an answer. One that names nobody lets nobody in.
func identity(r io.Reader) (id mail.Identity, err error) {
	var a answer
	if err := json.NewDecoder(r).Decode(&a); err != nil {
		return id, fmt.Errorf("the service's answer: %w", err)
	}
	if a.User == "" {
		return id, fmt.Errorf("the service's answer names no user")
	}
	id.User = a.User
	for _, s := range a.Addresses {
		address, err := mail.ParseAddress(s)
		if err != nil {
			return mail.Identity{}, fmt.Errorf("the service's answer: %w", err)
		}
		id.Addresses = append(id.Addresses, address)
	}
	return id, nil
}

func plugin() sdk.Plugin[Config] {
	return sdk.Plugin[Config]{
		Name: "httpauth", Version: "0.1.0", Doc: "asks an HTTP service whether a login is right", Kinds: (*HTTPAuth)(nil), New: newHTTPAuth,
	}
}

func main() { sdk.Serve(plugin()) }
