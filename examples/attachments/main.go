// Attachments is a plugin that keeps programs out of mailboxes. It goes by what a part of a message is, not only by what it
// is called: a program that is named holiday.jpg is found by its first bytes, and a ZIP archive is opened and the names in
// it are looked at.
//
// A message whose MIME is broken is taken as far as it can be read: this is a policy, not a virus scanner.
//
// In mta.hcl:
//
//	plugin "attachments" {
//	  source = "/usr/lib/mta/plugins/attachments"
//	  config {
//	    refuse = ["exe", "scr", "js", "vbs"]
//	    action = "quarantine" # an operator looks at it: mta queue list -state held
//	  }
//	}
//
//	pipeline "inbound" {
//	  on "message" {
//	    use  = [plugin.attachments]
//	    when = !session.authenticated
//	  }
//	}
package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // file names in every charset

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Config is the plugin's block of mta.hcl.
type Config struct {
	Refuse []string `mta:"refuse,optional" default:"exe com scr pif bat cmd ps1 vbs js jar msi dll" doc:"file name extensions, without the dot"`
	Action string   `mta:"action,optional" default:"reject" oneof:"reject quarantine" doc:"what happens to the message"`
}

// Bounds of what is looked at: a message that is built to be endless is read no further.
const (
	maxParts = 1000
	maxZip   = 16 << 20 // bytes of one archive
	maxNames = 10_000   // in one archive
)

// programs are the first bytes of what a machine runs.
var programs = map[string]string{"MZ": "a Windows program", "\x7fELF": "a Linux program", "\xcf\xfa\xed\xfe": "a macOS program"}

var _ sdk.MessageFilter = (*Attachments)(nil)

// Attachments is the filter.
type Attachments struct {
	cfg  Config
	host sdk.Host
}

func newAttachments(_ context.Context, c Config, h sdk.Host) (any, error) {
	return &Attachments{c, h}, nil
}

// Message looks at each part.
func (a *Attachments) Message(ctx context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	found, err := a.find(ctx, m.Content)
	switch {
	case err != nil:
		return mail.Verdict{}, err
	case found == "":
		return mail.Continue(), nil
	}
	a.host.Metrics().Count("found_total", 1)
	a.host.Logger().Info("found", "from", m.Envelope.From.String(), "what", found)
	if a.cfg.Action == "quarantine" {
		return mail.Quarantine(found), nil
	}
	return mail.Reject(550, "5.7.1", "the message holds %s; put it somewhere and send its address", found), nil
}

// errFound ends the walk through a message.
var errFound = errors.New("found")

// find says what is refused in a message, or "".
func (a *Attachments) find(ctx context.Context, c mail.Content) (found string, err error) {
	e, _ := message.Read(mail.Reader(c))
	if e == nil {
		return "", nil // what has no header has no parts
	}
	parts := 0
	err = e.Walk(func(_ []int, part *message.Entity, err error) error {
		if parts++; part == nil || parts > maxParts || ctx.Err() != nil {
			return errFound
		}
		if found = a.inspect(part); found != "" {
			return errFound
		}
		return nil
	})
	if err != nil && found == "" && ctx.Err() != nil {
		return "", ctx.Err()
	}
	return found, nil // a MIME structure that is broken ends the walk, and nothing was found before it
}

// inspect says what is refused in one part, or "".
func (a *Attachments) inspect(part *message.Entity) string {
	kind, params, _ := part.Header.ContentType()
	if strings.HasPrefix(kind, "multipart/") {
		return ""
	}
	_, disposition, _ := part.Header.ContentDisposition()
	for _, name := range []string{disposition["filename"], params["name"]} {
		if ext := a.refused(name); ext != "" {
			return "a file called *." + ext
		}
	}
	head := make([]byte, 64)
	n, _ := io.ReadFull(part.Body, head) // what can't be decoded, a mail program can't run either
	for start, what := range programs {
		if bytes.HasPrefix(head[:n], []byte(start)) && bytes.IndexByte(head[:n], 0) > 0 { // a letter may begin with MZ
			return what
		}
	}
	if bytes.HasPrefix(head[:n], []byte("PK\x03\x04")) {
		return a.unzip(io.MultiReader(bytes.NewReader(head[:n]), part.Body))
	}
	return ""
}

// unzip looks at the names in an archive.
func (a *Attachments) unzip(r io.Reader) string {
	data, err := io.ReadAll(io.LimitReader(r, maxZip+1))
	if err != nil {
		return ""
	}
	if len(data) > maxZip {
		return fmt.Sprintf("an archive of more than %d MiB", maxZip>>20)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return ""
	}
	for i, f := range z.File {
		if i >= maxNames {
			return "an archive of too many files"
		}
		if ext := a.refused(f.Name); ext != "" {
			return "an archive with a *." + ext + " in it"
		}
	}
	return ""
}

// refused returns the extension that a name is refused for, or "".
func (a *Attachments) refused(name string) string {
	ext := strings.TrimPrefix(path.Ext(strings.TrimRight(name, ". ")), ".")
	for _, s := range a.cfg.Refuse {
		if strings.EqualFold(s, ext) {
			return s
		}
	}
	return ""
}

func plugin() sdk.Plugin[Config] {
	return sdk.Plugin[Config]{
		Name: "attachments", Version: "0.1.0", Doc: "keeps programs out of mailboxes", Kinds: (*Attachments)(nil), New: newAttachments,
	}
}

func main() { sdk.Serve(plugin()) }
