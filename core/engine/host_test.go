package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/sdk/mail"
)

func TestBuckets(t *testing.T) {
	var b buckets
	now := time.Unix(1700000000, 0)
	takes := func(label string, now time.Time) (n int) {
		for n < 1000 && b.take(label, now) {
			n++
		}
		return n
	}
	if n := takes("a", now); n != submitBurst {
		t.Errorf("%d at once", n)
	}
	if n := takes("b", now); n != submitBurst {
		t.Errorf("another plugin gets %d", n)
	}
	if n := takes("a", now.Add(time.Second)); n != submitRate {
		t.Errorf("%d in the next second", n)
	}
	if n := takes("a", now.Add(time.Hour)); n != submitBurst {
		t.Errorf("%d after an hour", n)
	}
}

func TestWellFormed(t *testing.T) {
	for content, want := range map[string]bool{
		"": false, "a: b\r\n": true, "a: b\r\n\r\nc\r\n": true, "a: b": false, "a: b\n": false, "a: b\r\nc": false, "a\nb\r\n": false,
		"a\rb\r\n": false, "a\r\r\n": false, "a\x00b\r\n": false, "a\r\n.\r\n": true, "\n\r\n": false,
	} {
		if wellFormed([]byte(content)) != want {
			t.Errorf("%q", content)
		}
	}
}

func TestStamped(t *testing.T) {
	s := &services{label: "digest", hostname: "mx.example"}
	m := &mail.Message{Content: mail.Bytes([]byte("Subject: 안녕\r\n\r\nx\r\n"))}
	b, err := s.stamped(m)
	if err != nil || m.Envelope.Body != mail.Body8Bit {
		t.Fatal(m.Envelope.Body, err)
	}
	h, _, err := mail.ReadHeader(mail.Bytes(b))
	if err != nil || h[0].Name != "Received" || !strings.HasPrefix(h.Get("Received"), "by mx.example (plugin digest);") || !h.Has("Date") || !h.Has("Message-ID") || h.Get("Subject") == "" {
		t.Errorf("%s, %v", b, err)
	}
	m = &mail.Message{Content: mail.Bytes([]byte("Date: x\r\nMessage-ID: <a@b>\r\n\r\n"))}
	if b, err = s.stamped(m); err != nil || strings.Count(string(b), "Date:") != 1 || strings.Count(string(b), "Message-ID:") != 1 || m.Envelope.Body != mail.Body7Bit {
		t.Errorf("%s, %v", b, err)
	}
	for content, code := range map[string]int{
		strings.Repeat("Received: x\r\n", maxReceived) + "\r\n": 554, "no header\r\n": 554, "\r\nbody\r\n": 554, "a: b\n": 554,
	} {
		var r *mail.Reply
		if _, err := s.stamped(&mail.Message{Content: mail.Bytes([]byte(content))}); !errors.As(err, &r) || r.Code != code {
			t.Errorf("%.30q: %v", content, err)
		}
	}
}

// listenerPlugin stands for a plugin that observes.
type listenerPlugin struct {
	mu    sync.Mutex
	fails bool
	hangs bool
	heard []string
}

func (p *listenerPlugin) tell(ctx context.Context, _ string, events []mail.Event) error {
	p.mu.Lock()
	fails, hangs := p.fails, p.hangs
	p.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if fails {
		return errors.New("down")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		p.heard = append(p.heard, e.ID)
	}
	return nil
}

func (p *listenerPlugin) set(fails, hangs bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fails, p.hangs = fails, hangs
}

func (p *listenerPlugin) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.heard)
}

// TestObserverDown keeps what an observer that is down did not hear, in order, as much as there is room for.
func TestObserverDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &listenerPlugin{fails: true}
		o := &observers{tell: p.tell}
		o.put(event.Event{ID: "nobody listens yet"})
		o.use([]string{"watch"})
		for i := range maxKept + 5 {
			o.put(event.Event{ID: fmt.Sprint(i), Err: errors.New("x")})
		}
		time.Sleep(time.Hour)
		o.use([]string{"watch", "other"}) // a reload leaves the outbox alone
		p.set(false, false)
		time.Sleep(time.Minute)
		o.use([]string{"watch"})
		if o.lost("watch") != 5 || p.count() < maxKept || p.heard[0] != "0" || !slices.Contains(p.heard, fmt.Sprint(maxKept-1)) {
			t.Errorf("%d heard, %d lost", p.count(), o.lost("watch"))
		}
		o.put(event.Event{ID: "again"})
		synctest.Wait()
		if p.heard[len(p.heard)-1] != "again" {
			t.Error("an outbox that was full takes nothing any more")
		}
		o.use(nil)
	})
}

// TestObserverHangs stops while an observer hangs, and puts events without waiting for it.
func TestObserverHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &listenerPlugin{hangs: true}
		o := &observers{tell: p.tell}
		o.use([]string{"watch"})
		begin := time.Now()
		for range 100 {
			o.put(event.Event{ID: "x"})
		}
		if time.Since(begin) > 0 {
			t.Error("mail waited for an observer")
		}
		synctest.Wait()
		o.use(nil)
		if d := time.Since(begin); d > lastWords {
			t.Errorf("the stop took %v", d)
		}
	})
}

// TestObserverLastWords tells what waits when an observer is taken off.
func TestObserverLastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &listenerPlugin{fails: true}
		o := &observers{tell: p.tell}
		o.use([]string{"watch"})
		for i := range 1000 {
			o.put(event.Event{ID: fmt.Sprint(i)})
		}
		synctest.Wait()
		p.set(false, false)
		o.use(nil)
		if p.count() != 1000 {
			t.Errorf("%d of 1000 heard", p.count())
		}
	})
}

// TestSuspects holds a message in which the same plugin died twice in a row, and no other.
func TestSuspects(t *testing.T) {
	var s suspects
	died := func(name string) []deliver.Outcome {
		err := error(&plugin.Error{Plugin: name, Err: fmt.Errorf("%w (EOF)", plugin.ErrLost)})
		return []deliver.Outcome{{Class: deliver.TempFail}, {Class: deliver.TempFail, Err: fmt.Errorf("store: %w", err)}}
	}
	down := []deliver.Outcome{{Class: deliver.TempFail, Err: &plugin.Error{Plugin: "store", Err: plugin.ErrDown}}}
	for i, c := range []struct {
		id       string
		outcomes []deliver.Outcome
		held     bool
	}{
		{"a", died("store"), false}, {"b", died("store"), false}, {"b", down, false}, {"b", died("store"), false},
		{"a", died("mime"), false}, {"a", died("store"), false}, {"a", died("store"), true}, {"a", died("store"), false},
		{"b", died("store"), true},
	} {
		if reason := s.note(c.id, c.outcomes); (reason != "") != c.held || c.held && !strings.Contains(reason, `"store"`) {
			t.Errorf("step %d: %q", i, reason)
		}
	}
	for i := range 2 * maxSuspects {
		s.note(fmt.Sprint(i), died("store"))
	}
	if len(s.seen) > maxSuspects {
		t.Errorf("%d are remembered", len(s.seen))
	}
}
