package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// format is the version of the envelope's form. Fields are only ever added, with another format.
const format = 1

// Envelope is all that the queue knows of a message beside its content.
type Envelope struct {
	Format     int               `json:"format"`           // 1
	Store      string            `json:"store,omitempty"`  // the queue that it is from, by its name
	Damage     string            `json:"damage,omitempty"` // what is wrong with it, of one in quarantine
	ID         string            `json:"id"`
	From       string            `json:"from"` // "" is the null sender
	EnvID      string            `json:"envid,omitempty"`
	Ret        string            `json:"ret,omitempty"`  // FULL, HDRS (RFC 3461, 4.3)
	Body       string            `json:"body,omitempty"` // 7BIT, 8BITMIME, BINARYMIME
	SMTPUTF8   bool              `json:"smtputf8,omitempty"`
	RequireTLS bool              `json:"requiretls,omitempty"`
	Priority   int8              `json:"priority,omitempty"` // RFC 6710
	Recipients []Recipient       `json:"recipients"`
	Size       int64             `json:"size"` // of the content, in bytes
	SHA256     string            `json:"sha256"`
	Received   time.Time         `json:"received"`
	Next       time.Time         `json:"next,omitzero"` // when it is due
	Attempts   int               `json:"attempts,omitempty"`
	Warned     bool              `json:"warned,omitempty"` // the sender was told of the delay
	Held       string            `json:"held,omitempty"`   // why it is held
	Meta       map[string]string `json:"meta,omitempty"`   // where it came from
}

// Recipient is one recipient of an Envelope.
type Recipient struct {
	Address  string    `json:"address"`
	Notify   string    `json:"notify,omitempty"` // NEVER, or SUCCESS, FAILURE and DELAY with commas (RFC 3461, 4.1)
	Original string    `json:"original,omitempty"`
	State    string    `json:"state"` // pending, delivered, failed, expired, dropped
	Attempts int       `json:"attempts,omitempty"`
	Time     time.Time `json:"time,omitzero"` // of the last attempt
	Host     string    `json:"host,omitempty"`
	Reply    *Reply    `json:"reply,omitempty"` // the last one
}

// Reply is the reply of a host.
type Reply struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"` // RFC 3463
	Text     string `json:"text,omitempty"`
}

// Of makes the envelope of a record. Size and checksum of the content are for Write.
func Of(rec *queue.Record, store string) Envelope {
	v := &rec.Envelope
	e := Envelope{
		Format: format, Store: store, ID: rec.ID.String(), From: v.From.String(), EnvID: v.EnvID, Ret: v.Ret.String(), Body: v.Body.String(),
		SMTPUTF8: v.SMTPUTF8, RequireTLS: v.RequireTLS, Priority: v.Priority, Size: rec.Size, Received: rec.Received, Next: rec.Next, Attempts: rec.Attempts,
		Warned: rec.Warned, Held: rec.Held, Meta: maps.Clone(rec.Meta), Recipients: make([]Recipient, len(rec.Recipients)),
	}
	for i, r := range rec.Recipients {
		e.Recipients[i] = Recipient{
			Address: r.Address.String(), Notify: r.Notify.String(), Original: r.Original, State: r.State.String(),
			Attempts: r.Attempts, Time: r.Time, Host: r.Host,
		}
		if r.Reply != (mail.Reply{}) {
			e.Recipients[i].Reply = &Reply{r.Reply.Code, r.Reply.Enhanced.String(), r.Reply.Text}
		}
	}
	return e
}

// Parse reads an envelope, and makes a record of it. Its errors name the file and the line.
func Parse(path string, b []byte) (*Envelope, *queue.Record, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	e := &Envelope{}
	if err := dec.Decode(e); err != nil {
		return nil, nil, fmt.Errorf("%s:%d: %w", path, lineAt(b, offsetOf(err, dec)), err)
	}
	if rest := dec.InputOffset(); len(bytes.TrimSpace(b[rest:])) > 0 {
		return nil, nil, fmt.Errorf("%s:%d: something stands behind the envelope", path, lineAt(b, rest))
	}
	rec, field, err := e.record()
	if err != nil {
		return nil, nil, fmt.Errorf("%s:%d: %w", path, lineOf(b, field), err)
	}
	return e, rec, nil
}

func offsetOf(err error, dec *json.Decoder) int64 {
	if s := new(json.SyntaxError); errors.As(err, &s) {
		return s.Offset
	}
	if t := new(json.UnmarshalTypeError); errors.As(err, &t) {
		return t.Offset
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return 1 << 62
	}
	return dec.InputOffset()
}

func lineAt(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(max(offset, 0), int64(len(b)))], []byte("\n"))
}

// field is where something wrong stands: a name, and which of several of that name.
type field struct {
	name string
	n    int
}

