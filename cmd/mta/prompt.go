package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// askSecret asks a person on a terminal, which does not show what is typed. An interrupt ends the question, and leaves the
// terminal as it was: the program hears of it by its context, and the terminal would wait for the end of the line.
func askSecret(cmd *cobra.Command, tty *os.File, prompt string) (string, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	defer fmt.Fprintln(cmd.ErrOrStderr())
	type answer struct {
		text []byte
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		answered <- answer{text, err}
	}()
	select {
	case a := <-answered:
		return string(a.text), a.err
	case <-cmd.Context().Done():
		_ = term.Restore(fd, before) // there is nothing else to try
		return "", cmd.Context().Err()
	}
}
