package config

import (
	"strconv"

	"github.com/hashicorp/hcl/v2"
)

// Origin tells where a value comes from.
type Origin struct {
	File    string
	Line    int
	Default bool // it is not written anywhere
	Secret  bool // it came from env, file or credential, or is a password: it is never printed
}

// String returns file:line or "(default)"; "" for a value that is not set.
func (o Origin) String() string {
	switch {
	case o.Default:
		return "(default)"
	case o.File == "":
		return ""
	default:
		return o.File + ":" + strconv.Itoa(o.Line)
	}
}

// Origin returns where a key of a block was written. Block is a pointer to a struct of this Config, name is the key as it
// stands in a file; with "" it is the block itself.
func (c *Config) Origin(block any, name string) Origin {
	p, ok := c.places[key{block, name}]
	if !ok {
		return Origin{}
	}
	return p.origin()
}

// key is a name in a block; the block is known by its address.
type key struct {
	block any
	name  string
}

type places map[key]place

// place is where a value stands.
type place struct {
	def       hcl.Range   // the key, or the block's head
	value     hcl.Range   // all of the value
	items     []hcl.Range // of a list's values, where they are written one by one
	isDefault bool
	secret    bool
	wrong     bool // it is written, and it is a mistake
}

func (p place) origin() Origin {
	return Origin{File: p.def.Filename, Line: p.def.Start.Line, Default: p.isDefault, Secret: p.secret}
}

func (ps places) byDefault(block any, name string) { ps[key{block, name}] = place{isDefault: true} }

// written reports whether a key stands in a file.
func (ps places) written(block any, name string) bool {
	p, ok := ps[key{block, name}]
	return ok && !p.isDefault
}

// at returns the place of a value; of the block's head when the key is not written.
func (ps places) at(block any, name string) hcl.Range {
	if p, ok := ps[key{block, name}]; ok && !p.isDefault {
		return p.value
	}
	return ps[key{block, ""}].def
}

// item returns the place of one value of a list.
func (ps places) item(block any, name string, i int) hcl.Range {
	if p := ps[key{block, name}]; i < len(p.items) {
		return p.items[i]
	}
	return ps.at(block, name)
}

// show quotes a value for a message, unless it is secret.
func (ps places) show(block any, name, value string) string {
	if ps[key{block, name}].secret {
		return "(secret)"
	}
	return short(value)
}
