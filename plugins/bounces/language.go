package bounces

import (
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// language is all the words that a report needs. {name} is filled in. Paragraphs are wrapped when they are written.
type language struct {
	tag      string
	date     string // layout of a time
	subject  map[mail.FailureKind]string
	many     string // subject for several recipients
	hello    string
	opening  map[mail.FailureKind]string
	closing  map[mail.FailureKind]string
	about    string // the line with the message's subject
	sent     string // the line with its time
	expires  string
	quote    string // before another server's words
	ourQuote string // before our own
	more     string // recipients that are not listed
	signed   string
	cause    [causes]words
}

// words say what happened, and what the sender can do about it.
type words struct {
	what, todo string
}

func languageOf(tag string) *language {
	switch {
	case strings.EqualFold(tag, "en"):
		return &english
	case strings.EqualFold(tag, "ko"):
		return &korean
	}
	return nil
}

// fill puts values into a text.
func fill(text string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(text) }

func (l *language) time(t time.Time) string { return t.Format(l.date) }

var english = language{
	tag:  "en",
	date: "2 January 2006, 15:04 (-0700)",
	subject: map[mail.FailureKind]string{
		mail.FailurePermanent: "Not delivered: your message to {to}",
		mail.FailureDelayed:   "Delayed: your message to {to}",
		mail.FailureDelivered: "Delivered: your message to {to}",
	},
	many:  "{to} and {n} more",
	hello: "Hello,",
	opening: map[mail.FailureKind]string{
		mail.FailurePermanent: "this is the mail system at {host}. Your message could not be delivered to the addresses below, and it will not be tried again.",
		mail.FailureDelayed:   "this is the mail system at {host}. Your message has not reached the addresses below yet. You need not do anything: it is tried again until {expires}. If it can't be delivered by then, you will be told.",
		mail.FailureDelivered: "this is the mail system at {host}. You asked to be told when your message arrives. It has been delivered to the addresses below.",
	},
	closing: map[mail.FailureKind]string{
		mail.FailurePermanent: "Your message, or the beginning of it, is attached. If you need help, write to {postmaster} and attach this report.",
		mail.FailureDelayed:   "If you need help, write to {postmaster} and attach this report.",
		mail.FailureDelivered: "That a message was delivered does not mean that it was read.",
	},
	about:    "Subject: {subject}",
	sent:     "Sent: {time}",
	expires:  "Tried until: {time}",
	quote:    "{host} said:",
	ourQuote: "Our own server said:",
	more:     "and {n} more addresses, which the technical part of this report lists.",
	signed:   "The mail system at {host}",
	cause: [causes]words{
		causeRefused:  {"The message was refused.", "What the other server said, below, may tell why. If it does not, ask the recipient by another way."},
		causeUnknown:  {"There is no such mailbox.", "Check the address for a typing mistake, and send the message again to the right one."},
		causeMoved:    {"The recipient has another address now.", "Ask for the new address by another way, and send the message again to that."},
		causeDomain:   {"The part after the @ does not exist, or takes no mail.", "Check it for a typing mistake, and send the message again to the right address."},
		causeSender:   {"Your own address was refused.", "Make sure that your mail program sends with your real address. If it does, ask your postmaster."},
		causeClosed:   {"The mailbox exists but takes no mail.", "Ask the recipient by another way which address to use."},
		causeFull:     {"The mailbox is full.", "Tell the recipient by another way, or send the message again in some days."},
		causeTooLarge: {"The message is larger than the mailbox takes.", "Send it without attachments, or send a link to them."},
		causeServer:   {"The recipient's mail server has trouble.", "Send the message again later. If this goes on, tell the recipient by another way."},
		causeNetwork:  {"The recipient's mail server could not be reached.", "Check the part after the @ for a typing mistake. If it is right, send the message again later."},
		causeOperator: {"The operators of this mail system have given the message up.", "If you do not know why, ask them: the address is below."},
		causeExpired:  {"The message was tried for as long as it is kept, without success.", "Check the part after the @ for a typing mistake. If it is right, the other server is out of order: tell the recipient by another way."},
		causeLoop:     {"The message went in a circle: one server forwards it to another and back.", "Tell the recipient by another way that their forwarding is set up wrongly."},
		causeContent:  {"The other server does not take the form of the message or of its attachments.", "Send it as plain text, or put the attachments into a zip file."},
		causePolicy:   {"The other server refused the message by a rule of its own.", "What it said, below, may tell which. Words or links that look like spam are a frequent cause."},
		causeProof:    {"The other server could not verify that the message is from your domain.", "You can't mend that yourself: send this report to your postmaster."},
		causeSecure:   {"The connection to the other server could not be made as secure as it must be.", "You can't mend that yourself: send this report to your postmaster."},
	},
}

var korean = language{
	tag:  "ko",
	date: "2006년 1월 2일 15:04 (-0700)",
	subject: map[mail.FailureKind]string{
		mail.FailurePermanent: "배달하지 못했습니다: {to} 앞으로 보내신 메일",
		mail.FailureDelayed:   "배달이 늦어지고 있습니다: {to} 앞으로 보내신 메일",
		mail.FailureDelivered: "배달했습니다: {to} 앞으로 보내신 메일",
	},
	many:  "{to} 외 {n}명",
	hello: "안녕하세요.",
	opening: map[mail.FailureKind]string{
		mail.FailurePermanent: "{host} 메일 시스템입니다. 보내신 메일을 아래 주소로 배달하지 못했으며, 다시 시도하지 않습니다.",
		mail.FailureDelayed:   "{host} 메일 시스템입니다. 보내신 메일이 아직 아래 주소에 도착하지 않았습니다. 따로 하실 일은 없습니다. {expires}까지 계속 다시 시도하며, 그때까지 배달하지 못하면 알려 드리겠습니다.",
		mail.FailureDelivered: "{host} 메일 시스템입니다. 메일이 도착하면 알려 달라고 하셨습니다. 아래 주소로 배달했습니다.",
	},
	closing: map[mail.FailureKind]string{
		mail.FailurePermanent: "보내신 메일의 전체 또는 앞부분을 첨부했습니다. 도움이 필요하시면 이 알림을 첨부하여 {postmaster} 앞으로 메일을 보내 주십시오.",
		mail.FailureDelayed:   "도움이 필요하시면 이 알림을 첨부하여 {postmaster} 앞으로 메일을 보내 주십시오.",
		mail.FailureDelivered: "배달했다는 것이 받는 분이 읽었다는 뜻은 아닙니다.",
	},
	about:    "제목: {subject}",
	sent:     "보낸 때: {time}",
	expires:  "다시 시도하는 기한: {time}",
	quote:    "{host} 서버의 응답:",
	ourQuote: "저희 서버의 응답:",
	more:     "이 밖에 {n}개의 주소가 더 있으며, 이 알림의 기술 정보에 모두 적혀 있습니다.",
	signed:   "{host} 메일 시스템 드림",
	cause: [causes]words{
		causeRefused:  {"상대 서버가 메일을 거절했습니다.", "아래 상대 서버의 응답에 까닭이 적혀 있을 수 있습니다. 알 수 없으면 다른 방법으로 받는 분께 물어보십시오."},
		causeUnknown:  {"그런 메일 주소가 없습니다.", "주소에 잘못 쓴 글자가 없는지 확인하고, 바른 주소로 다시 보내 주십시오."},
		causeMoved:    {"받는 분의 주소가 바뀌었습니다.", "다른 방법으로 새 주소를 물어보고, 그 주소로 다시 보내 주십시오."},
		causeDomain:   {"@ 뒤의 도메인이 없거나 메일을 받지 않습니다.", "잘못 쓴 글자가 없는지 확인하고, 바른 주소로 다시 보내 주십시오."},
		causeSender:   {"상대 서버가 보내는 분의 주소를 거절했습니다.", "메일 프로그램에 보내는 주소가 바르게 설정되어 있는지 확인하고, 바르다면 메일 관리자에게 문의해 주십시오."},
		causeClosed:   {"주소는 있지만 메일을 받지 않는 상태입니다.", "다른 방법으로 받는 분께 어느 주소로 보내면 되는지 물어보십시오."},
		causeFull:     {"받는 분의 메일함이 가득 찼습니다.", "다른 방법으로 받는 분께 알리거나, 며칠 뒤에 다시 보내 주십시오."},
		causeTooLarge: {"메일이 상대가 받을 수 있는 크기보다 큽니다.", "첨부 파일을 빼거나, 파일을 내려받을 링크를 보내 주십시오."},
		causeServer:   {"상대 메일 서버에 문제가 있습니다.", "나중에 다시 보내 주십시오. 계속 이러면 다른 방법으로 받는 분께 알려 주십시오."},
		causeNetwork:  {"상대 메일 서버에 연결할 수 없습니다.", "@ 뒤의 도메인에 잘못 쓴 글자가 없는지 확인해 주십시오. 바르다면 나중에 다시 보내 주십시오."},
		causeOperator: {"이 메일 시스템의 관리자가 배달을 그만두었습니다.", "까닭을 모르시면 아래 주소로 관리자에게 물어보십시오."},
		causeExpired:  {"메일을 보관하는 기한까지 다시 시도했지만 배달하지 못했습니다.", "@ 뒤의 도메인에 잘못 쓴 글자가 없는지 확인해 주십시오. 바르다면 상대 서버가 고장 난 것이니 다른 방법으로 받는 분께 알려 주십시오."},
		causeLoop:     {"메일이 서버 사이를 맴돌았습니다. 한 서버가 다른 서버로 전달하고, 그 서버가 다시 되돌려 보냅니다.", "받는 분께 다른 방법으로 메일 전달 설정이 잘못되었다고 알려 주십시오."},
		causeContent:  {"상대 서버가 이 메일이나 첨부 파일의 형식을 받지 않습니다.", "일반 텍스트로 보내거나, 첨부 파일을 zip 파일로 묶어 보내 주십시오."},
		causePolicy:   {"상대 서버가 자체 규칙에 따라 메일을 거절했습니다.", "아래 상대 서버의 응답에 어떤 규칙인지 적혀 있을 수 있습니다. 스팸처럼 보이는 문구나 링크 때문인 경우가 많습니다."},
		causeProof:    {"이 메일이 정말 보내는 분의 도메인에서 왔는지 상대 서버가 확인하지 못했습니다.", "보내는 분이 직접 고칠 수 없는 문제입니다. 이 알림을 메일 관리자에게 전달해 주십시오."},
		causeSecure:   {"상대 서버와 충분히 안전하게 연결할 수 없었습니다.", "보내는 분이 직접 고칠 수 없는 문제입니다. 이 알림을 메일 관리자에게 전달해 주십시오."},
	},
}
