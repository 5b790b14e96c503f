package engine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReloadHangs reloads into a plugin that never answers: who asked is told, and the process that was there goes on.
func TestReloadHangs(t *testing.T) {
	r := newFaultRig(t, quiet, len(faultKinds)+1)
	before := r.status("honest").PID
	if err := os.WriteFile(filepath.Join(r.dir, "honest", "fault"), []byte("start slow"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := r.engine.Reload(ctx); err == nil || !strings.Contains(err.Error(), `plugin "honest"`) || !strings.Contains(err.Error(), "did not come up in time") {
		t.Errorf("the reload: %v", err)
	}
	r.another()
	if now := r.status("honest").PID; now != before {
		t.Errorf("the process is %d, and was %d", now, before)
	}
	if err := os.Remove(filepath.Join(r.dir, "honest", "fault")); err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Reload(t.Context()); err != nil || r.status("honest").PID == before {
		t.Errorf("a reload when all is well: %v, process %d", err, r.status("honest").PID)
	}
	r.another()
	r.end()
}
