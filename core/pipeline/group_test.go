package pipeline

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// after is a filter that needs time for its answer.
func after(d time.Duration, v mail.Verdict) filter {
	return func(a asked) (mail.Verdict, error) {
		select {
		case <-time.After(d):
			return v, nil
		case <-a.ctx.Done():
			return mail.Verdict{}, a.ctx.Err()
		}
	}
}

// grouped puts steps into one group.
func grouped(steps ...Step) []Step {
	for i := range steps {
		steps[i].Group = 1
	}
	return steps
}

func field(name string) mail.Edit { return mail.AddHeader{Name: name, Value: "1"} }

func TestParallelWorstWins(t *testing.T) {
	reject, later := mail.Reject(550, "5.7.1", "no"), mail.TempFail(450, "4.7.1", "later")
	bye := mail.Verdict{Action: mail.ActionDisconnect, Reply: mail.NewReply(421, "", "bye")}
	for name, tc := range map[string]struct {
		say  []mail.Verdict
		want mail.Action
	}{
		"all continue":                    {[]mail.Verdict{mail.Continue(), mail.Continue()}, mail.ActionContinue},
		"all accept":                      {[]mail.Verdict{mail.Accept(), mail.Accept()}, mail.ActionAccept},
		"accept does not beat continue":   {[]mail.Verdict{mail.Accept(), mail.Continue()}, mail.ActionContinue},
		"accept does not beat quarantine": {[]mail.Verdict{mail.Quarantine("q"), mail.Accept()}, mail.ActionQuarantine},
		"discard beats quarantine":        {[]mail.Verdict{mail.Quarantine("q"), mail.Discard("d")}, mail.ActionDiscard},
		"a refusal beats discard":         {[]mail.Verdict{later, mail.Discard("d")}, mail.ActionTempFail},
		"reject beats tempfail":           {[]mail.Verdict{later, reject}, mail.ActionReject},
		"disconnect beats reject":         {[]mail.Verdict{reject, bye, mail.Accept()}, mail.ActionDisconnect},
	} {
		var steps []Step
		for _, v := range tc.say {
			steps = append(steps, Step{Plugin: "p", Filter: says(v)})
		}
		p, events := with(grouped(steps...)...)
		if r := p.at(t.Context(), StageMessage, newSession()); r.Verdict.Action != tc.want || len(*events) != len(steps) {
			t.Errorf("%s: %v, %d events", name, r.Verdict, len(*events))
		}
	}
}

// TestParallelTakesAsLongAsTheSlowest also has the fastest answer last, and the fields in the order of the file.
func TestParallelTakesAsLongAsTheSlowest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := grouped(
			Step{Plugin: "slow", Filter: after(3*time.Second, mail.Continue(field("X-Slow")))},
			Step{Plugin: "off", Filter: says(mail.Reject(550, "", "no")), When: func(Facts) (bool, error) { return false, nil }},
			Step{Plugin: "quick", Filter: after(time.Second, mail.Continue(field("X-Quick"), mail.SetMeta{Key: "k", Value: "v"}))},
		)
		steps = append(steps, Step{Plugin: "alone", Filter: after(time.Second, mail.Continue(field("X-Alone")))})
		p, events := with(steps...)
		begin := time.Now()
		s := newSession()
		r := p.Message(t.Context(), s, newMessage(plain))
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("it took %v", took)
		}
		if got := text(t, r.Message.Content); !strings.HasPrefix(got, "X-Alone: 1\r\nX-Quick: 1\r\nX-Slow: 1\r\nSubject") || s.Meta["k"] != "v" {
			t.Errorf("%q, %v", got, s.Meta)
		}
		if (*events)[0].Took != 3*time.Second || (*events)[0].Edits != "add X-Slow" || (*events)[1].Plugin != "quick" || (*events)[1].Took != time.Second {
			t.Errorf("%+v", *events)
		}
	})
}

