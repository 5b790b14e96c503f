package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/pabal-mta/mta/core/archive"
	"github.com/pabal-mta/mta/core/queue"
)

// ErrNotRunning says that no server answers on the socket.
var ErrNotRunning = errors.New("no server answers")

// ErrNoMessage says that the message is not in the queue.
var ErrNoMessage = errors.New("there is no such message")

// notFound is an answer in the server's words that is ErrNoMessage.
type notFound struct{ words string }

func (n notFound) Error() string        { return n.words }
func (n notFound) Is(target error) bool { return target == ErrNoMessage }

// Client speaks with a running server over its socket.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client for the server on the unix socket. It does not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Status asks for the server's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

// Reload makes the server read its configuration again.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/reload", nil, nil)
}

// Stop asks the server to stop in order.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/stop", nil, nil)
}

// Act does a verb to the selected messages, or counts them if order.Dry is set.
func (c *Client) Act(ctx context.Context, verb Verb, order Order) (int, error) {
	var r Result
	err := c.call(ctx, http.MethodPost, "/queue/"+string(verb), order, &r)
	return r.Count, err
}

// Suspend has mail for a destination, or of a sender, not tried until Resume.
func (c *Client) Suspend(ctx context.Context, what, reason string) (x Suspension, err error) {
	err = c.call(ctx, http.MethodPost, "/queue/suspend", Suspension{What: what, Reason: reason}, &x)
	return x, err
}

// Resume ends a suspension, and returns what it was.
func (c *Client) Resume(ctx context.Context, what string) (x Suspension, err error) {
	err = c.call(ctx, http.MethodPost, "/queue/resume", Suspension{What: what}, &x)
	return x, err
}

// List calls fn for each selected message, the oldest first.
func (c *Client) List(ctx context.Context, sel Selection, fn func(Message) error) error {
	resp, err := c.do(ctx, http.MethodPost, "/queue/list", sel)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(bufio.NewReader(resp.Body)); ; {
		var line struct {
			Message
			apiError
		}
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the server's list broke off: %w", err)
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
		if err := fn(line.Message); err != nil {
			return err
		}
	}
}

// Check makes the server read every queued message, and calls fn for each that is damaged.
func (c *Client) Check(ctx context.Context, fn func(DamagedMessage) error) (queue.Checked, error) {
	resp, err := c.do(ctx, http.MethodPost, "/queue/check", nil)
	if err != nil {
		return queue.Checked{}, err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(bufio.NewReader(resp.Body)); ; {
		var line checkLine
		if err := dec.Decode(&line); err != nil {
			return queue.Checked{}, fmt.Errorf("the server's check broke off: %w", err)
		}
		switch {
		case line.Error != "":
			return queue.Checked{}, errors.New(line.Error)
		case line.Checked != nil:
			return *line.Checked, nil
		}
		if err := fn(line.DamagedMessage); err != nil {
			return queue.Checked{}, err
		}
	}
}

// Envelope returns all that the server knows of a queued message beside its content.
func (c *Client) Envelope(ctx context.Context, id string) (archive.Envelope, error) {
	var e archive.Envelope
	err := c.call(ctx, http.MethodGet, "/queue/"+id+"/envelope", nil, &e)
	return e, err
}

// Import gives the server an exported message and reports whether it took it: not one that it has had already.
func (c *Client) Import(ctx context.Context, e *archive.Envelope, content io.Reader, lost bool) (bool, error) {
	head, err := json.Marshal(e)
	if err != nil {
		return false, err
	}
	body := io.MultiReader(bytes.NewReader(append(head, '\n')), content)
	path := "/queue/import"
	if lost {
		path += "?lost=1"
	}
	resp, err := c.send(ctx, http.MethodPost, path, body)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var r Result
	err = json.NewDecoder(resp.Body).Decode(&r)
	return r.Count > 0, err
}

// Content copies the content of a queued message to w.
func (c *Client) Content(ctx context.Context, id string, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/queue/"+id+"/content", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// do sends a request and turns every answer but a success into an error.
func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	return c.send(ctx, method, path, &body)
}

// send sends a request with that body.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://mta"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if op := new(net.OpError); errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("%w on %s: %w", ErrNotRunning, c.socket, op.Err)
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e apiError
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(&e); err != nil || e.Error == "" {
		return nil, fmt.Errorf("the server answered %s", resp.Status)
	}
	if resp.StatusCode == http.StatusNotFound {
		return nil, notFound{e.Error}
	}
	return nil, errors.New(e.Error)
}
