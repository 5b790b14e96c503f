package engine

import (
	"errors"
	"fmt"
	"sync"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/plugin"
)

// poisonAfter is how many attempts in which the same plugin died a message may have before it is held. A call that may be
// repeated was then repeated on a fresh process in each of them.
const poisonAfter = 2

// maxSuspects bounds how many messages are remembered. When there are more, plugins die whatever they are given, and
// nobody is a suspect.
const maxSuspects = 10_000

// suspects remembers messages in whose attempts a plugin died.
type suspects struct {
	mu   sync.Mutex
	seen map[string]suspect // by queue ID
}

type suspect struct {
	plugin string
	times  int
}

// note takes the outcomes of an attempt and returns why the message is to be held, or "".
func (s *suspects) note(id string, outcomes []deliver.Outcome) (reason string) {
	killed := killedIn(outcomes)
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.seen[id]
	switch {
	case killed == "":
		delete(s.seen, id)
		return ""
	case killed != x.plugin:
		x = suspect{plugin: killed}
	}
	if x.times++; x.times >= poisonAfter {
		delete(s.seen, id)
		return fmt.Sprintf("plugin %q died in %d attempts of this message; release it when the plugin is mended", killed, x.times)
	}
	if s.seen == nil || len(s.seen) >= maxSuspects {
		s.seen = map[string]suspect{}
	}
	s.seen[id] = x
	return ""
}

// killedIn names the plugin that died in an attempt, or "".
func killedIn(outcomes []deliver.Outcome) string {
	for _, o := range outcomes {
		var e *plugin.Error
		if errors.Is(o.Err, plugin.ErrLost) && errors.As(o.Err, &e) {
			return e.Plugin
		}
	}
	return ""
}