// TestParallelFailure: one step of a group that fails has its own on_error, and the others count all the same.
func TestParallelFailure(t *testing.T) {
	fails := filter(func(asked) (mail.Verdict, error) { return mail.Verdict{}, errors.New("broken") })
	edits := says(mail.Continue(mail.ReplaceBody{Body: []byte("x\r\n")}))
	for name, tc := range map[string]struct {
		bad    Step
		want   mail.Action
		header bool
	}{
		"accept":        {Step{Filter: fails, OnError: OnErrorAccept}, mail.ActionContinue, true},
		"tempfail":      {Step{Filter: fails}, mail.ActionTempFail, true},
		"more than add": {Step{Filter: edits}, mail.ActionTempFail, true},
	} {
		p, events := with(grouped(tc.bad, Step{Plugin: "good", Filter: says(mail.Continue(field("X-Good")))})...)
		r := p.Message(t.Context(), newSession(), newMessage(plain))
		if r.Verdict.Action != tc.want || strings.HasPrefix(text(t, r.Message.Content), "X-Good") != tc.header || len(r.Edits) != 1 || (*events)[0].Err == nil {
			t.Errorf("%s: %+v, %+v", name, r, *events)
		}
	}
}

func TestParallelBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Step{Plugin: "slow", Filter: after(time.Hour, mail.Continue()), Timeout: time.Hour, OnError: OnErrorAccept}
		p, _ := with(grouped(slow, slow, slow)...)
		begin := time.Now()
		r := p.Message(t.Context(), newSession(), newMessage(plain))
		if took := time.Since(begin); took != DefaultBudget || !strings.HasPrefix(r.Verdict.Reply.String(), "451 4.4.5") {
			t.Errorf("%v after %v", r.Verdict, took)
		}
	})
}

// busyError is what a plugin says that has too much to do.
type busyError struct{}

func (busyError) Error() string    { return "too busy" }
func (busyError) Overloaded() bool { return true }

func TestOnTimeoutAndOnOverload(t *testing.T) {
	late := filter(func(a asked) (mail.Verdict, error) { <-a.ctx.Done(); return mail.Verdict{}, a.ctx.Err() })
	busy := filter(func(asked) (mail.Verdict, error) {
		return mail.Verdict{}, errors.Join(errors.New("plugin x"), busyError{})
	})
	broken := filter(func(asked) (mail.Verdict, error) { return mail.Verdict{}, errors.New("no database") })
	for name, tc := range map[string]struct {
		filter filter
		step   Step
		want   mail.Action
	}{
		"time-out":                           {late, Step{OnTimeout: OnErrorAccept, OnOverload: OnErrorReject}, mail.ActionContinue},
		"time-out without a word of its own": {late, Step{OnError: OnErrorReject, OnOverload: OnErrorAccept}, mail.ActionReject},
		"overload":                           {busy, Step{OnOverload: OnErrorAccept, OnTimeout: OnErrorReject}, mail.ActionContinue},
		"overload without a word of its own": {busy, Step{OnError: OnErrorReject, OnTimeout: OnErrorAccept}, mail.ActionReject},
		"another error":                      {broken, Step{OnTimeout: OnErrorAccept, OnOverload: OnErrorAccept}, mail.ActionTempFail},
		"nothing said":                       {late, Step{}, mail.ActionTempFail},
	} {
		synctest.Test(t, func(t *testing.T) {
			tc.step.Filter = tc.filter
			p, _ := with(tc.step)
			if r := p.at(t.Context(), StageRcpt, newSession()); r.Verdict.Action != tc.want {
				t.Errorf("%s: %v", name, r.Verdict)
			}
		})
	}
}

// TestBudgetBeatsOnTimeout: a step that may be passed over is no way around the budget, nor around a client that has gone.
func TestBudgetBeatsOnTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := filter(func(a asked) (mail.Verdict, error) { <-a.ctx.Done(); return mail.Verdict{}, a.ctx.Err() })
		p, _ := with(Step{Filter: late, Timeout: time.Hour, OnTimeout: OnErrorAccept, OnError: OnErrorAccept})
		if r := p.Message(t.Context(), newSession(), newMessage(plain)); !strings.HasPrefix(r.Verdict.Reply.String(), "451 4.4.5") {
			t.Errorf("%v", r.Verdict)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r := p.Message(ctx, newSession(), newMessage(plain)); !strings.HasPrefix(r.Verdict.Reply.String(), "451 4.3.0") {
			t.Errorf("%v", r.Verdict)
		}
	})
}

