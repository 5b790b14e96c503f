package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// words finds the text of the letter: given, read, or written in an editor. What is quoted stands before it, what is
// passed on stands below it.
func (w *writing) words(cmd *cobra.Command, quoted, below string) (string, error) {
	text, err := "", error(nil)
	switch in, isFile := cmd.InOrStdin().(*os.File); {
	case w.body == "-" || w.text == "-":
		text, err = readText(cmd.InOrStdin())
	case w.bodyGiven:
		text = w.body
	case w.text != "":
		var b []byte
		b, err = readFile(w.text)
		text = string(b)
	case w.html != "":
	case isFile && term.IsTerminal(int(in.Fd())):
		return edit(cmd, join(quoted, "", below))
	default:
		text, err = readText(cmd.InOrStdin())
	}
	if err != nil {
		return "", err
	}
	if text == "" && w.html != "" && below == "" {
		return "", nil // the text is made from the HTML
	}
	return join(quoted, text, below), nil
}

// join puts the parts of a text below each other, with an empty line between them.
func join(parts ...string) string {
	var full []string
	for _, p := range parts {
		if p = strings.Trim(strings.ReplaceAll(p, "\r\n", "\n"), "\n"); p != "" {
			full = append(full, p)
		}
	}
	return strings.Join(full, "\n\n") + "\n"
}

// readText reads all there is.
func readText(r io.Reader) (string, error) {
	b, err := io.ReadAll(r)
	return string(b), err
}

// edit lets a person write in the editor of the environment. A text that was not changed is not sent.
func edit(cmd *cobra.Command, start string) (string, error) {
	f, err := os.CreateTemp("", "mta-mail-*.txt")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(start)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	run := exec.CommandContext(cmd.Context(), "/bin/sh", "-c", editor+` "$1"`, "sh", f.Name())
	run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := run.Run(); err != nil {
		return "", fmt.Errorf("%s: %w; nothing was sent", editor, err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return "", err
	}
	if len(bytes.TrimSpace(b)) == 0 || string(b) == start {
		return "", errors.New("nothing was written, nothing was sent")
	}
	return string(b), nil
}
