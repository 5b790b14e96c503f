package plugin

import (
	"bytes"
	"context"
	encoding "encoding/binary"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pabal-mta/mta/sdk/mail"
)

// postRoom bounds what a process leaves unread on its socket, in bytes as the kernel counts them: some forty descriptors.
const postRoom = 16 << 10

// post is our end of a socket on which one process is sent descriptors. Nothing is read from it.
type post struct {
	socket *os.File
	tokens atomic.Uint64
}

// newPost makes a socket and returns the end for the process as well.
func newPost() (p *post, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, postRoom)
	return &post{socket: os.NewFile(uintptr(fds[0]), "post")}, os.NewFile(uintptr(fds[1]), "post"), nil
}

func (p *post) close() {
	if p != nil {
		p.socket.Close()
	}
}

// send sends a descriptor, or fails at once: a process that does not read gets no more of them.
func (p *post) send(ctx context.Context, f *os.File) (token uint64, err error) {
	conn, err := p.socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	patience := time.Minute
	if end, ok := ctx.Deadline(); ok {
		patience = time.Until(end)
	}
	token = p.tokens.Add(1)
	packet := encoding.BigEndian.AppendUint64(nil, token)
	packet = encoding.BigEndian.AppendUint32(packet, uint32(max(patience.Milliseconds(), 1)))
	var failed error
	err = conn.Control(func(fd uintptr) {
		failed = unix.Sendmsg(int(fd), packet, unix.UnixRights(int(f.Fd())), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	if err == nil {
		err = failed
	}
	return token, err
}

// sealedContent copies a content into memory that nobody can change.
func sealedContent(c mail.Content) (*os.File, error) {
	var r io.Reader = mail.Reader(c)
	if b, ok := c.(*bytes.Reader); ok { // at one stroke
		own := *b
		if _, err := own.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		r = &own
	}
	return sealedCopy("mta-content", unix.MFD_NOEXEC_SEAL, r)
}
