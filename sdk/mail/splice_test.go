package mail_test

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/pabal-mta/mta/sdk/mail"
)

// TestSplice splices splices at every offset, and reads the result in every way.
func TestSplice(t *testing.T) {
	whole := []byte("head: 1\r\n\r\nbody")
	for i := range whole {
		first := mail.Splice([]byte("a: 2\r\n"), mail.Bytes(whole), int64(i))
		flat := append([]byte("a: 2\r\n"), whole[i:]...)
		for j := range len(flat) + 1 {
			second := mail.Splice([]byte("b: 3\r\n"), first, int64(j))
			want := append([]byte("b: 3\r\n"), flat[j:]...)
			got, err := io.ReadAll(mail.Reader(second))
			if err != nil || !bytes.Equal(got, want) || second.Size() != int64(len(want)) {
				t.Fatalf("%q, %v, want %q", got, err, want)
			}
			if err := iotest.TestReader(mail.Reader(second), want); err != nil {
				t.Error(err)
			}
			if _, stacked := second.Rest.(*mail.Spliced); stacked {
				t.Error("splices are stacked")
			}
		}
	}
	s := mail.Splice([]byte("x"), mail.Bytes([]byte("y")), 0)
	if n, err := s.ReadAt(make([]byte, 1), -1); err == nil || n != 0 {
		t.Error(n, err)
	}
	if n, err := s.ReadAt(make([]byte, 1), 2); err != io.EOF || n != 0 {
		t.Error(n, err)
	}
}
