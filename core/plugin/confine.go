package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// confineKey is the variable that tells our own program, run as a plugin, what it is to be kept to.
const confineKey = "MTA_CONFINE"

// confinement is what a process is kept to before a plugin runs in it.
type confinement struct {
	Limits  Limits   `json:"limits"`
	Sandbox *Sandbox `json:"sandbox,omitempty"`
}

// confinementOf says what a plugin is kept to. Its own directories, and what it is run from, are added to its sandbox.
func confinementOf(l *launcher) *confinement {
	c := &confinement{Limits: l.spec.Limits}
	if l.spec.Sandbox == nil {
		return c
	}
	box := *l.spec.Sandbox
	box.Write = append([]string{l.room.dir}, box.Write...)
	if l.host != nil {
		box.Write = append(box.Write, l.host.socket)
	}
	if l.spec.StateDir != "" {
		box.Write = append(box.Write, l.spec.StateDir)
	}
	if l.spec.Builtin == "" && l.bin.file == nil {
		box.Read = append(box.Read[:len(box.Read):len(box.Read)], l.spec.Path)
	}
	c.Sandbox = &box
	return c
}

// String writes the confinement as a variable of an environment.
func (c *confinement) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and numbers
	}
	return confineKey + "=" + string(b)
}

// Confine keeps this process, and all that it starts, to what its environment says, and takes that out of the environment.
// It is called by our own program when that is run as a built-in plugin.
func Confine() error {
	text, ok := os.LookupEnv(confineKey)
	if !ok {
		return nil
	}
	if err := os.Unsetenv(confineKey); err != nil {
		return err
	}
	var c confinement
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("%s: %w", confineKey, err)
	}
	return c.apply()
}

// Exec confines this process and then becomes the program argv[0], whose own arguments, beginning with its name, are the
// rest. It returns only when that fails.
func Exec(argv []string) error {
	if len(argv) < 2 {
		return errors.New("a path, a name and arguments are wanted")
	}
	if err := Confine(); err != nil {
		return err
	}
	return startFailure(argv[1], syscall.Exec(argv[0], argv[1:], os.Environ()))
}

// startFailure tells it as it is told where there is no shim.
func startFailure(source string, err error) error {
	return errors.New(strings.TrimSpace(execError(source, err).Error()))
}
