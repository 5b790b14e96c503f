package main

import (
	"bufio"
	"io"
	"strings"
)

// lines reads a peer line by line.
type lines struct{ r *bufio.Reader }

func newLines(r io.Reader) *lines { return &lines{bufio.NewReader(r)} }

// next returns the next line without its CRLF. Of a reply of several lines only the last is returned.
func (l *lines) next() (string, error) {
	for {
		line, err := l.r.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if err != nil || len(line) < 4 || line[3] != '-' {
			return line, err
		}
	}
}
