package pop3

import (
	"bufio"
	"errors"
	"strconv"
	"strings"
)

// maxLine bounds a command line: more than RFC 2449, 4 asks for, and enough for a long password in base64.
const maxLine = 4096

var errLong = errors.New("the line is too long")

// command is a line of a client: a word in capitals, and what follows it.
type command struct {
	verb string
	args []string
	rest string // what follows the word, as it stands there
}

// readLine reads a line without its end. A line end is CRLF; a lone LF is taken too.
func readLine(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errLong
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(b[:len(b)-1]), "\r"), nil
}

// parseCommand takes a line apart. A password may hold spaces: see rest (RFC 1939, 7).
func parseCommand(line string) command {
	verb, rest, _ := strings.Cut(line, " ")
	return command{strings.ToUpper(verb), strings.Fields(rest), rest}
}

// number returns an argument that is a number from 1, or 0.
func (c command) number(i int) int {
	if i >= len(c.args) {
		return 0
	}
	n, err := strconv.Atoi(c.args[i])
	if err != nil || n < 1 {
		return 0
	}
	return n
}
