package load

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// patience is how long a server may take for an answer.
const patience = 2 * time.Minute

// Reply is an answer that was not the one hoped for.
type Reply struct {
	Code int
	Text string
}

// Error is the reply as it came.
func (r *Reply) Error() string { return r.Text }

// conn is one connection to the server.
type conn struct {
	net.Conn
	r         *bufio.Reader
	pipelines bool
}

func dial(address string) (*conn, error) {
	raw, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, r: bufio.NewReaderSize(raw, 8<<10)}
	if err := c.hello(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) hello() error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := c.expect('2'); err != nil {
		return err
	}
	if _, err := c.Write([]byte("EHLO localhost\r\n")); err != nil {
		return err
	}
	return c.expect('2')
}

// quit ends the session in order.
func (c *conn) quit() {
	if _, err := c.Write([]byte("QUIT\r\n")); err == nil {
		_ = c.expect('2') // an answer is waited for, whatever it is
	}
	c.Close()
}

// expect reads one reply, whose code must start with the digit.
func (c *conn) expect(digit byte) error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 {
			return fmt.Errorf("%q is no reply", line)
		}
		if bytes.Contains(line, []byte("PIPELINING")) {
			c.pipelines = true
		}
		if line[3] == '-' {
			continue
		}
		if line[0] == digit {
			return nil
		}
		text := strings.TrimSpace(string(line))
		code, err := strconv.Atoi(text[:3])
		if err != nil {
			return fmt.Errorf("%q is no reply", line)
		}
		return &Reply{Code: code, Text: text}
	}
}

// envelope sends MAIL, RCPT and DATA, in one flight where the server takes that, and reads their replies.
func (c *conn) envelope(lines []string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if c.pipelines {
		if _, err := c.Write([]byte(strings.Join(lines, ""))); err != nil {
			return err
		}
	}
	var first error
	for i, line := range lines {
		if !c.pipelines {
			if _, err := c.Write([]byte(line)); err != nil {
				return err
			}
		}
		digit := byte('2')
		if i == len(lines)-1 {
			digit = '3'
		}
		err := c.expect(digit)
		if err != nil && (first == nil || !isReply(err)) {
			first = err
		}
		if err != nil && (!c.pipelines || !isReply(err)) {
			break
		}
	}
	return first
}

// content sends the message and reads the reply to its final dot.
func (c *conn) content(message []byte) error {
	if _, err := c.Write(message); err != nil {
		return err
	}
	return c.expect('2')
}

func isReply(err error) bool {
	_, ok := err.(*Reply)
	return ok
}
