package config

import "testing"

func TestBuiltin(t *testing.T) {
	for source, want := range map[string]string{"builtin:users": "users", "/usr/lib/mta/plugins/greylist": "", "": ""} {
		if got := (&Plugin{Source: source}).Builtin(); got != want {
			t.Errorf("%q is the built-in plugin %q; want %q", source, got, want)
		}
	}
}
