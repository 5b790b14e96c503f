package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// maxRequest bounds the body of an API request, in bytes.
const maxRequest = 1 << 20

// Selection says which messages a verb or a list is about. Empty fields select everything.
type Selection struct {
	IDs    []string      `json:"ids,omitempty"`
	From   string        `json:"from,omitempty"`
	To     string        `json:"to,omitempty"`
	Domain string        `json:"domain,omitempty"`
	State  string        `json:"state,omitempty"`
	Reply  string        `json:"reply,omitempty"`
	Older  time.Duration `json:"older,omitempty"` // in nanoseconds
	Limit  int           `json:"limit,omitempty"`
}

// Empty reports a selection that selects every message.
func (s Selection) Empty() bool {
	return len(s.IDs) == 0 && s.From == "" && s.To == "" && s.Domain == "" && s.State == "" && s.Reply == "" && s.Older == 0
}

// Filter makes the queue's form of the selection.
func (s Selection) Filter() (queue.Filter, error) {
	f := queue.Filter{From: s.From, To: s.To, Domain: s.Domain, State: s.State, Reply: s.Reply, OlderThan: s.Older, Limit: s.Limit}
	if s.State != "" && s.State != "waiting" && s.State != "held" {
		return f, fmt.Errorf("there is no state %q; the states are waiting and held", s.State)
	}
	for _, text := range s.IDs {
		id, err := queue.ParseID(text)
		if err != nil {
			return f, err
		}
		f.IDs = append(f.IDs, id)
	}
	return f, nil
}

// Order is a verb for selected messages.
type Order struct {
	Selection Selection `json:"selection"`
	Reason    string    `json:"reason,omitempty"`
	Dry       bool      `json:"dry,omitempty"` // only count
}

// Result is how many messages a verb was done to.
type Result struct {
	Count int `json:"count"`
}

// apiError is the body of every answer that is not a success.
type apiError struct {
	Error string `json:"error"`
}

// API answers the requests of Client.
func API(s Server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Status()) })
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Reload(r.Context()); err != nil {
			refuse(w, http.StatusUnprocessableEntity, err)
			return
		}
		answer(w, struct{}{})
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, struct{}{})
		_ = http.NewResponseController(w).Flush() // before the connection is closed with the server
		s.Stop()
	})
	mux.HandleFunc("POST /explain", func(w http.ResponseWriter, r *http.Request) { explain(w, r, s) })
	mux.HandleFunc("POST /queue/list", func(w http.ResponseWriter, r *http.Request) { list(w, r, s) })
	mux.HandleFunc("GET /queue/{id}/content", func(w http.ResponseWriter, r *http.Request) { content(w, r, s) })
	mux.HandleFunc("GET /queue/{id}/envelope", func(w http.ResponseWriter, r *http.Request) { envelope(w, r, s) })
	mux.HandleFunc("POST /queue/check", func(w http.ResponseWriter, r *http.Request) { check(w, r, s) })
	mux.HandleFunc("POST /queue/suspend", func(w http.ResponseWriter, r *http.Request) { suspend(w, r, s.Suspend) })
	mux.HandleFunc("POST /queue/resume", func(w http.ResponseWriter, r *http.Request) {
		suspend(w, r, func(ctx context.Context, what, _ string) (Suspension, error) {
			return s.Resume(ctx, what)
		})
	})
	mux.HandleFunc("POST /queue/{verb}", func(w http.ResponseWriter, r *http.Request) { act(w, r, s) })
	all := http.NewServeMux()
	all.Handle("/", http.MaxBytesHandler(mux, maxRequest))
	all.HandleFunc("POST /queue/import", func(w http.ResponseWriter, r *http.Request) { restore(w, r, s) })
	return all
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// The only errors are those of the connection, and then nobody is there to hear of them.
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(apiError{err.Error()})
}

// list writes one message a line, so that a long list is printed while it is read.
func list(w http.ResponseWriter, r *http.Request, s Server) {
	var sel Selection
	if err := json.NewDecoder(r.Body).Decode(&sel); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	f, err := sel.Filter()
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	f.Patient = true
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := &stream{w: w}
	defer lines.close()
	enc := json.NewEncoder(lines)
	if err := s.List(r.Context(), f, func(rec Listed) error { return enc.Encode(MessageOf(rec)) }); err != nil {
		_ = enc.Encode(apiError{err.Error()})
	}
}

func content(w http.ResponseWriter, r *http.Request, s Server) {
	id, err := queue.ParseID(r.PathValue("id"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	_, c, err := s.Content(id)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		refuse(w, http.StatusNotFound, fmt.Errorf("there is no message %s in the queue", id))
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		w.Header().Set("Content-Type", "message/rfc822")
		w.Header().Set("Content-Length", fmt.Sprint(c.Size()))
		_, _ = io.Copy(w, mail.Reader(c))
	}
}

func act(w http.ResponseWriter, r *http.Request, s Server) {
	verb := Verb(r.PathValue("verb"))
	if !slices.Contains(Verbs(), verb) {
		refuse(w, http.StatusNotFound, fmt.Errorf("there is no queue verb %q", verb))
		return
	}
	var o Order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	f, err := o.Selection.Filter()
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	var ids []queue.ID
	err = s.List(r.Context(), f, func(rec Listed) error {
		ids = append(ids, rec.ID)
		return nil
	})
	n := len(ids)
	if err == nil && !o.Dry {
		n, err = s.Act(r.Context(), verb, ids, o.Reason)
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, Result{n})
}

// suspend does one of the two things that are about more than messages.
func suspend(w http.ResponseWriter, r *http.Request, do func(ctx context.Context, what, reason string) (Suspension, error)) {
	var asked Suspension
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	x, err := do(r.Context(), asked.What, asked.Reason)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	answer(w, x)
}

// ListenSocket opens the unix socket for the API, private to its owner. A socket left by a server that died is replaced;
// one that a living server answers on is an error.
func ListenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("admin socket %s: another mta answers there; stop it first (mta stop), or give this one another socket", path)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("admin socket %s: a file that is no socket is in the way", path)
	}
	_ = os.Remove(path) // what is there is a socket that nobody answers on
	// The mode is set before the name is there: the socket is made under a private name and moved.
	private := path + ".new"
	_ = os.Remove(private)
	l, err := net.Listen("unix", private)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(private, 0o600), os.Rename(private, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	return l, nil
}
