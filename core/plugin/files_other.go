//go:build unix && !linux

package plugin

import (
	"context"
	"errors"
	"os"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Contents go in chunks here: there are no files in memory that can be sealed.
type post struct{}

func newPost() (*post, *os.File, error) { return nil, nil, errors.ErrUnsupported }

func (*post) close() {}

func (*post) send(context.Context, *os.File) (uint64, error) { return 0, errors.ErrUnsupported }

func sealedContent(mail.Content) (*os.File, error) { return nil, errors.ErrUnsupported }
