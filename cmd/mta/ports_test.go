package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

// ports gives out ports that another program can listen on a little later. They lie below those that the kernel gives to
// clients, or one of the many connections of the tests could take a port before its server does.
var ports struct {
	sync.Mutex
	given map[int]bool
}

const (
	lowestPort = 10_000
	ports4     = 20_000 // how many from there on
)

// listenFree listens on a free port of 127.0.0.1 that was not given out before.
func listenFree() (net.Listener, error) {
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	var last error
	for range 1000 {
		port := lowestPort + rand.IntN(ports4)
		if ports.given[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			ports.given[port] = true
			return l, nil
		}
		last = err
	}
	return nil, last
}

// TestPortsAreNotThoseOfClients: the range must stay below the kernel's.
func TestPortsAreNotThoseOfClients(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Skipf("this system does not tell its range of client ports: %v", err)
	}
	var lowest int
	if _, err := fmt.Fscan(strings.NewReader(string(text)), &lowest); err != nil {
		t.Fatal(err)
	}
	if lowest < lowestPort+ports4 {
		t.Skipf("clients use ports from %d here; a test may find its port taken", lowest)
	}
}
