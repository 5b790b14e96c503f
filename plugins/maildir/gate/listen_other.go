//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package gate

import "net"

func listen(address string) (net.Listener, error) { return net.Listen("tcp", address) }
