//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package gate

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen opens a port that our successor may open too, so that a reload has a listener at every moment: the old process
// stops listening when the new one is ready. Nobody but programs of the same user can share it.
func listen(address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		if err != nil {
			return err
		}
		return set
	}}
	return config.Listen(context.Background(), "tcp", address)
}
