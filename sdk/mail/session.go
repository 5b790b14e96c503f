package mail

import (
	"errors"
	"net/netip"
)

// TLS tells how a connection is encrypted.
type TLS struct {
	Version    string // "TLS 1.3"
	Cipher     string // "TLS_AES_128_GCM_SHA256"
	ServerName string // the name that the client asked for (SNI); may be ""
}

// Session is what is known of an SMTP connection and of the transaction in it, as far as it has come.
type Session struct {
	ID       string         // unique among the sessions of this server
	Listener string         // the label of the listener block
	Remote   netip.AddrPort // who speaks; zero for a message that the server itself made
	Local    netip.AddrPort
	Helo     string // what the client called itself; "" before HELO
	ESMTP    bool   // it said EHLO (or LHLO)
	TLS      *TLS   // nil without TLS
	User     string // the account that logged in; "" for none
	From     Address
	To       []Recipient       // accepted so far
	Meta     map[string]string // set by earlier steps with SetMeta
}

// Authenticated reports whether the client has logged in.
func (s *Session) Authenticated() bool { return s.User != "" }

// Login is what a client gave to log in.
type Login struct {
	User      string
	Password  string
	Mechanism string // "PLAIN", "LOGIN"
	Remote    netip.AddrPort
	Service   string // "smtp", "imap", "pop3"
}

// Identity is who a login turned out to be.
type Identity struct {
	User      string    // the account's canonical name, such as ann@example.com
	Addresses []Address // the reverse-paths that it may use; empty: its own name only
	AnySender bool      // it may use any reverse-path
}

// MailboxState is a directory's answer for an address.
type MailboxState uint8

// The states. The zero value is a bug in the directory and counts as a temporary failure.
const (
	MailboxUnspecified MailboxState = iota
	MailboxExists
	MailboxUnknown
	MailboxAlias // mail for it goes to other addresses
	MailboxFull  // it exists and takes no more for now
)

// Mailbox is what a directory knows of one address.
type Mailbox struct {
	State   MailboxState
	Aliases []Address // for MailboxAlias
}

// ErrBadLogin says that the account and password do not belong together.
var ErrBadLogin = errors.New("wrong account or password")
