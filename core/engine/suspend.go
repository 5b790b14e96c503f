package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/core/schedule"
	"github.com/pabal-mta/mta/sdk/mail"
)

// suspensions is the destinations and senders that the operator has suspended. They are kept in a file, since a restart must not send
// what somebody wanted kept.
type suspensions struct {
	path string

	mu   sync.Mutex
	list []schedule.Suspension
}

// openSuspensions reads the file. One that can't be read is an error: to go on without it would send what is to be kept.
func openSuspensions(dir string) (*suspensions, error) {
	s := &suspensions{path: filepath.Join(dir, "suspended.json")}
	text, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s.list)
	}
	if err != nil {
		return nil, fmt.Errorf("what is suspended can't be read: %s: %w; to start without any, remove the file", s.path, err)
	}
	return s, nil
}

func (s *suspensions) all() []schedule.Suspension {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

// ofSender returns the suspension of the sender of a message, or nil.
func (s *suspensions) ofSender(rec *queue.Record) *schedule.Suspension {
	list := s.all()
	for i := range list {
		if list[i].Sent(rec) {
			return &list[i]
		}
	}
	return nil
}

// change puts what f makes of the list in its place: in the file first, and then by use.
func (s *suspensions) change(f func([]schedule.Suspension) ([]schedule.Suspension, error), use func([]schedule.Suspension)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := f(slices.Clone(s.list))
	if err == nil {
		err = s.write(list)
	}
	if err != nil {
		return err
	}
	s.list = list
	use(list)
	return nil
}

func (s *suspensions) write(list []schedule.Suspension) error {
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(s.path)
	f, err := os.CreateTemp(dir, ".suspended-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Suspend implements admin.Server.
func (e *Engine) Suspend(_ context.Context, what, reason string) (admin.Suspension, error) {
	name, err := suspendable(what, e.current.Load().routes)
	if err != nil {
		return admin.Suspension{}, err
	}
	x := schedule.Suspension{What: name, Reason: strings.TrimSpace(reason), Since: time.Now().Round(0)}
	err = e.suspended.change(func(list []schedule.Suspension) ([]schedule.Suspension, error) {
		for i := range list {
			if list[i].What == name { // for another reason now
				x.Since = list[i].Since
				list[i] = x
				return list, nil
			}
		}
		return append(list, x), nil
	}, e.schedule.Suspend)
	if err != nil {
		return admin.Suspension{}, err
	}
	e.tellSuspension(event.Event{Name: event.MailSuspended, Reason: x.Reason}, &x)
	return e.suspension(x), nil
}

// Resume implements admin.Server.
func (e *Engine) Resume(_ context.Context, what string) (admin.Suspension, error) {
	name, err := suspendable(what, e.current.Load().routes)
	if err != nil {
		name = what // of a route that is no more
	}
	var was admin.Suspension
	err = e.suspended.change(func(list []schedule.Suspension) ([]schedule.Suspension, error) {
		at := slices.IndexFunc(list, func(x schedule.Suspension) bool { return x.What == name })
		if at < 0 {
			return nil, fmt.Errorf("%s is not suspended; %s", name, listed(list))
		}
		was = e.suspension(list[at])
		return slices.Delete(list, at, at+1), nil
	}, e.schedule.Suspend)
	if err == nil {
		e.tellSuspension(event.Event{Name: event.MailResumed, Took: time.Since(was.Since)}, &schedule.Suspension{What: name})
	}
	return was, err
}

func (e *Engine) tellSuspension(v event.Event, x *schedule.Suspension) {
	if x.OfSender() {
		v.From = x.What
	} else {
		v.Host = x.What
	}
	e.events.Emit(v)
}

func listed(list []schedule.Suspension) string {
	if len(list) == 0 {
		return "nothing is"
	}
	names := make([]string, len(list))
	for i, x := range list {
		names[i] = x.What
	}
	return "suspended: " + strings.Join(names, ", ")
}

// suspension is one as the operator sees it.
func (e *Engine) suspension(x schedule.Suspension) admin.Suspension {
	out := admin.Suspension{What: x.What, Reason: x.Reason, Since: x.Since, Waiting: -1}
	if !x.OfSender() {
		out.Waiting = e.schedule.Suspended(x)
	}
	return out
}

// whyOf is why something is suspended, never empty.
func whyOf(x *schedule.Suspension) string { return cmp.Or(x.Reason, "by the operator") }

// suspendable finds what an operator means, in its canonical form: a sender, which has an @, or a destination.
func suspendable(s string, routes route.Table) (string, error) {
	if s != "<>" && !strings.Contains(s, "@") {
		return destinationOf(s, routes)
	}
	if s == "<>" || strings.HasPrefix(s, "@") || strings.Contains(s, "*") {
		if len(s) < 2 || len(s) > 320 || strings.ContainsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }) {
			return "", fmt.Errorf("%q is no pattern of senders; one is @example.com, or news-*@example.com", s)
		}
		return strings.ToLower(s), nil
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return "", fmt.Errorf("%q is no sender: %w", s, err)
	}
	return a.String(), nil
}

// destinationOf finds the destination: everything, a route, or domains.
func destinationOf(s string, routes route.Table) (string, error) {
	if s == "*" || slices.ContainsFunc(routes, func(r *route.Route) bool { return r.Name == s }) {
		return s, nil
	}
	name, below := strings.CutPrefix(s, "*.")
	domain, err := mail.ParseDomain(name)
	if err != nil || !below && !strings.ContainsAny(domain, ".[") {
		names := make([]string, len(routes))
		for i, r := range routes {
			names[i] = r.Name
		}
		return "", fmt.Errorf("%q is no destination: give a domain, *.domain for all below it, a route (%s), * for everything, or a sender, who has an @", s, strings.Join(names, ", "))
	}
	sample := domain
	if below {
		sample, domain = "a."+domain, "*."+domain
	}
	for _, r := range routes {
		switch {
		case !r.Matches(sample):
		case r.Kind == route.MX:
			return domain, nil
		default:
			return "", fmt.Errorf("mail for %s goes by route %q, which is one destination for all its domains: suspend %s", s, r.Name, r.Name)
		}
	}
	return domain, nil
}
