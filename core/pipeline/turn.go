package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// turn is one stage of one session on its way through the steps.
type turn struct {
	p       *Pipeline
	stage   Stage
	session *mail.Session // the caller's; only its Meta is ever changed
	view    *mail.Session // what filters see: a copy, because a late filter may read it when the session has gone on
	rcpt    mail.Recipient
	draft   draft // at the message stage
	ready   bool  // draft has its header
	edits   []mail.Edit
}

// run asks one step after the other, and those of a group together. Caller is the context that the stage was started with;
// ctx has the budget as well.
func (t *turn) run(caller, ctx context.Context, steps []Step) Result {
	for len(steps) > 0 {
		n := groupSize(steps)
		now := steps[:n]
		steps = steps[n:]
		if !slices.ContainsFunc(now, func(s Step) bool { return handles(s.Filter, t.stage) }) {
			continue
		}
		if err := t.prepare(); err != nil {
			return t.end(headerVerdict(err))
		}
		var v mail.Verdict
		var end bool
		if n == 1 {
			v, end = t.step(caller, ctx, &now[0])
		} else {
			v, end = t.together(caller, ctx, now)
		}
		if end {
			return t.end(v)
		}
	}
	return t.end(mail.Continue())
}

func (t *turn) end(v mail.Verdict) Result {
	v.Edits = nil
	return Result{Verdict: v, Edits: t.edits}
}

// prepare makes what filters are shown. It is not done before the first step that is interested.
func (t *turn) prepare() error {
	if t.view == nil {
		view := *t.session
		t.view = &view
	}
	if t.stage != StageMessage || t.ready {
		return nil
	}
	d, err := newDraft(t.draft.msg)
	if err != nil {
		return err
	}
	t.draft, t.ready = d, true
	return nil
}

// step asks one filter, and reports whether its verdict ends the stage.
func (t *turn) step(caller, ctx context.Context, step *Step) (v mail.Verdict, end bool) {
	a := t.inquire(ctx, step)
	if !a.asked {
		return mail.Verdict{}, false
	}
	v = t.settle(caller, ctx, step, a)
	return v, v.Action != mail.ActionContinue
}

// inquiry is what came of asking a filter.
type inquiry struct {
	asked bool // its condition holds, or could not be evaluated
	answer
	took time.Duration
}

// inquire asks a filter and changes nothing of the turn.
func (t *turn) inquire(ctx context.Context, step *Step) (a inquiry) {
	start := time.Now()
	a.asked, a.err = t.wanted(step)
	if a.err == nil && a.asked {
		a.verdict, a.err = t.p.call(ctx, step, t.stage.timeout(step), t.bind(step.Filter))
	}
	a.asked, a.took = a.asked || a.err != nil, time.Since(start)
	return a
}

// settle makes what a filter has answered count, and returns the verdict of its step.
func (t *turn) settle(caller, ctx context.Context, step *Step, a inquiry) mail.Verdict {
	v, err := a.verdict, a.err
	if errors.Is(err, errLate) {
		t.leaveView()
	}
	if err == nil {
		err = t.take(step, v)
	}
	v.Reason = cleanReason(v.Reason)
	if err != nil {
		v = t.failed(caller, ctx, step, err)
	}
	t.tell(step, v, a.took, err)
	return v
}

// wanted evaluates the step's condition.
func (t *turn) wanted(step *Step) (ok bool, err error) {
	if step.When == nil {
		return true, nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in the step's condition: %v", r)
		}
	}()
	f := Facts{Session: t.view}
	switch t.stage {
	case StageRcpt:
		rcpt := t.rcpt
		f.Rcpt = &rcpt
	case StageMessage:
		f.Message = t.draft.msg
	}
	if ok, err = step.When(f); err != nil {
		err = fmt.Errorf("the step's condition: %w", err)
	}
	return ok, err
}

// take accepts a verdict with all of its edits, or refuses it and changes nothing.
func (t *turn) take(step *Step, v mail.Verdict) error {
	if err := v.Check(); err != nil {
		return err
	}
	if len(v.Edits) > maxEdits {
		return fmt.Errorf("the verdict has %d edits, more than %d", len(v.Edits), maxEdits)
	}
	if !t.stage.allows(v.Action) {
		return fmt.Errorf("%s is no verdict for the stage %s", v.Action, t.stage)
	}
	if err := t.granted(step, v); err != nil {
		return err
	}
	for _, e := range v.Edits {
		if err := t.stage.check(e, t.rcpt.Address); err != nil {
			return err
		}
	}
	meta, err := withMeta(t.session.Meta, v.Edits)
	if err != nil {
		return err
	}
	if t.stage == StageMessage {
		d, err := t.draft.apply(v.Edits)
		if err != nil {
			return err
		}
		t.draft = d
	}
	t.edits = append(t.edits, v.Edits...)
	t.show(meta, v.Edits)
	return nil
}

