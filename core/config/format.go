package config

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// Format lays a file out. A file that can't be read comes back with what is wrong with it, and unchanged.
func Format(src []byte) ([]byte, Diagnostics) {
	if diags := readable("", src); diags.HasErrors() {
		return src, diags
	}
	return hclwrite.Format(withoutBOM(src)), nil
}

// Pin writes the sha256 of a plugin into a file; all else in the file stays as it is. It is an error when the file has no
// such plugin.
func Pin(src []byte, plugin, sum string) ([]byte, error) {
	if diags := readable("", src); diags.HasErrors() {
		return src, diags
	}
	f, diags := hclwrite.ParseConfig(withoutBOM(src), "", hcl.InitialPos)
	if diags.HasErrors() {
		return src, diags
	}
	b := f.Body().FirstMatchingBlock("plugin", []string{plugin})
	if b == nil {
		return src, fmt.Errorf("there is no plugin %q in this file", plugin)
	}
	b.Body().SetAttributeValue("sha256", cty.StringVal(sum))
	return hclwrite.Format(f.Bytes()), nil
}

// readable parses a file for its mistakes of syntax.
func readable(name string, src []byte) Diagnostics {
	s := newSource(name, src)
	d := newDecoder([]*source{s}, Options{})
	d.parse(s)
	d.finish()
	return d.diags
}
