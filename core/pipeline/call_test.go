package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

func TestTimeout(t *testing.T) {
	patient := filter(func(a asked) (mail.Verdict, error) { <-a.ctx.Done(); return mail.Accept(), a.ctx.Err() })
	for _, stage := range allStages {
		for name, tc := range map[string]struct {
			step Step
			want time.Duration
		}{
			"own":     {Step{Timeout: 2 * time.Second}, 2 * time.Second},
			"default": {Step{}, map[bool]time.Duration{true: time.Minute, false: 5 * time.Second}[stage == StageMessage]},
		} {
			synctest.Test(t, func(t *testing.T) {
				tc.step.Filter = patient
				p, events := with(tc.step)
				start := time.Now()
				r := p.at(t.Context(), stage, newSession())
				if took := time.Since(start); took != tc.want || r.Verdict.Action != mail.ActionTempFail {
					t.Errorf("%s at %s: %v after %v", name, stage, r.Verdict, took)
				}
				if e := (*events)[0]; e.Took != tc.want || !errors.Is(e.Err, context.DeadlineExceeded) {
					t.Errorf("%s at %s: %+v", name, stage, e)
				}
			})
		}
	}
}

// TestDeafFilter has a filter that ignores its context. Run with -race, it also shows that the session may go on while the
// filter still reads what it was given.
func TestDeafFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake, read := make(chan struct{}), make(chan string)
		deaf := filter(func(a asked) (mail.Verdict, error) {
			<-wake
			got := a.session.From.String() + fmt.Sprint(a.session.Meta) + a.session.To[0].Address.String()
			if a.message != nil {
				got += a.message.Envelope.To[0].Address.String()
			}
			read <- got
			return mail.Accept(mail.SetMeta{Key: "late", Value: "1"}), nil
		})
		p, _ := with(Step{Plugin: "deaf", Filter: deaf, OnError: OnErrorAccept}, Step{Plugin: "next", Filter: says(mail.Continue(mail.SetMeta{Key: "next", Value: "1"}))})
		for _, stage := range []Stage{StageRcpt, StageMessage} {
			s := newSession()
			s.To = append(make([]mail.Recipient, 0, 8), mail.Recipient{Address: bob})
			m := newMessage(plain)
			var r Result
			if stage == StageMessage {
				r = p.Message(t.Context(), s, m)
				r.Message.Envelope.To[0].Address, m.Envelope.To[0].Address = cy, cy
			} else {
				r = p.Rcpt(t.Context(), s, mail.Recipient{Address: bob})
			}
			if r.Verdict.Action != mail.ActionContinue || s.Meta["next"] != "1" {
				t.Errorf("%+v, %v", r, s.Meta)
			}
			s.From, s.To = mail.Address{}, append(s.To[:0], mail.Recipient{Address: cy})
			s.Meta["next"] = "2"
			want := "ann@example.commap[]bob@example.com"
			if stage == StageMessage {
				want += "bob@example.com"
			}
			wake <- struct{}{}
			if got := <-read; got != want {
				t.Errorf("the late filter read %q, want %q", got, want)
			}
			synctest.Wait()
			if s.Meta["late"] != "" || p.late.of("deaf") != 0 {
				t.Errorf("%v, %d", s.Meta, p.late.of("deaf"))
			}
		}
	})
}

func TestDeafFilterIsAskedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{})
		var calls atomic.Int64
		p, _ := with(
			Step{Plugin: "deaf", Filter: filter(func(asked) (mail.Verdict, error) { calls.Add(1); <-wake; return mail.Accept(), nil }), OnError: OnErrorAccept},
			Step{Plugin: "other", Filter: says(mail.Accept())},
		)
		for range maxLate + 10 {
			if r := p.Connect(t.Context(), newSession()); r.Verdict.Action != mail.ActionAccept {
				t.Fatalf("the other step has not been asked: %+v", r)
			}
		}
		if n := calls.Load(); n != maxLate {
			t.Errorf("%d calls", n)
		}
		close(wake)
		synctest.Wait()
		if r := p.Connect(t.Context(), newSession()); r.Verdict.Action != mail.ActionAccept || calls.Load() != maxLate+1 {
			t.Errorf("after it has come back: %+v, %d calls", r, calls.Load())
		}
	})
}

func TestBudget(t *testing.T) {
	slow := filter(func(a asked) (mail.Verdict, error) {
		select {
		case <-time.After(50 * time.Second):
			return mail.Continue(mail.SetMeta{Key: "x", Value: "1"}), nil
		case <-a.ctx.Done():
			return mail.Verdict{}, a.ctx.Err()
		}
	})
	for _, tc := range []struct{ budget, want time.Duration }{{0, 4*time.Minute + 30*time.Second}, {75 * time.Second, 75 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			step := Step{Plugin: "slow", Filter: slow, OnError: OnErrorAccept} // which has no say when the budget is spent
			p, events := with(step, step, step, step, step, step, step)
			p.Budget = tc.budget
			start := time.Now()
			r := p.Message(t.Context(), newSession(), newMessage(plain))
			if took := time.Since(start); took != tc.want || !strings.HasPrefix(r.Verdict.Reply.String(), "451 4.4.5") || r.Verdict.Action != mail.ActionTempFail {
				t.Errorf("%v after %v", r.Verdict, took)
			}
			if want := int(tc.want/(50*time.Second)) + 1; len(*events) != want {
				t.Errorf("%d events, want %d", len(*events), want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // other stages have none
		step := Step{Plugin: "slow", Filter: slow, Timeout: time.Minute}
		p, _ := with(step, step, step, step, step, step, step)
		if r := p.Connect(t.Context(), newSession()); r.Verdict.Action != mail.ActionContinue {
			t.Errorf("%+v", r)
		}
	})
}

func TestCallerGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	called := 0
	goes := filter(func(asked) (mail.Verdict, error) { called++; cancel(); return mail.Verdict{}, errors.New("x") })
	for _, stage := range allStages {
		p, _ := with(Step{Filter: goes, OnError: OnErrorAccept}, Step{Filter: says(mail.Accept())})
		if r := p.at(ctx, stage, newSession()); r.Verdict.Action != mail.ActionTempFail || r.Verdict.Reply != replyTrouble {
			t.Errorf("at %s: %+v", stage, r.Verdict)
		}
	}
	if called != 1 {
		t.Errorf("%d calls; after the first nobody wants to know", called)
	}
}

// prompt is a filter that says that it returns in time.
type prompt struct{ filter }

func (prompt) HonorsContext() bool { return true }

func TestPromptFilter(t *testing.T) {
	for _, stage := range allStages {
		for name, f := range broken {
			if name == "goexit" { // it would end this very goroutine; a plugin host of ours does not
				continue
			}
			p, _ := with(Step{Filter: prompt{f}})
			if r := p.at(t.Context(), stage, newSession()); r.Verdict.Action != mail.ActionTempFail {
				t.Errorf("%s at %s: %+v", name, stage, r)
			}
		}
		synctest.Test(t, func(t *testing.T) {
			patient := func(a asked) (mail.Verdict, error) { <-a.ctx.Done(); return mail.Accept(), a.ctx.Err() }
			p, _ := with(Step{Filter: prompt{patient}, Timeout: time.Second})
			start := time.Now()
			if r := p.at(t.Context(), stage, newSession()); r.Verdict.Action != mail.ActionTempFail || time.Since(start) != time.Second {
				t.Errorf("at %s: %+v after %v", stage, r, time.Since(start))
			}
		})
	}
}