func TestGrants(t *testing.T) {
	const signed = "Authentication-Results: mx; spf=pass\r\n" + plain
	edits := map[string]mail.Verdict{
		"add_header":   mail.Continue(mail.AddHeader{Name: "X", Value: "1"}),
		"edit_header":  mail.Continue(mail.RemoveHeader{ID: 2}, mail.ReplaceHeader{ID: 3, Value: "2"}),
		"auth_results": mail.Continue(mail.AddHeader{Name: "authentication-results", Value: "mx; none"}, mail.RemoveHeader{ID: 1}),
		"sender":       mail.Continue(mail.SetSender{Address: cy}),
		"recipients":   mail.Continue(mail.AddRecipient{Recipient: mail.Recipient{Address: cy}}, mail.DropRecipient{Address: bob}),
		"body":         mail.Continue(mail.ReplaceBody{Body: []byte("x\r\n")}),
		"meta":         mail.Continue(mail.SetMeta{Key: "k", Value: "v"}),
		"quarantine":   mail.Quarantine("q"),
		"discard":      mail.Discard("d"),
	}
	for name, v := range edits {
		for grant := range edits {
			for _, allow := range [][]Grant{nil, {}, {Grant(grant)}} {
				p, events := with(Step{Plugin: "p", Filter: says(v), Allow: allow})
				s := newSession()
				r := p.Message(t.Context(), s, newMessage(signed))
				ok := allow == nil || len(allow) == 1 && grant == name
				if (r.Verdict.Action == v.Action) != ok || (len(r.Edits) == len(v.Edits)) != ok && len(v.Edits) > 0 {
					t.Errorf("%s with %q: %v, %v", name, allow, r.Verdict, (*events)[0].Err)
				}
				if !ok && (len(s.Meta) > 0 || text(t, r.Message.Content) != signed || !strings.Contains((*events)[0].Err.Error(), name)) {
					t.Errorf("%s with %q: something remains, %v", name, allow, (*events)[0].Err)
				}
			}
		}
	}
	for _, v := range []mail.Verdict{mail.Continue(), mail.Accept(), mail.Reject(550, "", "no"), mail.TempFail(450, "", "later")} {
		p, _ := with(Step{Filter: says(v), Allow: []Grant{}})
		if r := p.Message(t.Context(), newSession(), newMessage(plain)); r.Verdict.Action != v.Action {
			t.Errorf("a plain verdict needs no grant: %v", r.Verdict)
		}
	}
}

func TestWords(t *testing.T) {
	many := make([]mail.Edit, maxWords+5)
	for i := range many {
		many[i] = field("X")
	}
	for want, edits := range map[string][]mail.Edit{
		"":                      nil,
		"add X, remove field 3": {field("X"), mail.RemoveHeader{ID: 3}},
		`k = "v"`:               {mail.SetMeta{Key: "k", Value: "v"}},
		"body of 3 bytes":       {mail.ReplaceBody{Body: []byte("x\r\n")}},
		"sender <>":             {mail.SetSender{}},
		"recipient <bob@example.com> becomes <cy@example.com>": {mail.RewriteRecipient{Old: bob, New: cy}},
	} {
		if got := Words(edits); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := Words(many); !strings.HasSuffix(got, ", and 5 more") {
		t.Error(got)
	}
}

// TestCurrent: a stage goes through the pipeline that is in force when it begins, and lets it go when it has ended.
func TestCurrent(t *testing.T) {
	for _, stage := range allStages {
		held := 0
		old, _ := with(Step{Filter: filter(func(asked) (mail.Verdict, error) {
			if held != 1 {
				t.Errorf("at %s the pipeline is held %d times while it is at work", stage, held)
			}
			return mail.Reject(550, "5.7.1", "the old one"), nil
		})})
		now := old
		live := &Pipeline{Current: func() (*Pipeline, func()) { held++; return now, func() { held-- } }}
		if r := live.at(t.Context(), stage, newSession()); r.Verdict.Reply.Text != "the old one" || held != 0 {
			t.Errorf("at %s: %v, held %d times", stage, r.Verdict, held)
		}
		now = nil
		if r := live.at(t.Context(), stage, newSession()); r.Verdict.Action != mail.ActionContinue || held != 0 {
			t.Errorf("at %s without a pipeline: %v, held %d times", stage, r.Verdict, held)
		}
	}
}
