package mail

import "time"

// Event is one thing that happened in the server. Only the fields that apply are set; the names are those of its log.
type Event struct {
	Name     string // such as "queued", "attempt", "bounced", "login_failed"
	Time     time.Time
	Session  string
	ID       string // queue ID
	Listener string
	Remote   string
	User     string
	From     string
	To       string
	Route    string
	Host     string
	Plugin   string
	Stage    string
	Class    string // of an attempt: delivered, tempfail, permfail; of a verdict: the action
	Reply    string
	Reason   string
	Error    string
	Size     int64
	Count    int
	Attempt  int
	Next     time.Time
	Took     time.Duration
}

// MX is a mail exchanger of a domain.
type MX struct {
	Host string
	Pref uint16 // the lower the better (RFC 5321, 5.1)
}
