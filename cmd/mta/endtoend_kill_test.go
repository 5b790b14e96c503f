package main

import (
	"os"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/torture/trial"
)

// TestKillUnderLoad is a short run of `go run ./core/torture kill`, with this binary as the server: it is killed with
// SIGKILL under load 4 times (MTA_E2E_KILLS overrides; the seed is printed, MTA_E2E_SEED repeats its decisions), and so are
// plugins, and its peers cut connections. What was acknowledged arrives, nothing else does, a message comes twice only
// with an excuse, and no plugin outlives its server.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	seed := sizeFrom(t, "MTA_E2E_SEED", int(time.Now().UnixNano()))
	t.Logf("MTA_E2E_SEED=%d", seed)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k := &trial.Kill{
		Program: trial.Program{Path: self, Env: []string{"MTA_TEST_PROGRAM=1"}}, Address: freePorts(t, 1)[0],
		Seed: uint64(seed), Cycles: sizeFrom(t, "MTA_E2E_KILLS", 4), Connections: 8, Cuts: 0.02, Out: t.Output(),
	}
	v, err := k.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Faults {
		t.Error(f)
	}
}
