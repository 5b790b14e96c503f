package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// Services is what the server does for one plugin; see sdk.Host. Authenticate is done here: it asks another plugin.
type Services = calls.Services

// Sample is a change of a plugin's metric.
type Sample = calls.Sample

// maxHostConns is how many connections to its host a plugin may hold; further ones are closed.
const maxHostConns = 8

// hostServer serves Services to the processes of one plugin. The socket lies in the plugin's room, and the token is told
// to no other plugin, which may run as the same user.
type hostServer struct {
	socket, token string
	server        *grpc.Server
	ended         chan struct{}
}

func serveHost(launch *launcher, s Services) (*hostServer, error) {
	h := &hostServer{socket: filepath.Join(launch.room.dir, "host"), token: rand.Text(), ended: make(chan struct{})}
	l, err := net.Listen("unix", h.socket)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(h.socket, 0o600), launch.user.give(h.socket)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	h.server = calls.NewHostServer(s, h.token)
	go func() {
		defer close(h.ended)
		_ = h.server.Serve(&fewConns{l, make(chan struct{}, maxHostConns)}) // it ends with Stop
	}()
	return h, nil
}

// address returns where a process finds its host; of nil, nowhere.
func (h *hostServer) address() (socket, token string) {
	if h == nil {
		return "", ""
	}
	return h.socket, h.token
}

func (h *hostServer) stop() {
	if h != nil {
		h.server.Stop()
		<-h.ended
	}
}

// fewConns is a listener whose connections are limited in number.
type fewConns struct {
	net.Listener
	places chan struct{}
}

func (l *fewConns) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &place{Conn: c, places: l.places}, nil
		default:
			c.Close()
		}
	}
}

// place is a connection that makes room for another when it is closed.
type place struct {
	net.Conn
	places chan struct{}
}

func (p *place) Close() error {
	err := p.Conn.Close()
	if !errors.Is(err, net.ErrClosed) {
		<-p.places
	}
	return err
}

// peer is a plugin that others may ask for; p is there when up is closed, and nil when it did not come up.
type peer struct {
	up chan struct{}
	p  *Plugin
}

// asking is the services of a plugin, with the authenticator that its block names.
type asking struct {
	Services
	spec *Spec
	host *Host
}

// Authenticate waits for the authenticator to come up: plugins are started all at once, and one may ask in its New.
func (a asking) Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error) {
	if a.spec.Auth == "" {
		return mail.Identity{}, fmt.Errorf("%w: the block of plugin %q has no auth = plugin.NAME", calls.ErrNotProvided, a.spec.Name)
	}
	peer := a.host.peers[a.spec.Auth]
	if peer == nil {
		return mail.Identity{}, fmt.Errorf("%w: there is no plugin %q", calls.ErrNotProvided, a.spec.Auth)
	}
	select {
	case <-peer.up:
	case <-ctx.Done():
		return mail.Identity{}, ctx.Err()
	}
	if peer.p == nil {
		return mail.Identity{}, a.spec.fail(ErrDown)
	}
	return peer.p.Authenticate(ctx, login)
}
