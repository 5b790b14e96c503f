package plugin

import (
	"context"
	"errors"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

const (
	// maxFiles bounds the memory of all contents that are kept in files for plugins; what does not fit goes in chunks.
	maxFiles = 64 << 20
	// minFile is what a file counts as at the least, so that the bound is one on descriptors as well.
	minFile = 256 << 10
	// fileRest is how long a file waits for the next plugin that is asked about the same message.
	fileRest = 2 * time.Second
)

// files keeps large contents in files in memory, whose descriptors plugins are given: one for each content, whoever asks about it.
type files struct {
	rest time.Duration

	mu   sync.Mutex
	room int64
	kept map[mail.Content]*file
}

// contents are the files of this process, which has but one memory.
var contents = &files{rest: fileRest, room: maxFiles, kept: make(map[mail.Content]*file)}

// file holds a content. Nobody can change it.
type file struct {
	fill   sync.Once
	sealed *os.File
	err    error
	counts int64
	users  int
	alone  *time.Timer // ends its rest
}

// use returns the file of a content, and what is to be called when it is no longer used.
func (s *files) use(c mail.Content) (*os.File, func(), error) {
	f, err := s.enter(c)
	if err != nil {
		return nil, nil, err
	}
	f.fill.Do(func() { f.sealed, f.err = sealedContent(c) })
	if f.err != nil {
		s.leave(c, f)
		return nil, nil, f.err
	}
	return f.sealed, func() { s.leave(c, f) }, nil
}

func (s *files) enter(c mail.Content) (*file, error) {
	if !reflect.TypeOf(c).Comparable() {
		return nil, errors.New("a content that can't be known again")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.kept[c]; f != nil {
		f.users++
		return f, nil
	}
	f := &file{counts: max(c.Size(), minFile), users: 1}
	for old, resting := range s.kept {
		if f.counts > s.room && resting.users == 0 {
			s.drop(old, resting)
		}
	}
	if f.counts > s.room {
		return nil, errors.New("too much is kept in memory for plugins")
	}
	s.room -= f.counts
	s.kept[c] = f
	return f, nil
}

func (s *files) leave(c mail.Content, f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
	switch {
	case f.users > 0:
	case f.err != nil:
		s.drop(c, f)
	case f.alone != nil:
		f.alone.Reset(s.rest)
	default:
		f.alone = time.AfterFunc(s.rest, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if f.users == 0 && s.kept[c] == f {
				s.drop(c, f)
			}
		})
	}
}

// drop closes a file that nobody uses. s.mu is held.
func (s *files) drop(c mail.Content, f *file) {
	delete(s.kept, c)
	s.room += f.counts
	if f.sealed != nil {
		f.sealed.Close()
	}
}

// pass hands the process a content; see calls.Pass.
func (p *post) pass(ctx context.Context, c mail.Content) (token uint64, done func(), err error) {
	f, done, err := contents.use(c)
	if err != nil {
		return 0, nil, err
	}
	if token, err = p.send(ctx, f); err != nil {
		done()
		return 0, nil, err
	}
	return token, done, nil
}
