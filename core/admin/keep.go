package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/pabal-mta/mta/core/archive"
	"github.com/pabal-mta/mta/core/queue"
)

// DamagedMessage is a queued message of which something can't be read.
type DamagedMessage struct {
	Message
	Damage string `json:"damage"`
	File   string `json:"file,omitempty"` // its envelope in quarantine
}

// checkLine is a line of the answer to a check: a message, or at the end what was read.
type checkLine struct {
	DamagedMessage
	Checked *queue.Checked `json:"checked,omitempty"`
	apiError
}

// check writes a line for each damaged message and a last one.
func check(w http.ResponseWriter, r *http.Request, s Server) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	checked, err := s.Check(r.Context(), func(rec *queue.Record, damage error) error {
		return enc.Encode(DamagedMessage{Message: MessageOf(Listed{Record: rec}), Damage: damage.Error()})
	})
	if err != nil {
		_ = enc.Encode(apiError{err.Error()})
		return
	}
	_ = enc.Encode(struct {
		Checked queue.Checked `json:"checked"`
	}{checked})
}

func envelope(w http.ResponseWriter, r *http.Request, s Server) {
	id, err := queue.ParseID(r.PathValue("id"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	e, err := s.Envelope(id)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		refuse(w, http.StatusNotFound, fmt.Errorf("there is no message %s in the queue", id))
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		answer(w, e)
	}
}

// maxImport bounds an exported message, in bytes: larger than any listener takes.
const maxImport = 1 << 30

// restore takes an envelope on one line, and behind it the content.
func restore(w http.ResponseWriter, r *http.Request, s Server) {
	body := bufio.NewReader(http.MaxBytesReader(w, r.Body, maxImport))
	head, err := body.ReadBytes('\n')
	if err != nil || len(head) > maxRequest {
		refuse(w, http.StatusBadRequest, errors.New("the request does not begin with an envelope"))
		return
	}
	e, rec, err := archive.Parse("envelope", head)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	f, err := os.CreateTemp("", "mta-import-*")
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, body); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	content, err := e.Prove(f)
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("the content: %w", err))
		return
	}
	_, err = s.Restore(r.Context(), e.Store, rec, content, r.FormValue("lost") == "1")
	switch {
	case errors.Is(err, queue.ErrRestored):
		answer(w, Result{0})
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		answer(w, Result{1})
	}
}
