package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pabal-mta/mta/sdk/mail"
)

// allows reports whether an action has a meaning at the stage. Discard and quarantine need a message to come.
func (s Stage) allows(a mail.Action) bool {
	switch a {
	case mail.ActionDiscard, mail.ActionQuarantine:
		return s != StageConnect && s != StageHelo
	default:
		return true
	}
}

// check lets an edit through that has a meaning at the stage. Rcpt is the recipient that is asked about.
func (s Stage) check(e mail.Edit, rcpt mail.Address) error {
	var ok bool
	switch e := e.(type) {
	case mail.SetMeta:
		ok = true
	case mail.AddHeader:
		ok = s == StageMail || s == StageRcpt || s == StageMessage
		if isProtected(e.Name) {
			return fmt.Errorf("a filter can't add a %s field", e.Name)
		}
		// It is made when the message is there, and whether that is an SMTPUTF8 one is not known to a session.
		if s != StageMessage && strings.IndexFunc(e.Value, beyondASCII) >= 0 {
			return fmt.Errorf("the value of the %s field is not US-ASCII; before the stage message it has to be encoded (RFC 2047)", e.Name)
		}
	case mail.SetSender:
		ok = s == StageMail || s == StageMessage
	case mail.AddRecipient:
		ok = s == StageRcpt || s == StageMessage
	case mail.RewriteRecipient:
		ok = s == StageRcpt && e.Old == rcpt || s == StageMessage
	default:
		ok = s == StageMessage
	}
	if !ok {
		return fmt.Errorf("%T is no edit for the stage %s", e, s)
	}
	return nil
}

// protected is the fields that tell where a message has been. Who could change them could hide a loop.
var protected = []string{"Received", "Return-Path", "Delivered-To"}

func isProtected(name string) bool {
	return slices.ContainsFunc(protected, func(p string) bool { return strings.EqualFold(p, name) })
}

func beyondASCII(c rune) bool { return c >= utf8.RuneSelf }
