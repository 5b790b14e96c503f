package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Question is a message that does not exist yet.
type Question struct {
	To       string `json:"to"`
	From     string `json:"from,omitempty"`     // "" is the null sender
	IP       string `json:"ip,omitempty"`       // of the client; "" is 192.0.2.1, which is nobody's
	Helo     string `json:"helo,omitempty"`     // what it calls itself
	User     string `json:"user,omitempty"`     // who is taken for logged in; "" for nobody
	Listener string `json:"listener,omitempty"` // "" is the first that fits
	Content  []byte `json:"content,omitempty"`  // the whole message; without it nothing is asked at stage message
}

// Explanation is what would become of it.
type Explanation struct {
	Listener string     `json:"listener"`
	Pipeline string     `json:"pipeline,omitempty"`
	Dialogue []Line     `json:"dialogue"`
	Accepted bool       `json:"accepted"`
	Held     string     `json:"held,omitempty"`   // why it would be held
	Header   []string   `json:"header,omitempty"` // the lines of the header that it would have
	Ways     []WayOfOne `json:"ways,omitempty"`   // of each recipient, after aliases and what filters have changed
}

// Line is one thing that the client says, what the filters answer, and what the server replies.
type Line struct {
	Says  string       `json:"says"` // "" before the greeting
	Steps []StepAnswer `json:"steps,omitempty"`
	Reply string       `json:"reply"`
	Why   string       `json:"why,omitempty"` // for the operator
}

// StepAnswer is what came of asking one plugin.
type StepAnswer struct {
	Stage   string        `json:"stage"`
	Plugin  string        `json:"plugin"`
	Verdict string        `json:"verdict"`
	Reply   string        `json:"reply,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Edits   string        `json:"edits,omitempty"`
	Error   string        `json:"error,omitempty"`
	Took    time.Duration `json:"took"` // in nanoseconds
}

// WayOfOne is how one recipient's mail would leave.
type WayOfOne struct {
	To      string   `json:"to"`
	Passed  []string `json:"passed,omitempty"` // the routes before, and why they do not take it
	Route   string   `json:"route"`            // "" when none takes it
	Kind    string   `json:"kind,omitempty"`   // store, lmtp, smarthost, mx
	Store   string   `json:"store,omitempty"`  // the plugin
	Convert []string `json:"convert,omitempty"`
	Hops    []Hop    `json:"hops,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

// Hop is a host that would be tried.
type Hop struct {
	Host      string   `json:"host"`
	Addresses []string `json:"addresses,omitempty"`
	TLS       string   `json:"tls"`
	Problem   string   `json:"problem,omitempty"`
}

func explain(w http.ResponseWriter, r *http.Request, s Server) {
	var q Question
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	x, err := s.Explain(r.Context(), q)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	answer(w, x)
}

// Explain asks what would become of a message.
func (c *Client) Explain(ctx context.Context, q Question) (Explanation, error) {
	var x Explanation
	err := c.call(ctx, http.MethodPost, "/explain", q, &x)
	return x, err
}