// show lets the steps that follow see what this one has changed.
func (t *turn) show(meta map[string]string, edits []mail.Edit) {
	if len(edits) == 0 {
		return
	}
	view := *t.view
	view.Meta, t.session.Meta = meta, meta
	for _, e := range edits {
		switch e := e.(type) {
		case mail.SetSender:
			view.From = e.Address
		case mail.RewriteRecipient:
			if t.stage == StageRcpt {
				t.rcpt.Address = e.New
			}
		}
	}
	t.view = &view
}

// leaveView leaves what a late filter may still read to that filter alone. Meta is replaced and never written into; the
// session appends to To, and may use its room again.
func (t *turn) leaveView() {
	t.session.To = slices.Clone(t.session.To)
	view := *t.view
	view.To = t.session.To
	t.view = &view
	if t.ready {
		m := *t.draft.msg
		m.Envelope = m.Envelope.Clone()
		t.draft.msg = &m
	}
}

// failed returns what a step that failed leads to.
func (t *turn) failed(caller, ctx context.Context, step *Step, err error) mail.Verdict {
	reason := cleanReason(fmt.Sprintf("plugin %s: %v", step.Plugin, err))
	refuse := func(action mail.Action, reply mail.Reply) mail.Verdict {
		return mail.Verdict{Action: action, Reply: reply, Reason: reason}
	}
	onError := step.onError(err)
	switch {
	case caller.Err() != nil: // the client or the server goes; no step is to blame, and nothing may be accepted
		return refuse(mail.ActionTempFail, replyTrouble)
	case ctx.Err() != nil:
		return refuse(mail.ActionTempFail, replyBudget)
	case onError == OnErrorAccept:
		return mail.Verdict{Action: mail.ActionContinue, Reason: reason}
	case onError == OnErrorReject:
		return refuse(mail.ActionReject, replyRefused)
	case onError == OnErrorQuarantine && t.stage.allows(mail.ActionQuarantine):
		return mail.Quarantine(reason)
	default:
		return refuse(mail.ActionTempFail, replyTrouble)
	}
}

// onError is what is to happen after a failure of that kind.
func (s *Step) onError(err error) OnError {
	var busy interface{ Overloaded() bool }
	switch {
	case s.OnOverload != "" && errors.As(err, &busy) && busy.Overloaded():
		return s.OnOverload
	case s.OnTimeout != "" && errors.Is(err, context.DeadlineExceeded):
		return s.OnTimeout
	}
	return s.OnError
}

func (t *turn) tell(step *Step, v mail.Verdict, took time.Duration, err error) {
	if t.p.Events == nil {
		return
	}
	e := event.Event{
		Name: event.FilterVerdict, Session: t.session.ID, Listener: t.session.Listener, Plugin: step.Plugin,
		Stage: string(t.stage), Class: v.Action.String(), Reason: v.Reason, Took: took, Err: err,
	}
	if err == nil {
		e.Edits = Words(v.Edits)
	}
	if t.stage == StageRcpt {
		e.To = t.rcpt.Address.String()
	}
	if t.draft.msg != nil {
		e.ID, e.Size = t.draft.msg.ID, t.draft.msg.Content.Size()
	}
	if v.Reply.Code != 0 {
		e.Reply = v.Reply.String()
	}
	t.p.Events.Emit(e)
}

const (
	maxEdits = 10_000 // of one verdict; a list server that adds every subscriber stays below
	maxMeta  = 256    // values that filters can leave with a session
)

// withMeta returns meta with the values of the edits; meta itself stays as it is.
func withMeta(meta map[string]string, edits []mail.Edit) (map[string]string, error) {
	copied := false
	for _, e := range edits {
		set, ok := e.(mail.SetMeta)
		if !ok {
			continue
		}
		if !copied {
			meta, copied = maps.Clone(meta), true
		}
		if meta == nil {
			meta = make(map[string]string)
		}
		meta[set.Key] = set.Value
	}
	if len(meta) > maxMeta {
		return nil, fmt.Errorf("filters have set more than %d meta values", maxMeta)
	}
	return meta, nil
}

// maxReason bounds the words that a plugin can put into the log and into the queue, in characters.
const maxReason = 500

// cleanReason makes a plugin's words fit one line of a log or of a list on a terminal.
func cleanReason(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if n := 0; len(s) > maxReason {
		for i := range s {
			if n++; n > maxReason {
				s = s[:i]
				break
			}
		}
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, s)
}
