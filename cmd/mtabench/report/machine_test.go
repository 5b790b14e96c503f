//go:build linux

package report

import (
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	m, err := Describe(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if m.Cores < 1 || m.MemoryGiB <= 0 || m.Kernel == "" || !strings.Contains(m.FileSystem, " on ") || m.SyncMS < 0 {
		t.Errorf("%+v", m)
	}
	if _, err := Describe("/no/such/folder"); err == nil {
		t.Error("a folder that is not there is no error")
	}
}

func TestBelow(t *testing.T) {
	for _, test := range []struct {
		dir, mount string
		want       bool
	}{{"/var/tmp/x", "/", true}, {"/var/tmp/x", "/var", true}, {"/var/tmp", "/var/tmp", true}, {"/various", "/var", false}, {"/a", "/b", false}} {
		if got := below(test.dir, test.mount); got != test.want {
			t.Errorf("%s below %s: %v", test.dir, test.mount, got)
		}
	}
}
