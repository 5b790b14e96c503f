package imap

import (
	"errors"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/pabal-mta/mta/plugins/maildir/box"
)

// TestQuota: a full mailbox takes nothing, but what is in it can be moved, and removing makes room.
func TestQuota(t *testing.T) {
	r := newRig(t, nil)
	r.store.Limit(box.NewQuota(2500))
	c := r.login("ann", nil)
	content := "Subject: x\r\n\r\n" + strings.Repeat("y", 1000) + "\r\n"
	appendTo(t, c, "INBOX", content, nil)
	appendTo(t, c, "INBOX", content, nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	isFull := func(what string, err error) {
		t.Helper()
		if e := new(imap.Error); !errors.As(err, &e) || e.Type != imap.StatusResponseTypeNo || e.Code != imap.ResponseCodeOverQuota {
			t.Errorf("%s: %v", what, err)
		}
	}
	cmd := c.Append("INBOX", int64(len(content)), nil)
	if _, err := cmd.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := cmd.Wait()
	isFull("APPEND", err)
	_, err = c.Copy(imap.SeqSetNum(1), "Archive").Wait()
	isFull("COPY", err)
	for _, folder := range []string{"Trash", "Archive"} { // there and back, as often as one likes
		if _, err := c.Move(imap.SeqSetNum(1), folder).Wait(); err != nil {
			t.Errorf("MOVE: %v", err)
		}
	}
	if err := c.Store(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Select("Trash", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Expunge().Collect(); err != nil {
		t.Fatal(err)
	}
	appendTo(t, c, "INBOX", content, nil)
}
