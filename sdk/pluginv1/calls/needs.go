package calls

import (
	"fmt"
	"io"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// MaxPrefix is the biggest prefix of a content that a plugin can ask for: it rides in the request. One that asks for more
// gets all.
const MaxPrefix = maxInline

// CheckKind returns what is wrong with what a kind says that it needs.
func CheckKind(k *pb.Kind) error {
	switch {
	case len(k.GetHeaderNames()) > 0 && !k.GetHeader():
		return fmt.Errorf("header_names without header: an older server would send no field at all")
	case k.GetBodyPrefix() > 0 && !k.GetBody():
		return fmt.Errorf("body_prefix without body: an older server would send nothing of the content")
	case k.GetBodyPrefix() > MaxPrefix:
		return fmt.Errorf("a prefix of %d bytes, more than %d; ask for the body", k.GetBodyPrefix(), MaxPrefix)
	}
	for _, name := range k.GetHeaderNames() {
		if err := mail.CheckFieldName(name); err != nil {
			return err
		}
	}
	return nil
}

// Needs says in words what a plugin is given of a message at stage message.
func Needs(k *pb.Kind) []string {
	list := []string{"envelope"}
	if k.GetHeader() {
		fields := "header fields"
		if names := k.GetHeaderNames(); len(names) > 0 {
			fields += ": " + Printable(strings.Join(names, " "))
		}
		list = append(list, fields)
	}
	if n := k.GetBodyPrefix(); k.GetBody() && n > 0 {
		list = append(list, fmt.Sprintf("content: the first %d bytes", n))
	} else if k.GetBody() {
		list = append(list, "content")
	}
	return list
}

// needs is how much of a message is sent to a plugin.
type needs struct {
	header, body bool
	names        map[string]bool // in lower case; nil: all fields
	prefix       int64           // of the content; 0: all of it
}

// needsOf obeys what a kind says. Where it says what CheckKind refuses, it gets more rather than less.
func needsOf(k *pb.Kind) needs {
	n := needs{header: k.GetHeader(), body: k.GetBody()}
	for _, name := range k.GetHeaderNames() {
		if n.names == nil {
			n.names = make(map[string]bool)
		}
		n.names[strings.ToLower(name)] = true
	}
	if p := int64(k.GetBodyPrefix()); p <= MaxPrefix {
		n.prefix = p
	}
	return n
}

// fields returns the fields that are wanted, with the IDs that they have.
func (n needs) fields(all mail.Header) mail.Header {
	if n.names == nil {
		return all
	}
	var some mail.Header
	for _, f := range all {
		if n.names[strings.ToLower(f.Name)] {
			some = append(some, f)
		}
	}
	return some
}

// putContent puts as much of a content into the question as is wanted.
func (n needs) putContent(q *question, c mail.Content) (*pb.Content, error) {
	size := c.Size()
	switch {
	case !n.body:
		return &pb.Content{Size: uint64(size)}, nil
	case n.prefix == 0 || n.prefix >= size:
		return q.putContent(c)
	}
	p, err := q.putContent(part{c, n.prefix})
	if err == nil {
		p.Size = uint64(size)
	}
	return p, err
}

// part is the first bytes of a content.
type part struct {
	mail.Content
	size int64
}

// Size is that of the part.
func (p part) Size() int64 { return p.size }

// prefix is a content of which only the first bytes were sent.
type prefix struct {
	data []byte
	size int64
}

// Size is that of the whole.
func (p prefix) Size() int64 { return p.size }

// ReadAt reads from what was sent.
func (p prefix) ReadAt(b []byte, at int64) (int, error) {
	n := 0
	if at >= 0 && at < int64(len(p.data)) {
		n = copy(b, p.data[at:])
	}
	switch {
	case n == len(b):
		return n, nil
	case at+int64(n) >= p.size:
		return n, io.EOF
	}
	return n, fmt.Errorf("only the first %d of %d bytes were sent: the plugin's Needs say that it wants no more: %w", len(p.data), p.size, io.ErrUnexpectedEOF)
}
