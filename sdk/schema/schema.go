package schema

import (
	"fmt"
	"reflect"
)

// Schema says what may stand in a config block. It is what a plugin sends to the core.
type Schema struct {
	Doc        string      `json:"doc,omitempty"`
	Attributes []Attribute `json:"attributes,omitempty"`
	Blocks     []Block     `json:"blocks,omitempty"`
}

// Attribute is a name that has a value.
type Attribute struct {
	Name string `json:"name"`
	// Type is one of string, bool, int, float, duration, size, cidr, ip, regex, address, path and secret, or one of them
	// in list(...) or map(...). In JSON a bool is a bool, an int and a float are numbers, a size is a string or a number,
	// and all others are strings.
	Type     string   `json:"type"`
	Doc      string   `json:"doc,omitempty"`
	Default  string   `json:"default,omitempty"` // as it stands in the tag; a list's words are parted by spaces
	Required bool     `json:"required,omitempty"`
	Secret   bool     `json:"secret,omitempty"` // never shown
	OneOf    []string `json:"one_of,omitempty"` // nil: any value
}

// Block is a name that has a body of its own. In JSON it is an object, or a list of objects where Many is set.
type Block struct {
	Name     string `json:"name"`
	Doc      string `json:"doc,omitempty"`
	Schema   Schema `json:"schema"`
	Many     bool   `json:"many,omitempty"`     // it may be repeated
	Required bool   `json:"required,omitempty"` // it holds a required attribute and can't be left out
}

// Of finds the schema of a struct, given as a value or a pointer. An error means that its author has to change it: a field
// of a type that can't be configured, a tag that makes no sense, a default that is no legal value.
func Of(v any) (*Schema, error) {
	t := reflect.TypeOf(v)
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("a configuration is a struct, not %T", v)
	}
	p, err := planOf(t, nil)
	if err != nil {
		return nil, err
	}
	s := p.schema()
	return &s, nil
}

// Elem takes the type of a list or of a map apart: of "list(cidr)" it is "list" and "cidr". For any other type, kind is "".
func (a Attribute) Elem() (kind, elem string) {
	for _, kind := range []string{"list", "map"} {
		if n := len(kind); len(a.Type) > n+2 && a.Type[:n+1] == kind+"(" && a.Type[len(a.Type)-1] == ')' {
			return kind, a.Type[n+1 : len(a.Type)-1]
		}
	}
	return "", a.Type
}
