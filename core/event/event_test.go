package event

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestListenersHearUntilTheyStop(t *testing.T) {
	var b Bus
	var first, second []Name
	stop := b.Listen(func(e Event) { first = append(first, e.Name) })
	b.Listen(func(e Event) {
		if e.Time.IsZero() {
			t.Error("an event has no time")
		}
		second = append(second, e.Name)
	})
	b.Emit(Event{Name: MessageQueued})
	stop()
	stop()
	b.Emit(Event{Name: Attempt})
	if len(first) != 1 || len(second) != 2 || second[1] != Attempt {
		t.Errorf("heard %v and %v", first, second)
	}
}

func TestNilBusTakesEvents(t *testing.T) {
	var b *Bus
	b.Emit(Event{Name: Warning})
}

func TestListenWhileEmitting(t *testing.T) {
	var b Bus
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				stop := b.Listen(func(Event) {})
				b.Emit(Event{Name: Warning})
				stop()
			}
		})
	}
	wg.Wait()
}

// TestHostileWordsStayOnOneLine: what peers say goes into the log as a value, never as a line of its own.
func TestHostileWordsStayOnOneLine(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	e := Event{Name: Attempt, ID: "01", From: "a\r\nb", Reply: "550 \x1b[31m\u2028x", Reason: `{"level":"ERROR"}`,
		Size: 1, Count: 2, Attempt: 3, Took: time.Second, Next: time.Unix(0, 0), Err: errors.New("x\ny")}
	log.LogAttrs(t.Context(), slog.LevelInfo, string(e.Name), e.Attrs()...)
	if strings.Count(out.String(), "\n") != 1 || strings.ContainsAny(out.String(), "\r\x1b") {
		t.Errorf("logged %q", out.String())
	}
}
