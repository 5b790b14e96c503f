package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Stage is a moment of an SMTP session at which filters are asked.
type Stage string

// The stages, in the order in which a session comes to them.
const (
	StageConnect Stage = "connect"
	StageHelo    Stage = "helo"
	StageMail    Stage = "mail"
	StageRcpt    Stage = "rcpt"
	StageMessage Stage = "message"
)

// OnError is what happens when a step fails. The empty one is OnErrorTempFail.
type OnError string

// The ways to go on. OnErrorAccept means as if the step had said continue, with none of its edits. At connect and helo
// there is no message to quarantine, so there OnErrorQuarantine is OnErrorTempFail.
const (
	OnErrorTempFail   OnError = "tempfail"
	OnErrorAccept     OnError = "accept"
	OnErrorReject     OnError = "reject"
	OnErrorQuarantine OnError = "quarantine"
)

// Step is one filter in a stage.
type Step struct {
	Plugin string // its name, for the operator
	// Filter has the method of the stage, as sdk's filter interfaces have it; a step without it is passed over. A filter
	// that has more methods than it means has a method Handles(stage string) bool too, which says which are meant. One that
	// returns as soon as its context ends, whatever its plugin does, says so by HonorsContext() bool, and is then asked
	// without a goroutine of its own.
	Filter  any
	When    func(Facts) (bool, error) // nil: always
	Timeout time.Duration             // 0: 60 s at message, 5 s elsewhere
	OnError OnError
	// OnTimeout and OnOverload are for a step that had no answer in time, and for one whose plugin had too much to do to be
	// asked; "" is OnError. The error of a plugin that has too much to do has a method Overloaded() bool.
	OnTimeout  OnError
	OnOverload OnError
	// Group is not 0 for steps that are asked together: those beside each other that have the same. The worst of their
	// verdicts counts, and what they may edit is to add header fields and to set meta values, which are put together in the
	// order of the steps.
	Group int
	Allow []Grant // what it may do beside giving verdicts; nil: all there is
}

// Grant is a kind of edit, or of verdict, that a step may be kept to.
type Grant string

// The grants. Without GrantAuthResults a step that is kept to some grants can't touch Authentication-Results fields, which
// others believe (RFC 8601, 5).
const (
	GrantAddHeader   Grant = "add_header"
	GrantEditHeader  Grant = "edit_header" // replace and remove
	GrantAuthResults Grant = "auth_results"
	GrantSender      Grant = "sender"
	GrantRecipients  Grant = "recipients" // add, drop and rewrite
	GrantBody        Grant = "body"
	GrantMeta        Grant = "meta"
	GrantQuarantine  Grant = "quarantine"
	GrantDiscard     Grant = "discard"
)

// Facts is what a step's condition looks at. Rcpt is set at rcpt, Message at message.
type Facts struct {
	Session *mail.Session
	Rcpt    *mail.Recipient
	Message *mail.Message
}

// Pipeline is the steps of a listener, by stage. It must not be copied after it has been used.
type Pipeline struct {
	Name   string
	Stages map[Stage][]Step
	Events *event.Bus
	// Budget is for all steps of the message stage together; 0 is 4m30s. A client waits ten minutes after its last line
	// (RFC 5321, 4.5.3.2.6), and many wait five.
	Budget time.Duration
	// Current, if set, makes this a stand-in for the pipeline that is in force when a stage begins; nil is none. What it
	// returns is not taken down before release is called, when the stage has ended.
	Current func() (p *Pipeline, release func())

	late lateCalls
}

// Result is how a stage ended.
type Result struct {
	// Verdict is always a legal one. Its own Edits are nil.
	Verdict mail.Verdict
	// Edits are those of all steps that ended well, in order. SetMeta among them has been done to the session already.
	Edits []mail.Edit
	// Message is, at the message stage, the message with the edits of that stage made; it is what Apply returns for them.
	Message *mail.Message
}

// DefaultBudget is the Budget of a pipeline that says nothing else.
const DefaultBudget = 4*time.Minute + 30*time.Second

const (
	defaultTimeout        = 5 * time.Second
	defaultMessageTimeout = time.Minute
)

// What peers are told when a step fails. The words name no plugin.
var (
	replyTrouble = mail.NewReply(451, "4.3.0", "temporary local problem, try again later")
	replyBudget  = mail.NewReply(451, "4.4.5", "checking the message took too long, try again later")
	replyRefused = mail.NewReply(554, "5.3.0", "local problem, message refused")
	replyHeader  = mail.NewReply(552, "5.3.4", "the header of the message is too long")
)

// Connect asks the filters about a new connection.
func (p *Pipeline) Connect(ctx context.Context, s *mail.Session) Result {
	return p.ask(ctx, StageConnect, s, mail.Recipient{})
}

// Helo asks the filters about the name that a client calls itself.
func (p *Pipeline) Helo(ctx context.Context, s *mail.Session) Result {
	return p.ask(ctx, StageHelo, s, mail.Recipient{})
}

// Mail asks the filters about the reverse-path s.From.
func (p *Pipeline) Mail(ctx context.Context, s *mail.Session) Result {
	return p.ask(ctx, StageMail, s, mail.Recipient{})
}

// Rcpt asks the filters about one recipient.
func (p *Pipeline) Rcpt(ctx context.Context, s *mail.Session, rcpt mail.Recipient) Result {
	return p.ask(ctx, StageRcpt, s, rcpt)
}

func (p *Pipeline) ask(ctx context.Context, stage Stage, s *mail.Session, rcpt mail.Recipient) Result {
	if p != nil && p.Current != nil {
		now, release := p.Current()
		defer release()
		return now.ask(ctx, stage, s, rcpt)
	}
	steps := p.steps(stage)
	if len(steps) == 0 {
		return Result{Verdict: mail.Continue()}
	}
	t := &turn{p: p, stage: stage, session: s, rcpt: rcpt}
	return t.run(ctx, ctx, steps)
}

// Message asks the filters about a whole message, within the budget.
func (p *Pipeline) Message(ctx context.Context, s *mail.Session, m *mail.Message) Result {
	if p != nil && p.Current != nil {
		now, release := p.Current()
		defer release()
		return now.Message(ctx, s, m)
	}
	steps := p.steps(StageMessage)
	if len(steps) == 0 {
		return Result{Verdict: mail.Continue(), Message: m}
	}
	budget := p.Budget
	if budget <= 0 {
		budget = DefaultBudget
	}
	limited, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	t := &turn{p: p, stage: StageMessage, session: s, draft: draft{msg: m}}
	r := t.run(ctx, limited, steps)
	r.Message = t.draft.msg
	return r
}

// steps is nil for a nil pipeline too: a listener need not have one.
func (p *Pipeline) steps(stage Stage) []Step {
	if p == nil {
		return nil
	}
	return p.Stages[stage]
}

// headerVerdict answers for a message whose header can't be read.
func headerVerdict(err error) mail.Verdict {
	if errors.Is(err, mail.ErrHeaderTooLong) {
		return mail.Verdict{Action: mail.ActionReject, Reply: replyHeader, Reason: err.Error()}
	}
	return mail.Verdict{Action: mail.ActionTempFail, Reply: replyTrouble, Reason: err.Error()}
}
