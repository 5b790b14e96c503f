package queue

import (
	"slices"
	"strings"
	"time"
)

// Filter selects messages. Its zero value selects all; what is set must all apply.
type Filter struct {
	From      string        // the reverse-path: an address, "<>", "@domain", or a pattern with *; in any case
	To        string        // a pending recipient: an address, "@domain", or a pattern with *
	Domain    string        // the domain of a pending recipient, or a pattern with *
	Reply     string        // the last reply for a pending recipient, as lists show it: a part of it, or a pattern with *
	State     string        // "waiting", "held", or "" for both
	OlderThan time.Duration // received at least so long ago
	IDs       []ID
	Limit     int  // List ends after so many; 0: no limit
	Patient   bool // List leaves the processors to the mail while there is some: at most a twentieth of one is for it
}

// Match reports whether the filter selects the record. Limit plays no part in it.
func (f Filter) Match(r *Record, now time.Time) bool {
	return f.matchMessage(r, now) && f.matchRecipient(r)
}

func (f Filter) matchMessage(r *Record, now time.Time) bool {
	switch {
	case len(f.IDs) > 0 && !slices.Contains(f.IDs, r.ID):
		return false
	case f.State == "held" && r.Held == "", f.State == "waiting" && r.Held != "":
		return false
	case f.OlderThan > 0 && now.Sub(r.Received) < f.OlderThan:
		return false
	case f.State != "" && f.State != "held" && f.State != "waiting":
		return false
	}
	if f.From == "" {
		return true
	}
	from := r.Envelope.From.String()
	if from == "" {
		from = "<>"
	}
	return likeAddress(f.From, from)
}

// matchRecipient asks To, Domain and Reply of the same recipient.
func (f Filter) matchRecipient(r *Record) bool {
	if f.To == "" && f.Domain == "" && f.Reply == "" {
		return true
	}
	return slices.ContainsFunc(r.Recipients, func(rcpt Recipient) bool {
		return rcpt.State == Pending &&
			(f.To == "" || likeAddress(f.To, rcpt.Address.String())) &&
			(f.Domain == "" || like(f.Domain, rcpt.Address.Domain())) &&
			(f.Reply == "" || f.matchReply(&rcpt))
	})
}

// matchReply asks for a part of the reply, since nobody types a whole one.
func (f Filter) matchReply(rcpt *Recipient) bool {
	return rcpt.Reply.Code != 0 && like("*"+f.Reply+"*", rcpt.Reply.String())
}

// likeAddress is like, but a pattern that begins with @ stands for every address at that domain.
func likeAddress(pattern, s string) bool {
	if strings.HasPrefix(pattern, "@") {
		pattern = "*" + pattern
	}
	return like(pattern, s)
}

// like matches s with a pattern in which each * stands for any characters. Case does not count.
func like(pattern, s string) bool {
	pattern, s = strings.ToLower(pattern), strings.ToLower(s)
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, head)
	if !ok {
		return false
	}
	for {
		part, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], more
	}
}
