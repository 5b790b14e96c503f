package gate

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// What a client may use before it has logged in.
const (
	loginTime  = 2 * time.Minute
	loginBytes = 64 << 10
)

// flushAt is how much is gathered before it is written.
const flushAt = 64 << 10

// Conn is a connection within the limits. Its bounds on time and bytes hold until somebody has logged in.
type Conn struct {
	net.Conn
	gate   *Gate
	remote netip.AddrPort

	mu       sync.Mutex
	deadline time.Time // for the login; zero after it
	left     int       // bytes
	account  string
	ended    bool // nothing more is read
	closed   bool

	out    sync.Mutex
	held   int // how many hold back what is written
	buffer []byte
}

func newConn(c net.Conn, g *Gate, remote netip.AddrPort) *Conn {
	conn := &Conn{Conn: c, gate: g, remote: remote, deadline: time.Now().Add(loginTime), left: loginBytes}
	_ = c.SetReadDeadline(conn.deadline) // a connection that takes none is closed by its first read
	return conn
}

// Under returns the Conn that an accepted connection is, or runs over.
func Under(c net.Conn) *Conn {
	for {
		switch x := c.(type) {
		case *Conn:
			return x
		case interface{ NetConn() net.Conn }:
			c = x.NetConn()
		default:
			return nil
		}
	}
}

// Remote returns who is there.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Read reads, within the bounds.
func (c *Conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	ended := c.ended || !c.deadline.IsZero() && c.left <= 0
	c.mu.Unlock()
	if ended {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	c.left -= n
	c.mu.Unlock()
	return n, err
}

// SetReadDeadline sets it, but not beyond what is left for the login.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	if !c.deadline.IsZero() && (t.IsZero() || t.After(c.deadline)) {
		t = c.deadline
	}
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline sets both.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// Enter says that an account has logged in. It reports false when that one has too many connections.
func (c *Conn) Enter(account string) bool {
	if !c.gate.enter(account) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline, c.account = time.Time{}, account
	return true
}

// End lets nothing more be read: the connection ends after what is being answered.
func (c *Conn) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
}

// Hold gathers what is written until the function that it returns is called.
func (c *Conn) Hold() (flush func() error) {
	c.out.Lock()
	defer c.out.Unlock()
	c.held++
	return func() error {
		c.out.Lock()
		defer c.out.Unlock()
		c.held--
		err := c.flush()
		if c.held == 0 {
			c.buffer = nil // a session that waits holds nothing
		}
		return err
	}
}

// SetWriteDeadline sets it. While what is written is gathered there is nothing that it could bound; flush sets its own.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.Lock()
	defer c.out.Unlock()
	if c.held > 0 {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// Write writes, or gathers.
func (c *Conn) Write(b []byte) (int, error) {
	c.out.Lock()
	defer c.out.Unlock()
	if c.held == 0 {
		return c.Conn.Write(b)
	}
	if len(c.buffer)+len(b) > flushAt {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > flushAt {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(time.Minute)) // the write tells what is wrong
		return c.Conn.Write(b)
	}
	if c.buffer == nil {
		c.buffer = make([]byte, 0, flushAt)
	}
	c.buffer = append(c.buffer, b...)
	return len(b), nil
}

func (c *Conn) flush() error {
	if len(c.buffer) == 0 {
		return nil
	}
	_ = c.Conn.SetWriteDeadline(time.Now().Add(time.Minute)) // the write tells what is wrong
	_, err := c.Conn.Write(c.buffer)
	c.buffer = c.buffer[:0]
	return err
}

// Close closes it, once.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.gate.leave(c.remote.Addr().Unmap(), c.account)
	return c.Conn.Close()
}
