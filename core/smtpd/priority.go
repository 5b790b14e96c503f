package smtpd

import (
	"strconv"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// MT-PRIORITY (RFC 6710) is a parameter of MAIL. go-smtp knows it at RCPT only, so the desk reads it and go-smtp never sees it.

// cutPriority takes MT-PRIORITY out of the parameters of MAIL. It reports false for a value that is none, and for two.
func cutPriority(params string) (rest string, priority int8, ok bool) {
	const name = "MT-PRIORITY="
	if !strings.Contains(strings.ToUpper(params), name[:len(name)-1]) {
		return params, 0, true
	}
	var kept strings.Builder
	found := false
	for word := range strings.FieldsSeq(params) {
		value, is := cutFold(word, name)
		if !is && !strings.EqualFold(word, name[:len(name)-1]) {
			kept.WriteString(" " + word)
			continue
		}
		n, err := strconv.ParseInt(value, 10, 8)
		if err != nil || found || strconv.FormatInt(n, 10) != value || n < -mail.MaxPriority || n > mail.MaxPriority {
			return "", 0, false
		}
		priority, found = int8(n), true
	}
	return kept.String(), priority, true
}

// prioritize gives the transaction the priority that was asked for. Whoever may not relay may not push in front of others
// either, and is told what the message got.
func (d *desk) prioritize() {
	if d.tx.env.Priority = d.path.priority; d.tx.env.Priority > 0 && !d.trusted {
		d.tx.env.Priority, d.tx.lowered = 0, true
	}
}

// queuedReply is the reply to a message that was taken. The one of a lowered priority begins with the new one (RFC 6710,
// on X.3.6).
func (d *desk) queuedReply(id string) mail.Reply {
	if d.tx.lowered {
		return mail.Reply{Code: 250, Enhanced: mail.EnhancedCode{2, 3, 6}, Text: "0 is the priority that it gets; queued as " + id}
	}
	return mail.Reply{Code: 250, Enhanced: mail.EnhancedCode{2, 0, 0}, Text: "queued as " + id}
}