// lineOf returns the line on which a field stands.
func lineOf(b []byte, f field) int {
	at := 0
	for i := 0; ; i++ {
		next := bytes.Index(b[at:], []byte(strconv.Quote(f.name)))
		if next < 0 {
			return lineAt(b, int64(at))
		}
		at += next
		if i == f.n {
			return lineAt(b, int64(at))
		}
		at++
	}
}

// record makes a record, or says which field is wrong.
func (e *Envelope) record() (rec *queue.Record, at field, err error) {
	if e.Format != format {
		return nil, field{"format", 0}, fmt.Errorf("format %d is not known; this program reads format %d", e.Format, format)
	}
	id, err := queue.ParseID(e.ID)
	if err != nil {
		return nil, field{"id", 0}, err
	}
	rec = &queue.Record{
		ID: id, Size: e.Size, Received: e.Received, Next: e.Next, Attempts: e.Attempts, Warned: e.Warned, Held: e.Held, Meta: maps.Clone(e.Meta),
		Envelope: mail.Envelope{EnvID: e.EnvID, SMTPUTF8: e.SMTPUTF8, RequireTLS: e.RequireTLS, Priority: e.Priority},
	}
	if e.From != "" {
		if rec.Envelope.From, err = mail.ParseAddress(e.From); err != nil {
			return nil, field{"from", 0}, err
		}
	}
	if rec.Envelope.Ret, err = word(e.Ret, mail.RetUnset, mail.RetFull, mail.RetHeaders); err != nil {
		return nil, field{"ret", 0}, err
	}
	if rec.Envelope.Body, err = word(e.Body, mail.Body7Bit, mail.Body8Bit, mail.BodyBinary); err != nil && e.Body != "" {
		return nil, field{"body", 0}, err
	}
	if err := (mail.Envelope{Priority: e.Priority}).Check(); err != nil {
		return nil, field{"priority", 0}, err
	}
	if e.Received.IsZero() {
		return nil, field{"received", 0}, errors.New("when the message was received is not said")
	}
	if e.Size < 0 || e.Attempts < 0 {
		return nil, field{"size", 0}, errors.New("a number is negative")
	}
	if len(e.Recipients) == 0 {
		return nil, field{"recipients", 0}, errors.New("there are no recipients")
	}
	for i := range e.Recipients {
		r, name, err := e.Recipients[i].recipient()
		if err != nil {
			return nil, field{name, e.before(name, i)}, err
		}
		rec.Recipients = append(rec.Recipients, r)
	}
	return rec, field{}, nil
}

// before counts how often a field is written for the recipients before the i-th, and at the top.
func (e *Envelope) before(name string, i int) int {
	n := 0
	for _, r := range e.Recipients[:i] {
		switch name {
		case "notify":
			n += count(r.Notify != "")
		case "reply":
			n += count(r.Reply != nil)
		default: // address and state are always there
			n++
		}
	}
	return n
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// word finds the value that is written as s.
func word[T fmt.Stringer](s string, values ...T) (T, error) {
	var words []string
	for _, v := range values {
		if v.String() == s {
			return v, nil
		}
		if v.String() != "" {
			words = append(words, v.String())
		}
	}
	return values[0], fmt.Errorf("%q is none of %s", s, strings.Join(words, ", "))
}

func (r *Recipient) recipient() (out queue.Recipient, field string, err error) {
	out = queue.Recipient{Attempts: r.Attempts, Time: r.Time, Host: r.Host}
	if out.Address, err = mail.ParseAddress(r.Address); err != nil {
		return out, "address", err
	}
	if out.State, err = word(r.State, queue.Pending, queue.Delivered, queue.Failed, queue.Expired, queue.Dropped); err != nil {
		return out, "state", err
	}
	for _, w := range strings.Split(r.Notify, ",") {
		if r.Notify == "" {
			break
		}
		bit, err := word(w, mail.NotifyNever, mail.NotifySuccess, mail.NotifyFailure, mail.NotifyDelay)
		if err != nil {
			return out, "notify", err
		}
		out.Notify |= bit
	}
	out.Original = r.Original
	if err := out.Recipient.Check(); err != nil {
		return out, "address", err
	}
	if r.Reply != nil {
		if out.Reply, err = r.Reply.reply(); err != nil {
			return out, "reply", err
		}
	}
	return out, "", nil
}

func (r *Reply) reply() (mail.Reply, error) {
	out := mail.Reply{Code: r.Code, Text: r.Text}
	if r.Enhanced != "" {
		parts := strings.Split(r.Enhanced, ".")
		if len(parts) != len(out.Enhanced) {
			return out, fmt.Errorf("%q is not an enhanced code", r.Enhanced)
		}
		for i, p := range parts {
			n, err := strconv.Atoi(p)
			if err != nil || n < 0 || n > 999 {
				return out, fmt.Errorf("%q is not an enhanced code", r.Enhanced)
			}
			out.Enhanced[i] = n
		}
	}
	if r.Code < 0 || r.Code > 999 {
		return out, fmt.Errorf("there is no reply code %d", r.Code)
	}
	return out, nil
}
