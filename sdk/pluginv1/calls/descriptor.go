package calls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// Pass hands a plugin the descriptor of a file that holds a content. It returns the token that names it there, and what is to be
// called when the call has ended. It does not wait for the plugin: where that has no room, or is not well, it fails.
type Pass func(ctx context.Context, c mail.Content) (token uint64, done func(), err error)

// PassBy has the client pass large contents to the plugin, which has said that it takes descriptors. It is called before Open.
func (c *Client) PassBy(pass Pass) { c.pass = pass }

type inChunks struct{}

// InChunks returns a context for calls whose contents are to go in chunks, which every plugin has to take.
func InChunks(ctx context.Context) context.Context { return context.WithValue(ctx, inChunks{}, true) }

// callLarge makes a call with a large content: by its descriptor if that can be, else in chunks.
func (c *Client) callLarge(ctx context.Context, q *question) (*pb.Response, mail.Content, error) {
	if c.pass == nil || ctx.Value(inChunks{}) != nil {
		return c.callStream(ctx, q)
	}
	body := &mail.Spliced{Rest: q.large}
	if s, ok := q.large.(*mail.Spliced); ok && len(s.Head) <= maxInline {
		body = s // the file is of what it was before its header was edited, and good for others
	}
	token, done, err := c.pass(ctx, body.Rest)
	if err != nil { // what is wrong with the content itself, chunks will tell
		return c.callStream(ctx, q)
	}
	defer done()
	p := requestContent(q.req)
	p.Streamed, p.Data, p.Token, p.Offset = false, body.Head, token, uint64(body.From)
	r, content, err := c.callStream(ctx, q)
	if r.GetError().GetKind() != pb.ErrorKind_ERROR_KIND_NO_DESCRIPTOR {
		return r, content, err
	}
	p.Streamed, p.Data, p.Token, p.Offset = true, nil, 0, 0
	return c.callStream(ctx, q)
}

// TakeBy has the server take contents by their descriptors. Take returns the file that a token names; it is called once.
func (s *Server) TakeBy(take func(token uint64) (*os.File, error)) { s.take = take }

// takeFile returns the content of a request that names a file. The file is to be closed after the call.
func (s *Server) takeFile(p *pb.Content) (mail.Content, io.Closer, error) {
	if s.take == nil {
		return nil, nil, errors.New("this plugin takes no descriptors")
	}
	f, err := s.take(p.GetToken())
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	c := mail.Splice(p.GetData(), spooled{f, info.Size()}, int64(p.GetOffset()))
	if p.GetOffset() > uint64(info.Size()) || uint64(c.Size()) != p.GetSize() {
		return nil, nil, errors.Join(fmt.Errorf("its file has %d bytes", info.Size()), f.Close())
	}
	return c, f, nil
}

// noDescriptor has the server ask again with chunks.
func noDescriptor(r *pb.Request, err error) *pb.Response {
	a := answerError(err)
	a.res.Seq, a.res.GetError().Kind = r.GetSeq(), pb.ErrorKind_ERROR_KIND_NO_DESCRIPTOR
	return a.res
}
