package main

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/pabal-mta/mta/core/torture/peer"
)

// dial connects and says EHLO.
func dial(address string) (*peer.Client, error) { return peer.Dial(address, 2*patience) }

func mustDial(t testing.TB, address string) *peer.Client {
	t.Helper()
	s, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// openSink listens on an address until the test ends.
func openSink(t testing.TB, address string, k *peer.Sink) *peer.Sink {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	k.Serve(l)
	t.Cleanup(k.Close)
	return k
}

// tap passes a connection through to another address and keeps what the client says.
type tap struct {
	address string
	mu      sync.Mutex
	said    bytes.Buffer
}

// openTap listens on a port of its own.
func openTap(t testing.TB, to string) *tap {
	t.Helper()
	l, err := listenFree()
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{address: l.Addr().String()}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { p.pass(c, to) })
		}
	})
	t.Cleanup(func() { l.Close(); open.Wait() })
	return p
}

func (p *tap) pass(c net.Conn, to string) {
	defer c.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, io.TeeReader(c, p))
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, server)
}

// Write keeps what the client says.
func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *tap) heard() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.said.Bytes())
}
