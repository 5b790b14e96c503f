package bounces

import "github.com/pabal-mta/mta/sdk/mail"

// cause is what happened to a recipient, as far as its sender need know.
type cause uint8

const (
	causeRefused cause = iota // for good, nobody says why
	causeUnknown              // no such mailbox
	causeMoved
	causeDomain // no such domain, or it takes no mail
	causeSender // our sender's address was refused
	causeClosed // the mailbox takes nothing
	causeFull
	causeTooLarge
	causeServer  // trouble at the other side
	causeNetwork // it could not be reached
	causeExpired // we tried long enough
	causeLoop
	causeContent // the form of the message
	causePolicy
	causeProof // SPF, DKIM, DMARC
	causeSecure
	causeOperator // our own operator gave it up
	causes        // how many there are
)

// causeFor says what happened to a recipient. A final word of ours that names no cause is our operator's.
func causeFor(f mail.FailedRecipient) cause {
	if f.Host == "" && f.Reply.Enhanced == (mail.EnhancedCode{5, 0, 0}) {
		return causeOperator
	}
	return causeOf(f.Reply)
}

// causeOf reads a reply: by its enhanced code (RFC 3463), without one by what the basic code alone tells (RFC 5321, 4.2.2).
func causeOf(r mail.Reply) cause {
	e := r.Enhanced
	if c, ok := byDetail[[2]int{e[1], e[2]}]; ok && e != (mail.EnhancedCode{}) {
		return c
	}
	if c, ok := bySubject[e[1]]; ok {
		return c
	}
	if c, ok := byCode[r.Code]; ok {
		return c
	}
	if r.Temporary() {
		return causeServer
	}
	return causeRefused
}

// byDetail tells subject and detail apart. Codes above 3463 are from RFC 5248's registry.
var byDetail = map[[2]int]cause{
	{1, 0}: causeUnknown, {1, 1}: causeUnknown, {1, 2}: causeDomain, {1, 3}: causeUnknown, {1, 6}: causeMoved,
	{1, 7}: causeSender, {1, 8}: causeSender, {1, 10}: causeDomain,
	{2, 0}: causeClosed, {2, 1}: causeClosed, {2, 2}: causeFull, {2, 3}: causeTooLarge, {2, 4}: causeUnknown,
	{3, 4}: causeTooLarge, {4, 3}: causeServer, {4, 6}: causeLoop, {4, 7}: causeExpired,
	{7, 8}: causeSender, {7, 10}: causeSecure, {7, 20}: causeProof, {7, 21}: causeProof, {7, 22}: causeProof, {7, 23}: causeProof,
	{7, 24}: causeProof, {7, 25}: causeProof, {7, 26}: causeProof, {7, 30}: causeSecure,
}

var bySubject = map[int]cause{1: causeUnknown, 3: causeServer, 4: causeNetwork, 6: causeContent, 7: causePolicy}

var byCode = map[int]cause{552: causeFull, 452: causeFull, 551: causeMoved, 556: causeDomain, 521: causeDomain}
