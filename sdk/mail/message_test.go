package mail

import (
	"io"
	"testing"
)

func TestBytesIsReadByMany(t *testing.T) {
	c := Bytes([]byte("0123456789"))
	one, two := Reader(c), Reader(c)
	if _, err := one.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	a, _ := io.ReadAll(one)
	b, _ := io.ReadAll(two)
	if string(a) != "56789" || string(b) != "0123456789" || c.Size() != 10 {
		t.Errorf("%q %q %d", a, b, c.Size())
	}
}

func TestSessionAuthenticated(t *testing.T) {
	if (&Session{}).Authenticated() || !(&Session{User: "ann"}).Authenticated() {
		t.Error("a session is authenticated when it has a user")
	}
}
