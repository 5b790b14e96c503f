package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// What the server and a plugin agree on before they speak gRPC. The cookie is no secret: it tells a plugin that was
// started by the server from one that was started by hand.
const (
	CookieKey       = "MTA_PLUGIN"
	CookieValue     = "mta.plugin.v1"
	ProtocolVersion = 1

	// LifelineKey names the environment variable that holds the number of a descriptor. When reading it ends, the
	// server is gone, and so shall the plugin be.
	LifelineKey = "MTA_LIFELINE"

	// FilesKey names the environment variable that holds the number of a unix socket, on which the server sends the
	// descriptors of files that hold large contents (Content.token in plugin.proto).
	FilesKey = "MTA_FILES"
)

// Serve runs a plugin until the server ends it. It is all that the main function of a plugin does, and it does not
// return before the process shall end.
func Serve[C any](p Plugin[C]) { ServeAny(Of(p)) }

// ServeAny is Serve for a plugin whose configuration type has been put aside.
func ServeAny(p Served) {
	if os.Getenv(CookieKey) != CookieValue {
		fmt.Fprint(os.Stderr, startedByHand(p.About(), os.Args[0]))
		os.Exit(1)
	}
	if err := serve(p); err != nil {
		fmt.Fprintln(os.Stderr, "plugin "+p.About().Name+":", err)
		os.Exit(1)
	}
}

func startedByHand(a About, path string) string {
	return fmt.Sprintf(`%[1]s %[2]s: %[3]s

This program is a plugin of the Pabal mail server. It is started by the server, not by hand.

  mta plugin check %[4]s     proves that it works

To use it, write into mta.hcl:

  plugin %[5]q {
    source = %[4]q
  }

and then: mta plugin pin %[1]s
`, a.Name, a.Version, a.Doc, path, a.Name)
}

func serve(p Served) error {
	handshake, err := divertStdout()
	if err != nil {
		return fmt.Errorf("moving the standard output away: %w", err)
	}
	log := slog.New(newLogHandler(os.Stderr, p.About().Name))
	slog.SetDefault(log)
	s := newServer(p, log)
	if take := filesTaker(); take != nil {
		s.calls.TakeBy(take)
		s.files = true
	}
	if _, err := schemaJSON(p); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go obeySignals(signals, s, os.Getenv(LifelineKey) == "")
	go followLifeline(s)
	return serveGRPC(s, handshake)
}

// serveGRPC lets go-plugin serve. Its test mode is the one that leaves the process alone: it swaps no standard streams,
// and the line of the handshake is ours to write, onto the descriptor that only we know.
func serveGRPC(s *server, handshake io.WriteCloser) error {
	ready := make(chan *goplugin.ReattachConfig, 1)
	done := make(chan struct{})
	go goplugin.Serve(&goplugin.ServeConfig{
		VersionedPlugins: map[int]goplugin.PluginSet{ProtocolVersion: {"plugin": grpcPlugin{server: s}}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, calls.ServerOptions()...)...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Error, JSONFormat: true}),
		Test:   &goplugin.ServeTestConfig{Context: context.Background(), ReattachConfigCh: ready, CloseCh: done},
	})
	select {
	case r := <-ready:
		line := fmt.Sprintf("%d|%d|%s|%s|%s|\n", goplugin.CoreProtocolVersion, ProtocolVersion, r.Addr.Network(), r.Addr.String(), r.Protocol)
		if _, err := io.WriteString(handshake, line); err != nil {
			return fmt.Errorf("writing the handshake: %w", err)
		}
		handshake.Close()
	case <-done:
		return errors.New("the gRPC server did not start")
	}
	<-done
	return nil
}

// obeySignals lets SIGTERM and SIGINT pass until the plugin is drained: a service manager sends them to the whole group,
// and the server still needs its plugins to finish. A plugin that was started by hand ends at once.
func obeySignals(signals <-chan os.Signal, s *server, byHand bool) {
	for range signals {
		if byHand {
			os.Exit(1)
		}
		select {
		case <-s.drained:
			os.Exit(0)
		default:
		}
	}
}

// followLifeline ends the process when the server has died.
func followLifeline(s *server) {
	fd, err := strconv.Atoi(os.Getenv(LifelineKey))
	if err != nil {
		return
	}
	_ = os.Unsetenv(LifelineKey) // our children hold no lifeline of ours
	f := os.NewFile(uintptr(fd), "lifeline")
	syscall.CloseOnExec(fd)
	if _, err := io.Copy(io.Discard, f); err != nil && !errors.Is(err, os.ErrClosed) {
		s.log.Warn("lifeline", "error", err)
	}
	time.AfterFunc(time.Second, func() { os.Exit(1) }) // closing is given its chance
	s.close()
	os.Exit(1)
}

// grpcPlugin is what go-plugin wants to have of a plugin.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	server *server
}

func (p grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	pb.RegisterPluginServer(s, p.server)
	return nil
}

func (p grpcPlugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("a plugin does not call plugins")
}

// newLogHandler writes records as go-plugin's hosts read them: JSON with @level, @message, @timestamp and @module.
func newLogHandler(w io.Writer, module string) slog.Handler {
	replace := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) > 0 {
			return a
		}
		switch a.Key {
		case slog.TimeKey:
			a.Key = "@timestamp"
		case slog.MessageKey:
			a.Key = "@message"
		case slog.LevelKey:
			a = slog.String("@level", strings.ToLower(a.Value.String()))
		}
		return a
	}
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: replace})
	return h.WithAttrs([]slog.Attr{slog.String("@module", module)})
}
