package calls

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// Pass hands a plugin the descriptor of a file that holds a content. It returns the token that names it there, and what is to be
// called when the call has ended. It does not wait for the plugin: where that has no room, or is not well, it fails.
type Pass func(ctx context.Context, c mail.Content) (token uint64, done func(), err error)

// PassBy has the client pass large contents to the plugin, which has said that it takes descriptors. It is called before Open.
func (c *Client) PassBy(pass Pass) { c.pass = pass }

// callLarge makes a call with a large content: by its descriptor if that can be, else in chunks.
func (c *Client) callLarge(ctx context.Context, q *question) (*pb.Response, mail.Content, error) {
	if c.pass == nil {
		return c.callStream(ctx, q)
	}
	token, done, err := c.pass(ctx, q.large)
	if err != nil { // what is wrong with the content itself, chunks will tell
		return c.callStream(ctx, q)
	}
	defer done()
	p := requestContent(q.req)
	p.Streamed, p.Token = false, token
	r, content, err := c.callStream(ctx, q)
	if r.GetError().GetKind() != pb.ErrorKind_ERROR_KIND_NO_DESCRIPTOR {
		return r, content, err
	}
	p.Streamed, p.Token = true, 0
	return c.callStream(ctx, q)
}

// TakeBy has the server take contents by their descriptors. Take returns the file that a token names; it is called once.
func (s *Server) TakeBy(take func(token uint64) (*os.File, error)) { s.take = take }

// takeFile returns the content of a request that names a file. The file is to be closed after the call.
func (s *Server) takeFile(p *pb.Content) (spooled, error) {
	if s.take == nil {
		return spooled{}, errors.New("this plugin takes no descriptors")
	}
	f, err := s.take(p.GetToken())
	if err != nil {
		return spooled{}, err
	}
	info, err := f.Stat()
	if err == nil && uint64(info.Size()) != p.GetSize() {
		err = fmt.Errorf("the file has %d bytes, not %d", info.Size(), p.GetSize())
	}
	if err != nil {
		return spooled{}, errors.Join(err, f.Close())
	}
	return spooled{f, info.Size()}, nil
}

// noDescriptor has the server ask again with chunks.
func noDescriptor(r *pb.Request, err error) *pb.Response {
	a := answerError(err)
	a.res.Seq, a.res.GetError().Kind = r.GetSeq(), pb.ErrorKind_ERROR_KIND_NO_DESCRIPTOR
	return a.res
}
