package smtpc

import (
	"slices"
	"strconv"
	"strings"
)

// Caps is what a peer offers (RFC 5321, 4.1.1.1).
type Caps struct {
	Pipelining bool     // RFC 2920
	StartTLS   bool     // RFC 3207
	EightBit   bool     // RFC 6152
	Chunking   bool     // RFC 3030
	Binary     bool     // RFC 3030
	UTF8       bool     // RFC 6531
	DSN        bool     // RFC 3461
	RequireTLS bool     // RFC 8689
	Priority   bool     // RFC 6710
	Size       bool     // RFC 1870: the SIZE parameter is known
	MaxSize    int64    // the largest message that is taken; 0: not said
	Auth       []string // mechanisms, upper case (RFC 4954)
}

// maxMechanisms bounds what a peer can make us remember.
const maxMechanisms = 32

// add reads one line of the answer to EHLO. Keywords are taken in any case (RFC 5321, 2.4).
func (c *Caps) add(line []byte) {
	words := strings.Fields(strings.ToUpper(string(line[:min(len(line), 512)])))
	if len(words) == 0 {
		return
	}
	// Some old servers write "AUTH=LOGIN PLAIN".
	if rest, ok := strings.CutPrefix(words[0], "AUTH="); ok {
		words = slices.Insert(words[1:], 0, "AUTH", rest)
	}
	switch words[0] {
	case "PIPELINING":
		c.Pipelining = true
	case "STARTTLS":
		c.StartTLS = true
	case "8BITMIME":
		c.EightBit = true
	case "CHUNKING":
		c.Chunking = true
	case "BINARYMIME":
		c.Binary = true
	case "SMTPUTF8":
		c.UTF8 = true
	case "DSN":
		c.DSN = true
	case "REQUIRETLS":
		c.RequireTLS = true
	case "MT-PRIORITY":
		c.Priority = true
	case "SIZE":
		c.setSize(words[1:])
	case "AUTH":
		for _, m := range words[1:] {
			if len(c.Auth) < maxMechanisms && !slices.Contains(c.Auth, m) {
				c.Auth = append(c.Auth, m)
			}
		}
	}
}

// setSize reads the value of SIZE; one that is no number counts as not given.
func (c *Caps) setSize(values []string) {
	c.Size = true
	if len(values) == 0 {
		return
	}
	if n, err := strconv.ParseInt(values[0], 10, 64); err == nil && n > 0 {
		c.MaxSize = n
	}
}
