package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"syscall"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// ErrLost says that the process died, or was killed, before it had answered; if the call may be repeated, it was. A message
// that is met by it twice may be what kills the plugin.
var ErrLost = calls.ErrLost

// ErrDown says that the plugin has no process at the moment.
var ErrDown = errors.New("it is not running")

// ErrOpen says that so many calls have failed in a row that no call is made for a while.
var ErrOpen = errors.New("its last calls have all failed, so it is left alone for a moment")

// ErrOverload says that as many calls wait for the plugin as may wait.
var ErrOverload error = overloadError{}

type overloadError struct{}

// Error says it in words.
func (overloadError) Error() string {
	return "it has more to do than it can, and too many calls wait already"
}

// Overloaded tells this failure from others.
func (overloadError) Overloaded() bool { return true }

var protocolMismatch = regexp.MustCompile(`incompatible (core )?API version with plugin. Plugin version: ([0-9]+)`)

// startError says in an operator's words why a process did not come up.
func (l *launcher) startError(ctx context.Context, c *child, err error) error {
	path := l.spec.source()
	switch {
	case c == nil:
		return err
	case c.pid.Load() == 0:
		return execError(path, err)
	case c.greets != "":
		return hint(fmt.Errorf("%s wrote %q to its standard output, where a handshake was expected", path, calls.Printable(c.greets)),
			"a plugin of this server prints nothing before it serves; is this one?")
	}
	if m := protocolMismatch.FindStringSubmatch(err.Error()); m != nil {
		return hint(fmt.Errorf("%s speaks version %s of the plugin protocol, this server speaks %d", path, m[2], sdk.ProtocolVersion),
			"install a version of the plugin that fits this server")
	}
	if strings.Contains(err.Error(), "unsupported plugin protocol") {
		return hint(fmt.Errorf("%s does not speak gRPC", path), "it is a plugin of another program")
	}
	if ctx.Err() != nil {
		return hint(l.withLastWords(fmt.Errorf("%s did not come up in time: it was started, and has not answered", path)), "its log may tell what it waits for")
	}
	if c.died() {
		return hint(l.withLastWords(fmt.Errorf("%s ended at its start (%s)", path, c.ending())), "is it a plugin of this server? mta plugin check %s", path)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// died reports that the process ended by itself: not by our kill.
func (c *child) died() bool {
	<-c.gone
	status, ok := c.state.Sys().(syscall.WaitStatus)
	return ok && (status.Exited() || status.Signaled() && status.Signal() != syscall.SIGKILL)
}

func (l *launcher) withLastWords(err error) error {
	tail := l.out.tail()
	if len(tail) == 0 {
		return fmt.Errorf("%w, without a word", err)
	}
	return fmt.Errorf("%w; its last words:\n  %s", err, strings.Join(tail, "\n  "))
}

func execError(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return hint(fmt.Errorf("%s is no program for this machine", path), "take the build for this system, or give a script its #! line")
	case errors.Is(err, fs.ErrNotExist):
		return hint(fmt.Errorf("%s can't be started: its interpreter or loader is missing", path), "look at the first line of the script, or at ldd %s", path)
	case errors.Is(err, fs.ErrPermission):
		return hint(fmt.Errorf("%s can't be started: %w", path, err), "it must be executable for the server's user, on a file system that is not mounted noexec")
	}
	return fmt.Errorf("%s can't be started: %w", path, err)
}
