package calls

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// Limits of what a plugin may answer.
const (
	maxEdits   = 10_000
	maxAliases = 10_000
	maxUser    = 320
	maxNotice  = 256 << 10
	maxReason  = 500
)

// answer is a response on its way out of the plugin.
type answer struct {
	res   *pb.Response
	large mail.Content // goes in chunks after the response (Large only)
	bytes int
}

// putContent puts a content into the answer; one that is too big for that goes in chunks, if the call came over Large.
func (a *answer) putContent(c mail.Content, streams bool) (*pb.Content, error) {
	size := c.Size()
	p := &pb.Content{Size: uint64(size)}
	switch {
	case size <= maxInline || size <= maxAnswer && !streams:
		p.Data = make([]byte, size)
		a.bytes += int(size)
		if n, err := c.ReadAt(p.Data, 0); int64(n) < size {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
	case streams && a.large == nil:
		p.Streamed, a.large = true, c
	default:
		return nil, fmt.Errorf("the answer holds %d bytes of content where at most %d fit", size, maxAnswer)
	}
	return p, nil
}

func answerError(err error) *answer {
	e := &pb.Error{Kind: pb.ErrorKind_ERROR_KIND_FAILED, Text: text(oneLine(err.Error(), 2000))}
	var reply *mail.Reply
	switch {
	case errors.Is(err, mail.ErrBadLogin):
		e.Kind = pb.ErrorKind_ERROR_KIND_BAD_LOGIN
	case errors.As(err, &reply):
		e.Kind, e.Reply = pb.ErrorKind_ERROR_KIND_REPLY, putReply(*reply)
	case errors.Is(err, ErrUnsupported):
		e.Kind = pb.ErrorKind_ERROR_KIND_UNSUPPORTED
	}
	return &answer{res: &pb.Response{Result: &pb.Response_Error{Error: e}}}
}

// takeError turns an Error into the error that the caller gets.
func takeError(e *pb.Error) error {
	switch e.GetKind() {
	case pb.ErrorKind_ERROR_KIND_FAILED, pb.ErrorKind_ERROR_KIND_PANIC:
		return &Failed{Text: oneLine(e.GetText(), maxReason), Panic: e.GetKind() == pb.ErrorKind_ERROR_KIND_PANIC}
	case pb.ErrorKind_ERROR_KIND_UNSUPPORTED:
		return ErrUnsupported
	case pb.ErrorKind_ERROR_KIND_BAD_LOGIN:
		return mail.ErrBadLogin
	case pb.ErrorKind_ERROR_KIND_TIMEOUT:
		return context.DeadlineExceeded
	case pb.ErrorKind_ERROR_KIND_REPLY:
		r, err := takeReply(e.GetReply())
		if err != nil {
			return err
		}
		if !r.Temporary() && !r.Permanent() {
			return fmt.Errorf("an error can't be the reply %d", r.Code)
		}
		return &r
	}
	return fmt.Errorf("an error of the unknown kind %d", e.GetKind())
}

func answerIdentity(id mail.Identity) *answer {
	return &answer{res: &pb.Response{Result: &pb.Response_Identity{Identity: &pb.Identity{
		User: text(id.User), Addresses: putAddresses(id.Addresses), AnySender: id.AnySender,
	}}}}
}

func takeIdentity(p *pb.Identity) (id mail.Identity, err error) {
	id.User, id.AnySender = p.GetUser(), p.GetAnySender()
	if id.User == "" || len(id.User) > maxUser || hasControl(id.User) {
		return mail.Identity{}, fmt.Errorf("the account's name is empty, too long or holds a control character")
	}
	if id.Addresses, err = takeAddresses(p.GetAddresses()); err != nil {
		return mail.Identity{}, err
	}
	return id, nil
}

func answerMailboxes(list []mail.Mailbox) *answer {
	p := &pb.Mailboxes{Mailboxes: make([]*pb.Mailbox, len(list))}
	for i, m := range list {
		p.Mailboxes[i] = &pb.Mailbox{State: pb.MailboxState(m.State), Aliases: putAddresses(m.Aliases)}
	}
	return &answer{res: &pb.Response{Result: &pb.Response_Mailboxes{Mailboxes: p}}}
}

func takeMailboxes(p *pb.Mailboxes, want int) ([]mail.Mailbox, error) {
	if len(p.GetMailboxes()) != want {
		return nil, fmt.Errorf("%d mailboxes where %d addresses were asked", len(p.GetMailboxes()), want)
	}
	out := make([]mail.Mailbox, want)
	for i, m := range p.GetMailboxes() {
		if m.GetState() < pb.MailboxState_MAILBOX_STATE_EXISTS || m.GetState() > pb.MailboxState_MAILBOX_STATE_FULL {
			return nil, fmt.Errorf("mailbox %d has the state %v", i+1, m.GetState())
		}
		out[i].State = mail.MailboxState(m.GetState())
		if n := len(m.GetAliases()); (n > 0) != (out[i].State == mail.MailboxAlias) || n > maxAliases {
			return nil, fmt.Errorf("mailbox %d is %v and has %d aliases", i+1, m.GetState(), n)
		}
		var err error
		if out[i].Aliases, err = takeAddresses(m.GetAliases()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func answerReplies(list []mail.Reply) *answer {
	p := &pb.Replies{Replies: make([]*pb.Reply, len(list))}
	for i, r := range list {
		if p.Replies[i] = putReply(r); p.Replies[i] == nil {
			p.Replies[i] = &pb.Reply{} // a mistake that the other side shall see and name
		}
	}
	return &answer{res: &pb.Response{Result: &pb.Response_Replies{Replies: p}}}
}

func takeReplies(p *pb.Replies, want int) ([]mail.Reply, error) {
	if len(p.GetReplies()) != want {
		return nil, fmt.Errorf("%d replies for %d recipients", len(p.GetReplies()), want)
	}
	out := make([]mail.Reply, want)
	for i, r := range p.GetReplies() {
		var err error
		if out[i], err = takeReply(r); err != nil {
			return nil, fmt.Errorf("reply %d: %w", i+1, err)
		}
		if c := out[i].Code / 100; c == 3 {
			return nil, fmt.Errorf("reply %d is %d; a recipient is answered 2xx, 4xx or 5xx", i+1, out[i].Code)
		}
	}
	return out, nil
}

func answerConverted(v mail.Converted, streams bool) (*answer, error) {
	a := &answer{}
	p := &pb.Converted{Body: putBody(v.Body)}
	a.res = &pb.Response{Result: &pb.Response_Converted{Converted: p}}
	if v.Content == nil {
		return a, nil
	}
	var err error
	p.Content, err = a.putContent(v.Content, streams)
	return a, err
}

func takeConverted(p *pb.Converted, streamed mail.Content) (v mail.Converted, err error) {
	if p.GetContent() == nil {
		return mail.Converted{}, nil
	}
	if v.Body, err = takeBody(p.GetBody()); err != nil {
		return mail.Converted{}, err
	}
	v.Content, err = answerContent(p.GetContent(), streamed)
	return v, err
}

// answerContent returns the content of an answer: streamed, or in it.
func answerContent(p *pb.Content, streamed mail.Content) (mail.Content, error) {
	if p.GetStreamed() {
		if streamed == nil {
			return nil, fmt.Errorf("content is announced and does not come")
		}
		return streamed, nil
	}
	if uint64(len(p.GetData())) != p.GetSize() {
		return nil, fmt.Errorf("content of %d bytes says that it has %d", len(p.GetData()), p.GetSize())
	}
	return mail.Bytes(p.GetData()), nil
}

func answerNotice(n mail.Notice) *answer {
	return &answer{res: &pb.Response{Result: &pb.Response_Notice{Notice: &pb.Notice{
		Action: pb.NoticeAction(n.Action), Subject: text(n.Subject), Text: text(n.Text), Language: text(n.Language), To: n.To.String(),
	}}}}
}

func takeNotice(p *pb.Notice) (n mail.Notice, err error) {
	n = mail.Notice{Action: mail.NoticeAction(p.GetAction()), Subject: p.GetSubject(), Text: p.GetText(), Language: p.GetLanguage()}
	switch {
	case p.GetAction() < pb.NoticeAction_NOTICE_ACTION_DEFAULT || p.GetAction() > pb.NoticeAction_NOTICE_ACTION_SUPPRESS:
		return mail.Notice{}, fmt.Errorf("the action %v", p.GetAction())
	case hasControl(n.Subject) || len(n.Subject) > 1000:
		return mail.Notice{}, fmt.Errorf("the subject is too long or holds a control character")
	case hasControl(strings.NewReplacer("\n", "", "\t", "").Replace(n.Text)) || len(n.Text) > maxNotice:
		return mail.Notice{}, fmt.Errorf("the text is too long or holds a control character other than \\n and tab")
	case !isLanguage(n.Language):
		return mail.Notice{}, fmt.Errorf("%q is no language tag", n.Language)
	case n.Action == mail.NoticeRender && n.Text == "":
		return mail.Notice{}, fmt.Errorf("a notice is to be worded and has no text")
	}
	if n.To, err = takePath(p.GetTo()); err != nil {
		return mail.Notice{}, err
	}
	return n, nil
}

func answerVerdict(v mail.Verdict, streams bool) (*answer, error) {
	a := &answer{}
	p := &pb.Verdict{Action: pb.Action(v.Action), Reply: putReply(v.Reply), Reason: text(v.Reason)}
	a.res = &pb.Response{Result: &pb.Response_Verdict{Verdict: p}}
	for i, e := range v.Edits {
		edit, err := a.putEdit(e, streams)
		if err != nil {
			return nil, fmt.Errorf("edit %d: %w", i+1, err)
		}
		p.Edits = append(p.Edits, edit)
	}
	return a, nil
}

func (a *answer) putEdit(e mail.Edit, streams bool) (*pb.Edit, error) {
	switch e := e.(type) {
	case mail.AddHeader:
		return &pb.Edit{Edit: &pb.Edit_AddHeader{AddHeader: &pb.AddHeader{Name: text(e.Name), Value: []byte(e.Value), Bottom: e.Bottom}}}, nil
	case mail.ReplaceHeader:
		return &pb.Edit{Edit: &pb.Edit_ReplaceHeader{ReplaceHeader: &pb.ReplaceHeader{Id: e.ID, Value: []byte(e.Value)}}}, nil
	case mail.RemoveHeader:
		return &pb.Edit{Edit: &pb.Edit_RemoveHeader{RemoveHeader: &pb.RemoveHeader{Id: e.ID}}}, nil
	case mail.SetSender:
		return &pb.Edit{Edit: &pb.Edit_SetSender{SetSender: e.Address.String()}}, nil
	case mail.AddRecipient:
		return &pb.Edit{Edit: &pb.Edit_AddRecipient{AddRecipient: putRecipient(e.Recipient)}}, nil
	case mail.DropRecipient:
		return &pb.Edit{Edit: &pb.Edit_DropRecipient{DropRecipient: e.Address.String()}}, nil
	case mail.RewriteRecipient:
		return &pb.Edit{Edit: &pb.Edit_RewriteRecipient{RewriteRecipient: &pb.RewriteRecipient{Old: e.Old.String(), New: e.New.String()}}}, nil
	case mail.ReplaceBody:
		c, err := a.putContent(mail.Bytes(e.Body), streams)
		return &pb.Edit{Edit: &pb.Edit_ReplaceBody{ReplaceBody: c}}, err
	case mail.SetMeta:
		return &pb.Edit{Edit: &pb.Edit_SetMeta{SetMeta: &pb.SetMeta{Key: text(e.Key), Value: text(e.Value)}}}, nil
	}
	return nil, fmt.Errorf("%T is no edit", e)
}

// takeVerdict returns a verdict that is legal, or an error.
func takeVerdict(p *pb.Verdict, streamed mail.Content) (v mail.Verdict, err error) {
	if p.GetAction() < 0 || p.GetAction() > pb.Action_ACTION_DISCONNECT {
		return mail.Verdict{}, fmt.Errorf("the unknown action %d", p.GetAction())
	}
	v.Action, v.Reason = mail.Action(p.GetAction()), oneLine(p.GetReason(), maxReason)
	if p.GetReply() != nil {
		if v.Reply, err = takeReply(p.GetReply()); err != nil {
			return mail.Verdict{}, err
		}
	}
	if len(p.GetEdits()) > maxEdits {
		return mail.Verdict{}, fmt.Errorf("%d edits, more than %d", len(p.GetEdits()), maxEdits)
	}
	for i, e := range p.GetEdits() {
		edit, err := takeEdit(e, streamed)
		if err != nil {
			return mail.Verdict{}, fmt.Errorf("edit %d: %w", i+1, err)
		}
		v.Edits = append(v.Edits, edit)
	}
	if err := v.Check(); err != nil {
		return mail.Verdict{}, err
	}
	return v, nil
}

func takeEdit(p *pb.Edit, streamed mail.Content) (mail.Edit, error) {
	switch e := p.GetEdit().(type) {
	case *pb.Edit_AddHeader:
		return mail.AddHeader{Name: e.AddHeader.GetName(), Value: string(e.AddHeader.GetValue()), Bottom: e.AddHeader.GetBottom()}, nil
	case *pb.Edit_ReplaceHeader:
		return mail.ReplaceHeader{ID: e.ReplaceHeader.GetId(), Value: string(e.ReplaceHeader.GetValue())}, nil
	case *pb.Edit_RemoveHeader:
		return mail.RemoveHeader{ID: e.RemoveHeader.GetId()}, nil
	case *pb.Edit_SetSender:
		a, err := takePath(e.SetSender)
		return mail.SetSender{Address: a}, err
	case *pb.Edit_AddRecipient:
		r, err := takeRecipient(e.AddRecipient)
		return mail.AddRecipient{Recipient: r}, err
	case *pb.Edit_DropRecipient:
		a, err := mail.ParseAddress(e.DropRecipient)
		return mail.DropRecipient{Address: a}, err
	case *pb.Edit_RewriteRecipient:
		return takeRewrite(e.RewriteRecipient)
	case *pb.Edit_ReplaceBody:
		return takeBodyEdit(e.ReplaceBody, streamed)
	case *pb.Edit_SetMeta:
		return takeMeta(e.SetMeta)
	}
	return nil, fmt.Errorf("an edit of an unknown kind")
}

func takeRewrite(p *pb.RewriteRecipient) (mail.Edit, error) {
	from, err := mail.ParseAddress(p.GetOld())
	if err != nil {
		return nil, err
	}
	to, err := mail.ParseAddress(p.GetNew())
	return mail.RewriteRecipient{Old: from, New: to}, err
}

func takeBodyEdit(p *pb.Content, streamed mail.Content) (mail.Edit, error) {
	c, err := answerContent(p, streamed)
	if err != nil {
		return nil, err
	}
	body := make([]byte, c.Size())
	if n, err := c.ReadAt(body, 0); n < len(body) {
		return nil, fmt.Errorf("reading the new body: %w", err)
	}
	return mail.ReplaceBody{Body: body}, nil
}

func takeMeta(p *pb.SetMeta) (mail.Edit, error) {
	if len(p.GetKey()) > 200 || len(p.GetValue()) > 2000 || !utf8.ValidString(p.GetValue()) {
		return nil, fmt.Errorf("a meta key has at most 200 bytes, a meta value 2000")
	}
	return mail.SetMeta{Key: p.GetKey(), Value: p.GetValue()}, nil
}
