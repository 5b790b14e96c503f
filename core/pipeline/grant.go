package pipeline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// granted refuses what the step is not allowed to do.
func (t *turn) granted(step *Step, v mail.Verdict) error {
	for _, e := range v.Edits {
		if step.Group != 0 && !isParallel(e) {
			return fmt.Errorf("%s: a step that is asked together with others can only add header fields and set meta values", wordsOf(e))
		}
		if g := t.grantOf(e); step.Allow != nil && !slices.Contains(step.Allow, g) {
			return fmt.Errorf("%s: the step does not allow %q", wordsOf(e), g)
		}
	}
	g, wanted := grantOfAction(v.Action)
	if wanted && step.Allow != nil && !slices.Contains(step.Allow, g) {
		return fmt.Errorf("%s: the step does not allow %q", v.Action, g)
	}
	return nil
}

// isParallel reports whether edits of this kind by several steps can be put together.
func isParallel(e mail.Edit) bool {
	switch e.(type) {
	case mail.AddHeader, mail.SetMeta:
		return true
	default:
		return false
	}
}

func grantOfAction(a mail.Action) (g Grant, wanted bool) {
	switch a {
	case mail.ActionQuarantine:
		return GrantQuarantine, true
	case mail.ActionDiscard:
		return GrantDiscard, true
	default:
		return "", false
	}
}

func (t *turn) grantOf(e mail.Edit) Grant {
	switch e := e.(type) {
	case mail.AddHeader:
		return headerGrant(e.Name, GrantAddHeader)
	case mail.ReplaceHeader:
		return headerGrant(t.fieldName(e.ID), GrantEditHeader)
	case mail.RemoveHeader:
		return headerGrant(t.fieldName(e.ID), GrantEditHeader)
	case mail.SetSender:
		return GrantSender
	case mail.AddRecipient, mail.DropRecipient, mail.RewriteRecipient:
		return GrantRecipients
	case mail.ReplaceBody:
		return GrantBody
	default:
		return GrantMeta
	}
}

func headerGrant(name string, otherwise Grant) Grant {
	if strings.EqualFold(name, "Authentication-Results") {
		return GrantAuthResults
	}
	return otherwise
}

// fieldName returns the name of a field of the message, or "".
func (t *turn) fieldName(id uint32) string {
	if t.draft.msg == nil {
		return ""
	}
	for _, f := range t.draft.msg.Header {
		if f.ID == id {
			return f.Name
		}
	}
	return ""
}
