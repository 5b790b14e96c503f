package sdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// packetSize is what comes with a descriptor: its token, and how long it is waited for.
const packetSize = 8 + 4

// filesTaker returns what takes the files that the server sends on the socket that the environment names; nil where it names none.
func filesTaker() func(token uint64) (*os.File, error) {
	fd, err := strconv.Atoi(os.Getenv(FilesKey))
	if err != nil {
		return nil
	}
	_ = os.Unsetenv(FilesKey) // it is not for our children
	unix.CloseOnExec(fd)
	t := &taker{socket: fd, came: make(map[uint64]arrival)}
	return t.take
}

// taker takes files from a socket. The server sends a file before the request that names it, so nobody waits for one.
type taker struct {
	mu     sync.Mutex
	socket int
	came   map[uint64]arrival // by token: those that no request has asked for yet
}

type arrival struct {
	file *os.File
	end  time.Time // of the call that it is for
}

func (t *taker) take(token uint64) (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if a, ok := t.came[token]; ok {
			delete(t.came, token)
			return a.file, nil
		}
		if err := t.receive(); err != nil {
			return nil, fmt.Errorf("the descriptor of the content: %w", err)
		}
	}
}

// receive takes one packet. A descriptor that this process has no number left for is missing from it.
func (t *taker) receive() error {
	packet, rights := make([]byte, packetSize), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(t.socket, packet, rights, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return err
	case n == 0:
		return errors.New("the server sends none any more")
	}
	now := time.Now()
	for token, a := range t.came {
		if now.After(a.end) {
			a.file.Close()
			delete(t.came, token)
		}
	}
	fd := descriptorIn(rights[:oobn])
	if fd < 0 {
		return nil
	}
	a := arrival{os.NewFile(uintptr(fd), "the content, which is there until the call ends"), now.Add(time.Duration(binary.BigEndian.Uint32(packet[8:])) * time.Millisecond)}
	t.came[binary.BigEndian.Uint64(packet)] = a
	return nil
}

// descriptorIn returns the descriptor that came with a packet, or -1.
func descriptorIn(rights []byte) int {
	list, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(list) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	return fds[0]
}
