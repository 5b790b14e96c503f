package admin

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// flushes counts what reached the client.
type flushes struct {
	http.ResponseWriter
	held, sent strings.Builder
}

func (f *flushes) Write(b []byte) (int, error) { return f.held.Write(b) }

func (f *flushes) FlushError() error {
	f.sent.WriteString(f.held.String())
	f.held.Reset()
	return nil
}

// TestStream is a list of which the first message is found at once and the next one never.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flushes{}
		s := &stream{w: f}
		write := func(line string) {
			t.Helper()
			if _, err := s.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		sent := func(want string) {
			t.Helper()
			s.mu.Lock()
			defer s.mu.Unlock()
			if f.sent.String() != want {
				t.Errorf("sent %q, want %q", f.sent.String(), want)
			}
		}
		write("a")
		write("b")
		sent("")
		time.Sleep(streamWait)
		synctest.Wait()
		sent("ab")
		write("c")
		s.close()
		time.Sleep(time.Minute)
		sent("ab") // the server sends the rest when the handler returns
	})
}
