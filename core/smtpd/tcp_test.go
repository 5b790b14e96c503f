package smtpd

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

// TestLastWords checks on TCP that a client that is cut off while it still sends can read why: a plain close with unread
// octets would make the kernel throw the reply away.
func TestLastWords(t *testing.T) {
	s, err := New(Config{Hostname: "mx.ours.example"}, Deps{Queue: func(context.Context, *Accepted) (string, error) {
		t.Error("a message was queued")
		return "", nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(bytes.Repeat([]byte("x"), 500_000)); err != nil {
		t.Errorf("sending: %v", err)
	}
	said, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(said), "500 5.5.2 line too long\r\n") {
		t.Errorf("heard %q, %v", said, err)
	}
	conn.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
