// Package archive keeps queued messages as files: the content in ID.eml, as it went over the wire, and all that the queue
// knows of it beside that in ID.json, an Envelope.
//
// A message is written content first, and synced, so that an envelope that is there has its content. Read refuses what is
// malformed with the file and the line: an unknown field, a state that does not exist, a content of another length or
// checksum. It leaves behind, when it fails, what it had written until then.
package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// The names of files end in these.
const (
	envelopeSuffix = ".json"
	contentSuffix  = ".eml"
)

// Write writes a message into dir. The names are those of its ID; a message that is there already is written over.
func Write(dir string, e Envelope, c mail.Content) error {
	return WriteFrom(dir, e, func(w io.Writer) error {
		_, err := io.Copy(w, mail.Reader(c))
		return err
	})
}

// WriteFrom is Write for a content that is written by a function.
func WriteFrom(dir string, e Envelope, content func(io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sum, size := sha256.New(), counter(0)
	base := filepath.Join(dir, e.ID)
	err := write(base+contentSuffix, func(w io.Writer) error { return content(io.MultiWriter(w, sum, &size)) })
	if err != nil {
		return err
	}
	e.Size, e.SHA256 = int64(size), hex.EncodeToString(sum.Sum(nil))
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	if err := write(base+envelopeSuffix, func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	}); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// counter counts the bytes that are written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// write writes a file beside its name and then under it.
func write(path string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = errors.Join(fill(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// List returns the paths of the envelopes in dir, in the order of their names.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), envelopeSuffix) && !e.IsDir() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// Prove reads every message in dir and returns the paths of their envelopes, or all that is malformed.
func Prove(dir string) ([]string, error) {
	paths, err := List(dir)
	if err != nil {
		return nil, err
	}
	var wrong []error
	for _, path := range paths {
		_, _, c, err := Read(path)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		c.Close()
	}
	return paths, errors.Join(wrong...)
}

// Content is the content of an archived message, in its file.
type Content struct {
	*os.File
	size int64
}

// Size returns the size of the content.
func (c *Content) Size() int64 { return c.size }

// Read reads the envelope at path and proves it and its content, which the caller closes.
func Read(path string) (*Envelope, *queue.Record, *Content, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, nil, err
	}
	e, rec, err := Parse(path, b)
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := e.open(strings.TrimSuffix(path, envelopeSuffix) + contentSuffix)
	if err != nil {
		return nil, nil, nil, err
	}
	return e, rec, c, nil
}

// open opens the content of an envelope and proves that it is that.
func (e *Envelope) open(path string) (*Content, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: the content of the message is not there", path)
	}
	if err != nil {
		return nil, err
	}
	c, err := e.Prove(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Prove reads a file and returns it as the content of the envelope, if it is that.
func (e *Envelope) Prove(f *os.File) (*Content, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err == nil {
		err = e.matches(size, sum.Sum(nil))
	}
	if err != nil {
		return nil, err
	}
	return &Content{f, size}, nil
}

func (e *Envelope) matches(size int64, sum []byte) error {
	if size != e.Size {
		return fmt.Errorf("it has %d bytes, and the envelope says %d", size, e.Size)
	}
	if got := hex.EncodeToString(sum); got != e.SHA256 {
		return fmt.Errorf("it is not the content that was exported: its SHA-256 is %s, and the envelope says %s", got, e.SHA256)
	}
	return nil
}
