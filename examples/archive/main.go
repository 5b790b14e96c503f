// Archive is a store that keeps every message that it is given for good: its content in a file that is named by the
// SHA-256 of it, so that a message to a hundred people is kept once, and a line for each recipient in one index.
//
//	objects/3f/9a0c…        the message, read-only
//	index                   a line of JSON each: time, id, from, to, sha256, size
//
// Both are synced before the server is told that the message is stored. A message that comes again, because our answer was
// lost, is found in the index and not written twice, also while a reload has two processes of the plugin at work. Nothing
// is ever changed or removed: `grep '"to":"ann@example.com"' index` finds her mail, sha256sum proves it.
//
// In mta.hcl:
//
//	plugin "archive" {
//	  source = "/usr/lib/mta/plugins/archive"
//	  config {
//	    path = "/var/lib/mta-archive"
//	  }
//	}
//
//	route "archive" {
//	  domains = ["archive.example"]
//	  store   = plugin.archive
//	}
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Config is the plugin's block of mta.hcl.
type Config struct {
	Path string `mta:"path,optional" type:"path" doc:"where the archive lies; the plugin's own directory without it"`
}

// Archive is the store.
type Archive struct {
	dir   string
	host  sdk.Host
	index *index
}

func newArchive(_ context.Context, c Config, h sdk.Host) (any, error) {
	a := &Archive{dir: c.Path, host: h}
	if a.dir == "" {
		a.dir = h.StateDir()
	}
	if err := os.MkdirAll(filepath.Join(a.dir, "objects"), 0o700); err != nil {
		return nil, err
	}
	var err error
	a.index, err = openIndex(filepath.Join(a.dir, "index"))
	return a, err
}

// Close closes the index.
func (a *Archive) Close() error { return a.index.file.Close() }

// Store keeps the content once, and a line for each recipient.
func (a *Archive) Store(_ context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	sum, err := a.keep(d.Content)
	if err != nil {
		return nil, err
	}
	list := make([]entry, len(d.To))
	for i, r := range d.To {
		list[i] = entry{Time: d.Time.UTC(), ID: d.ID, From: d.From.String(), To: r.Address.String(), SHA256: sum, Size: d.Content.Size()}
	}
	if err := a.index.add(list); err != nil {
		return nil, err
	}
	a.host.Metrics().Count("stored_total", float64(len(list)))
	replies := make([]mail.Reply, len(list))
	for i := range replies {
		replies[i] = mail.NewReply(250, "2.0.0", "archived as "+sum)
	}
	return replies, nil
}

// keep writes a content under its name, unless it is there, and returns its SHA-256.
func (a *Archive) keep(c mail.Content) (sum string, err error) {
	temp, err := os.CreateTemp(filepath.Join(a.dir, "objects"), ".new-")
	if err != nil {
		return "", err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(temp, h), mail.Reader(c)); err != nil {
		return "", err
	}
	sum = hex.EncodeToString(h.Sum(nil))
	dir := filepath.Join(a.dir, "objects", sum[:2])
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	name := filepath.Join(dir, sum[2:])
	if _, err := os.Stat(name); err == nil {
		return sum, nil
	}
	if err := errors.Join(temp.Chmod(0o400), temp.Sync()); err != nil {
		return "", err
	}
	if err := os.Rename(temp.Name(), name); err != nil {
		return "", err
	}
	return sum, errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

// syncDir makes a new name in a directory last.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// entry is a line of the index.
type entry struct {
	Time   time.Time `json:"time"` // when the message was received
	ID     string    `json:"id"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	SHA256 string    `json:"sha256"`
	Size   int64     `json:"size"`
}

func plugin() sdk.Plugin[Config] {
	return sdk.Plugin[Config]{
		Name: "archive", Version: "0.1.0", Doc: "keeps every message for good", Kinds: (*Archive)(nil), New: newArchive,
	}
}

func main() { sdk.Serve(plugin()) }
