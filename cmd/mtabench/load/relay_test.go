package load_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/smtp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
	"github.com/pabal-mta/mta/cmd/mtabench/load"
	"github.com/pabal-mta/mta/cmd/mtabench/sink"
)

// relay is a mail server between the generator and the sink: what is measured, but in this process, and with a fault.
type relay struct {
	sink string
	// forward hands a message on; it calls next once for each transaction with the sink.
	forward func(n int, from string, to []string, data []byte, next func(from string, to []string, data []byte) error) error
	count   atomic.Int64
}

// NewSession makes the session of one connection.
func (r *relay) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &relaySession{relay: r}, nil }

type relaySession struct {
	*relay
	from string
	to   []string
}

func (s *relaySession) Mail(from string, _ *gosmtp.MailOptions) error { s.from = from; return nil }

func (s *relaySession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *relaySession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return s.forward(int(s.count.Add(1)), s.from, s.to, data, func(from string, to []string, data []byte) error {
		return smtp.SendMail(s.sink, nil, from, to, data)
	})
}

func (s *relaySession) Reset()        { s.from, s.to = "", nil }
func (s *relaySession) Logout() error { return nil }

// start starts the relay and returns where it listens.
func (r *relay) start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := gosmtp.NewServer(r)
	server.Domain = "relay.test"
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

type forward = func(n int, from string, to []string, data []byte, next func(string, []string, []byte) error) error

func faithful(_ int, from string, to []string, data []byte, next func(string, []string, []byte) error) error {
	return next(from, to, data)
}

// onSeventh has a fault with the seventh message, and none with the others.
func onSeventh(fault forward) forward {
	return func(n int, from string, to []string, data []byte, next func(string, []string, []byte) error) error {
		if n == 7 {
			return fault(n, from, to, data, next)
		}
		return next(from, to, data)
	}
}

func replace(data []byte, old, with string) []byte {
	return bytes.Replace(data, []byte(old), []byte(with), 1)
}

// through sends 20 messages through a relay and returns what the ledger says.
func through(t *testing.T, recipients int, f forward) ledger.Audit {
	t.Helper()
	s := sink.New("127.0.0.1:0")
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	l := ledger.New("run1", 100)
	s.Book(l)
	address := s.Addr()
	if f != nil {
		address = (&relay{sink: s.Addr(), forward: f}).start(t)
	}
	spec := load.Spec{Address: address, Connections: 3, PerConn: 4, Size: 3000, Recipients: recipients, Messages: 20, Time: time.Minute}
	if _, err := load.Run(context.Background(), spec, l); err != nil {
		t.Fatal(err)
	}
	s.Down()
	return l.Audit()
}

func TestAFaithfulRelayPasses(t *testing.T) {
	for name, f := range map[string]forward{"direct": nil, "relay": faithful} {
		for _, recipients := range []int{1, 50, ledger.MaxRecipients} {
			a := through(t, recipients, f)
			if err := a.Wrong(0); err != nil || a.Accepted != 20 || a.Delivered != 20 || a.Foreign != 0 {
				t.Errorf("%s, %d recipients: %v; %+v", name, recipients, err, a)
			}
			if len(a.AcceptLatency) != 20 || len(a.TransitTime) != 20 || a.LastDelivered < a.FirstDelivered {
				t.Errorf("%s, %d recipients: times: %+v", name, recipients, a)
			}
		}
	}
}

// TestEveryFaultIsFound is the proof of the checker: a relay with one fault in one message out of twenty does not pass.
func TestEveryFaultIsFound(t *testing.T) {
	type next = func(string, []string, []byte) error
	faults := map[string]struct {
		says  string
		fault forward
	}{
		"loses a message": {"1 lost", func(int, string, []string, []byte, next) error { return nil }},
		"loses a recipient": {"1 lost", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, to[1:], data)
		}},
		"doubles a message": {"1 doubled", func(_ int, from string, to []string, data []byte, n next) error {
			return errors.Join(n(from, to, data), n(from, to, data))
		}},
		"doubles a recipient": {"1 doubled", func(_ int, from string, to []string, data []byte, n next) error {
			return errors.Join(n(from, to, data), n(from, to[2:], data))
		}},
		"delivers each recipient alone, one of them to nobody": {"1 lost", func(_ int, from string, to []string, data []byte, n next) error {
			return errors.Join(n(from, to[:1], data), n(from, []string{"x@sink.test"}, data), n(from, to[2:], data))
		}},
		"changes a byte": {"1 changed", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, to, replace(data, "lazy dog", "lazy cat"))
		}},
		"loses a line": {"1 changed", func(_ int, from string, to []string, data []byte, n next) error {
			i := bytes.Index(data, []byte("000009"))
			return n(from, to, append(bytes.Clone(data[:i]), data[bytes.IndexByte(data[i:], '\n')+i+1:]...))
		}},
		"cuts the end off": {"1 changed", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, to, data[:bytes.LastIndex(data[:len(data)-2], []byte("\r\n"))+2])
		}},
		"stuffs a dot twice": {"1 changed", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, to, replace(data, "\r\n.dotted", "\r\n..dotted"))
		}},
		"adds a line at the end": {"1 changed", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, to, append(bytes.Clone(data), "\r\n"...))
		}},
		"loses the header of the checksum": {"1 changed", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, to, replace(data, "X-Bench-Crc", "X-Other"))
		}},
		"sends a message under the number of another": {"1 lost", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, to, replace(data, "X-Bench-Id: run1-", "X-Bench-Id: run1-9"))
		}},
		"sends a message of another run": {"1 lost", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, to, replace(data, "X-Bench-Id: run1-", "X-Bench-Id: run2-"))
		}},
		"delivers to somebody else as well": {"1 delivered to a recipient that was not asked for", func(_ int, from string, to []string, data []byte, n next) error {
			return n(from, append(to, "r60@sink.test"), data)
		}},
		"refuses and delivers": {"1 refused and delivered all the same", func(_ int, from string, to []string, data []byte, n next) error {
			return errors.Join(n(from, to, data), &gosmtp.SMTPError{Code: 451, Message: "not now"})
		}},
	}
	for name, f := range faults {
		a := through(t, 3, onSeventh(f.fault))
		err := a.Wrong(0)
		if err == nil || !strings.Contains(err.Error(), f.says) {
			t.Errorf("a relay that %s: %v, not %q", name, err, f.says)
		}
	}
}

func TestWhatIsQueuedIsNotLost(t *testing.T) {
	a := through(t, 1, onSeventh(func(int, string, []string, []byte, func(string, []string, []byte) error) error { return nil }))
	for queued, lost := range map[int]bool{-1: false, 0: true, 1: false} {
		if err := a.Wrong(queued); (err != nil) != lost {
			t.Errorf("1 missing, %d queued: %v", queued, err)
		}
	}
}
