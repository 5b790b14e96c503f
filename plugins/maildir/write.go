package maildir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/pabal-mta/mta/sdk/mail"
)

// chunk is how much of a message is in memory at once.
const chunk = 64 << 10

// buffers is what a copy needs: what was read, and what is to be written.
type buffers struct {
	in  [chunk]byte
	out [chunk + 1024]byte
}

var pool = sync.Pool{New: func() any { return new(buffers) }}

// errRaw says that lines can't be kept with LF without losing what they were.
var errRaw = errors.New("the content has line ends that are not CRLF")

// write copies head and content into the file and returns the size of the file.
func write(ctx context.Context, f *tmpFile, head string, c mail.Content) (int64, error) {
	b := pool.Get().(*buffers)
	defer pool.Put(b)
	size, err := b.copyLines(ctx, f, head, c)
	if !errors.Is(err, errRaw) {
		return size, err
	}
	if err := rewind(f.File); err != nil {
		return 0, err
	}
	return b.copyRaw(ctx, f, head, c)
}

func rewind(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// copyLines writes each CRLF as LF.
func (b *buffers) copyLines(ctx context.Context, w io.Writer, head string, c mail.Content) (size int64, err error) {
	out := append(b.out[:0], strings.ReplaceAll(head, "\r\n", "\n")...)
	for at := int64(0); at < c.Size(); {
		in, err := b.read(ctx, c, at)
		if err != nil {
			return 0, err
		}
		whole := at+int64(len(in)) == c.Size()
		if !whole {
			// A CR at the end waits for what follows it.
			if in = bytes.TrimRight(in, "\r"); len(in) == 0 {
				return 0, errRaw
			}
		}
		at += int64(len(in))
		if out, err = appendLines(out, in); err != nil {
			return 0, err
		}
		n, err := w.Write(out)
		size += int64(n)
		if err != nil {
			return 0, err
		}
		out = b.out[:0]
	}
	if len(out) > 0 { // an empty content
		n, err := w.Write(out)
		return size + int64(n), err
	}
	return size, nil
}

// appendLines appends in with LF for CRLF. A LF alone, or a CR before a CRLF, would come back as another line end when
// a reader makes CRLF of LF again: it is errRaw.
func appendLines(out, in []byte) ([]byte, error) {
	for {
		i := bytes.IndexByte(in, '\n')
		if i < 0 {
			return append(out, in...), nil
		}
		if i == 0 || in[i-1] != '\r' || i > 1 && in[i-2] == '\r' {
			return nil, errRaw
		}
		out = append(out, in[:i-1]...)
		out = append(out, '\n')
		in = in[i+1:]
	}
}

// copyRaw writes everything as it is.
func (b *buffers) copyRaw(ctx context.Context, w io.Writer, head string, c mail.Content) (size int64, err error) {
	n, err := io.WriteString(w, head)
	size = int64(n)
	for at := int64(0); err == nil && at < c.Size(); {
		var in []byte
		if in, err = b.read(ctx, c, at); err != nil {
			break
		}
		n, err = w.Write(in)
		at += int64(n)
		size += int64(n)
	}
	return size, err
}

// read returns the next bytes, at least one.
func (b *buffers) read(ctx context.Context, c mail.Content, at int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n, err := c.ReadAt(b.in[:min(chunk, c.Size()-at)], at)
	if n > 0 {
		return b.in[:n], nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}
