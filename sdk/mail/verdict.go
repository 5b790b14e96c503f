package mail

import "fmt"

// Action is what a filter decided. The zero value is a bug in the filter, never "accept".
type Action uint8

// The actions.
const (
	ActionUnspecified Action = iota // a bug: the step's on_error applies
	ActionContinue                  // no objection: the next step is asked
	ActionAccept                    // accepted: the rest of this stage is skipped
	ActionReject                    // refused for good: 5xx
	ActionTempFail                  // refused for now: 4xx
	ActionDiscard                   // accepted with 250 and thrown away
	ActionQuarantine                // accepted and held in the queue for an operator
	ActionDisconnect                // 421 and the connection is closed
)

var actionNames = [...]string{"unspecified", "continue", "accept", "reject", "tempfail", "discard", "quarantine", "disconnect"}

// String returns the action's name as it stands in logs.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Verdict is a filter's answer for one stage.
type Verdict struct {
	Action Action
	Reply  Reply  // for reject, tempfail and disconnect
	Reason string // for the log and the trace; a peer never sees it
	Edits  []Edit // applied only if the step ends well
}

// Continue lets the message pass to the next step, with the given edits.
func Continue(edits ...Edit) Verdict { return Verdict{Action: ActionContinue, Edits: edits} }

// Accept ends the stage: no later step of it is asked.
func Accept(edits ...Edit) Verdict { return Verdict{Action: ActionAccept, Edits: edits} }

// Reject refuses for good. The code is 5xx; enhanced may be "".
func Reject(code int, enhanced, format string, args ...any) Verdict {
	return Verdict{Action: ActionReject, Reply: reply(code, enhanced, format, args)}
}

// TempFail refuses for now: the peer keeps the message and tries again. The code is 4xx; enhanced may be "".
func TempFail(code int, enhanced, format string, args ...any) Verdict {
	return Verdict{Action: ActionTempFail, Reply: reply(code, enhanced, format, args)}
}

// Discard answers 250 and throws the message away.
func Discard(reason string) Verdict { return Verdict{Action: ActionDiscard, Reason: reason} }

// Quarantine answers 250 and holds the message in the queue, with the reason, until an operator releases it.
func Quarantine(reason string, edits ...Edit) Verdict {
	return Verdict{Action: ActionQuarantine, Reason: reason, Edits: edits}
}

func reply(code int, enhanced, format string, args []any) Reply {
	r := Reply{Code: code, Text: fmt.Sprintf(format, args...)}
	if enhanced != "" {
		// A malformed code is left as an impossible one, so that Check refuses the verdict where it is received.
		e, err := ParseEnhanced(enhanced)
		if err != nil {
			e = EnhancedCode{-1, -1, -1}
		}
		r.Enhanced = e
	}
	return r
}

// Check returns an error when the verdict breaks the contract: no action, or a reply that does not fit it.
func (v Verdict) Check() error {
	var class int
	switch v.Action {
	case ActionContinue, ActionAccept, ActionDiscard, ActionQuarantine:
		return checkEdits(v.Edits)
	case ActionReject:
		class = 5
	case ActionTempFail, ActionDisconnect:
		class = 4
	default:
		return fmt.Errorf("the filter gave no verdict (%s)", v.Action)
	}
	if err := v.Reply.Check(); err != nil {
		return fmt.Errorf("%s: %w", v.Action, err)
	}
	if v.Reply.Code/100 != class {
		return fmt.Errorf("%s needs a %dxx reply, not %d", v.Action, class, v.Reply.Code)
	}
	return checkEdits(v.Edits)
}

func checkEdits(edits []Edit) error {
	for i, e := range edits {
		if e == nil {
			return fmt.Errorf("edit %d is nil", i+1)
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("edit %d (%T): %w", i+1, e, err)
		}
	}
	return nil
}
