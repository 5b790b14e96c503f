package mail

import (
	"bytes"
	"io"
	"time"
)

// Content is the whole of a message as it is on the wire, header and body, lines ended by CRLF, never dot-stuffed.
// It may be read by several goroutines at once. Reading it fails only if the store under it fails. What a plugin is given is there
// until its method has returned; what it wants to keep it copies.
type Content interface {
	io.ReaderAt
	Size() int64 // in bytes
}

// Bytes makes a Content of bytes in memory. The bytes must not change afterwards.
func Bytes(b []byte) Content { return bytes.NewReader(b) }

// Reader returns a reader over the whole content, from its start.
func Reader(c Content) *io.SectionReader { return io.NewSectionReader(c, 0, c.Size()) }

// Message is a message with its envelope, as filters, converters and stores see it.
type Message struct {
	ID       string // queue ID; "" before the message is queued
	Envelope Envelope
	Header   Header // filled where the asker wants headers
	Content  Content
}

// Delivery asks a store to put a message into mailboxes.
type Delivery struct {
	ID      string // the same for every try of the same message: a store that sees it twice stores it once
	From    Address
	To      []Recipient
	Content Content
	Time    time.Time // when the message was received
}

// Conversion asks a converter for a form of the message that the next hop takes.
type Conversion struct {
	ID       string
	Envelope Envelope
	Content  Content
	Target   Target
}

// Target is what a next hop can take.
type Target struct {
	EightBit bool // 8BITMIME
	Binary   bool // BINARYMIME, with CHUNKING
	UTF8     bool // SMTPUTF8
	Mailbox  bool // the next hop is a mailbox: content is wanted in its original 8-bit or binary form
}

// Converted is a converter's answer.
type Converted struct {
	Content Content // nil: nothing had to change
	Body    BodyType
}

// Failure tells a bounce notifier of recipients that a message did not reach, or has not reached yet.
type Failure struct {
	ID         string // of the message that failed
	Kind       FailureKind
	From       Address // who is told
	EnvID      string
	Recipients []FailedRecipient
	Header     []byte // the original message's header, at most 64 KiB
	Arrived    time.Time
	Expires    time.Time // for FailureDelayed: when we give up
	Hostname   string    // the reporting MTA
	Postmaster Address   // who the report comes from
}

// FailureKind says what a report is about.
type FailureKind uint8

// The kinds of report.
const (
	FailurePermanent FailureKind = iota + 1 // it will not be tried again
	FailureDelayed                          // it is still being tried
	FailureDelivered                        // not a failure: NOTIFY=SUCCESS asked to be told
)

// FailedRecipient is one recipient of a report.
type FailedRecipient struct {
	Recipient Recipient
	Reply     Reply  // the last word on it
	Host      string // who said so; "" when it was ourselves
	Time      time.Time
}

// NoticeAction is what a bounce notifier wants done.
type NoticeAction uint8

// The actions of a notifier. The zero value is a bug in it, and the server's own report goes out.
const (
	NoticeUnspecified NoticeAction = iota
	NoticeDefault                  // the server's own words
	NoticeRender                   // these words
	NoticeSuppress                 // no mail at all
)

// Notice is a bounce notifier's answer: the human part of a report (RFC 3462). The machine part is always the server's.
type Notice struct {
	Action   NoticeAction
	Subject  string // UTF-8, one line
	Text     string // UTF-8, lines ended by "\n"
	Language string // a language tag (RFC 5646) such as "ko"; may be ""
	To       Address
}
