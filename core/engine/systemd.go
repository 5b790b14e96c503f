package engine

import (
	"net"
	"os"
)

// notifySystemd tells a service manager of our state (sd_notify(3), Type=notify); without one it does nothing.
func notifySystemd(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return // a manager that can't be told must not stop mail
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write([]byte(state))
}
