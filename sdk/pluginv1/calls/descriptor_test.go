package calls

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
)

// keeper is a converter that adds to what it is given and keeps it, which it should not.
type keeper struct{ kept mail.Content }

func (k *keeper) Convert(_ context.Context, c *mail.Conversion) (mail.Converted, error) {
	k.kept = c.Content
	return mail.Converted{Content: mail.Splice([]byte("X: y\r\n"), c.Content, 0), Body: mail.Body7Bit}, nil
}

// TestContentByDescriptor passes files that hold a content, and ones that do not, or are not there: then it comes in chunks.
func TestContentByDescriptor(t *testing.T) {
	body := []byte("A: b\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 30<<10))
	for name, hold := range map[string]struct {
		file    string
		missing error // from the plugin's side
		busy    error // from the server's
		chunks  bool
	}{
		"whole": {file: string(body)}, "short": {file: string(body[1:]), chunks: true}, "long": {file: string(body) + "x", chunks: true},
		"empty": {chunks: true}, "missing": {missing: os.ErrNotExist, chunks: true}, "busy": {busy: errors.New("no room"), chunks: true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "content")
			if err := os.WriteFile(path, []byte(hold.file), 0o600); err != nil {
				t.Fatal(err)
			}
			k := &keeper{}
			s := NewServer(slog.New(slog.DiscardHandler))
			s.Use(k)
			s.TakeBy(func(token uint64) (*os.File, error) {
				if token != 7 || hold.missing != nil {
					return nil, hold.missing
				}
				return os.Open(path)
			})
			c := dial(t, &rogue{calls: s.Calls, large: s.Large})
			var open atomic.Int64
			c.PassBy(func(_ context.Context, c mail.Content) (uint64, func(), error) {
				if c.Size() != int64(len(body)) {
					t.Errorf("a content of %d bytes was passed", c.Size())
				}
				if hold.busy != nil {
					return 0, nil, hold.busy
				}
				open.Add(1)
				return 7, func() { open.Add(-1) }, nil
			})
			for _, content := range []mail.Content{mail.Bytes(body), mail.Splice([]byte("B: c\r\n\r\n"), mail.Bytes(body), 8)} {
				want, err := io.ReadAll(mail.Reader(content))
				if err != nil {
					t.Fatal(err)
				}
				for _, chunks := range []bool{hold.chunks, true} {
					ctx := t.Context()
					if chunks && !hold.chunks {
						ctx = InChunks(ctx)
					}
					v, err := c.Convert(ctx, &mail.Conversion{Content: content})
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(mail.Reader(v.Content))
					if err != nil || !bytes.Equal(got, append([]byte("X: y\r\n"), want...)) {
						t.Errorf("%d bytes: %v", len(got), err)
					}
					_, err = k.kept.ReadAt(make([]byte, 100), 0)
					if chunks != (err == nil) || err != nil && !strings.Contains(err.Error(), "closed") {
						t.Errorf("in chunks: %v; after the call: %v", chunks, err)
					}
				}
			}
			if open.Load() != 0 {
				t.Errorf("%d files are thought to be in use", open.Load())
			}
		})
	}
}
