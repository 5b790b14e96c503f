// Package peer is the two ends that a server is put between in a trial: a small SMTP client, and a sink that takes
// messages, remembers what it took, and cuts its connections where it is told to.
//
// Both are deliberately simple. They trust nothing that the server does: the sink reads what comes byte by byte and keeps
// the sum of each body, and the client counts a message as acknowledged only when the whole 250 after it was read.
package peer

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Client is an SMTP client on one connection.
type Client struct {
	Conn net.Conn
	Text *textproto.Conn
	Caps string // what the server said to EHLO
}

// Dial connects and says EHLO. Nothing on the connection may take longer than patience.
func Dial(address string, patience time.Duration) (*Client, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &Client{Conn: conn, Text: textproto.NewConn(conn)}
	if _, _, err = c.Text.ReadResponse(220); err == nil {
		c.Caps, err = c.Say(250, "EHLO client.example")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Close cuts the connection.
func (c *Client) Close() { c.Conn.Close() }

// Say sends a command and wants a reply with this code. 0 wants any reply.
func (c *Client) Say(code int, format string, args ...any) (string, error) {
	if err := c.Text.PrintfLine(format, args...); err != nil {
		return "", err
	}
	got, text, err := c.Text.ReadResponse(code) // 0 takes every code
	return fmt.Sprintf("%d %s", got, text), err
}

// Login says AUTH PLAIN.
func (c *Client) Login(code int, user, password string) (string, error) {
	return c.Say(code, "AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)))
}

// Envelope says MAIL and RCPT. from may have parameters after it, as in "<a@b.example> BODY=8BITMIME".
func (c *Client) Envelope(from string, to ...string) error {
	if _, err := c.Say(250, "MAIL FROM:%s", from); err != nil {
		return err
	}
	for _, rcpt := range to {
		if _, err := c.Say(250, "RCPT TO:<%s>", rcpt); err != nil {
			return err
		}
	}
	return nil
}

// Data sends the content, whose lines end with CRLF. Without an error it was acknowledged.
func (c *Client) Data(content []byte) error {
	if _, err := c.Say(354, "DATA"); err != nil {
		return err
	}
	stuffed := bytes.ReplaceAll(append([]byte("\r\n"), content...), []byte("\r\n."), []byte("\r\n.."))[2:]
	if _, err := c.Conn.Write(append(stuffed, ".\r\n"...)); err != nil {
		return err
	}
	// The whole line, unlike ReadResponse, which takes what a connection ends with for a line.
	line, err := c.Text.R.ReadString('\n')
	if err != nil {
		return err
	}
	code, text, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	if code == "250" {
		return nil
	}
	n, _ := strconv.Atoi(code)
	return &textproto.Error{Code: n, Msg: text}
}

// Send sends one message.
func (c *Client) Send(from, to string, content []byte) error {
	if err := c.Envelope(from, to); err != nil {
		return err
	}
	return c.Data(content)
}

// Numbered makes the message that a sink knows by its number.
func Numbered(id string, body []byte) []byte {
	return fmt.Appendf(nil, "From: <carol@sender.example>\r\nSubject: message %s\r\nX-Number: %s\r\n\r\n%s", id, id, body)
}

// Sum is the sum of a body.
func Sum(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
