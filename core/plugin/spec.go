package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Spec says which program a plugin is and how it is run.
type Spec struct {
	Name     string          // the label of its block
	Where    string          // the place of its block, such as "mta.hcl:12:1", for messages
	Path     string          // of the program; "" for a built-in
	SHA256   string          // of the program, in hex; "" runs it unpinned
	Args     []string        // of the program
	Env      []string        // "KEY=value", beside the few variables that every plugin gets
	Timeout  time.Duration   // of one call; 0: by kind
	Auth     string          // the label of the plugin that answers its Authenticate; "": none does
	Config   json.RawMessage // the config block; empty: none
	RunDir   string          // for sockets, shared by all servers of this machine's user; "": a temporary directory
	StateDir string          // the plugin's own; made when it is missing

	Processes       int           // of the pool; 0: 1
	MaxConcurrent   int           // calls at a time to one process; 0: 1024
	RestartMin      time.Duration // the longest pause after the first short life; 0: 100 ms
	RestartMax      time.Duration // the longest pause of all; 0: 30 s
	BreakerFailures int           // in a row, before calls fail at once; 0: 5
	BreakerCooldown time.Duration // for so long, at first; 0: 5 s

	User    string   // whose rights it has; "": the server's own
	Limits  Limits   // of one process
	Sandbox *Sandbox // nil: it may reach what its user may
	Shim    []string // our own program, with the arguments that make it call Exec; nil: the plugin is not held back at all

	Dev *Dev // not nil: nothing is started, and the process that its author starts is waited for

	Builtin     string   // name of a built-in plugin
	Self        string   // our own program, for built-ins; "": the one that runs
	BuiltinArgs []string // that make our own program serve the built-in
}

// Limits bounds one process. What is 0 is as the server has it.
type Limits struct {
	Memory int64 // bytes; a process that has more is killed, and the kernel gives none far beyond it
	PIDs   int   // processes and threads of its User
	NoFile int   // open files and connections
}

// Sandbox is what a plugin may reach beside its state directory, its sockets and the programs and libraries of the system.
type Sandbox struct {
	Read       []string `json:"read,omitempty"`  // files and directories
	Write      []string `json:"write,omitempty"` // those that it may also change
	ConnectTCP []int    `json:"connect_tcp,omitempty"`
}

// Options are what all plugins of a Host share.
type Options struct {
	Logger  *slog.Logger // nil: slog.Default
	Events  *event.Bus
	Version string // of the server, told to plugins
	// Services returns what the server does for the plugin of that label; nil does nothing for any.
	Services func(label string) Services
}

// Error is a failure of a plugin, in words for the operator.
type Error struct {
	Plugin string
	Where  string // place in mta.hcl; may be ""
	Err    error
	Hint   string // what to do; may be ""
}

// Error says which plugin failed, where it is configured, what happened and what to do.
func (e *Error) Error() string {
	s := fmt.Sprintf("plugin %q", e.Plugin)
	if e.Where != "" {
		s += " (" + e.Where + ")"
	}
	s += ": " + e.Err.Error()
	if e.Hint != "" {
		s += "\n" + e.Hint
	}
	return s
}

// Unwrap returns what happened.
func (e *Error) Unwrap() error { return e.Err }

// ConfigError says what a plugin found wrong with its configuration.
type ConfigError struct {
	Problems []schema.Problem
}

// Error lists the problems.
func (c *ConfigError) Error() string {
	errs := []error{errors.New("its configuration is wrong")}
	for _, p := range c.Problems {
		errs = append(errs, p)
	}
	return errors.Join(errs...).Error()
}

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func hint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

// fail puts the plugin's name and place before an error.
func (s *Spec) fail(err error) error {
	e := &Error{Plugin: s.Name, Where: s.Where, Err: err}
	var h hinted
	if errors.As(err, &h) {
		e.Hint = h.hint
	}
	return e
}

// config is the config block.
func (s *Spec) config() json.RawMessage {
	if len(s.Config) == 0 {
		return json.RawMessage("{}")
	}
	return s.Config
}

// source names the program in messages.
func (s *Spec) source() string {
	if s.Builtin != "" {
		return "builtin:" + s.Builtin
	}
	return s.Path
}
