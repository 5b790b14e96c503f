package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/engine"
	"github.com/pabal-mta/mta/core/plugin"
)

// byHand makes the places where plugins are waited for that are started by hand. It refuses a server that takes mail from
// elsewhere: what answers for its mail is neither pinned nor held back, and may stand at a breakpoint.
func byHand(cmd *cobra.Command, names []string) (engine.Dev, error) {
	cfg, err := loadOffline(cmd)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, p := range cfg.Plugins {
		known = append(known, p.Name)
	}
	if !loopbackOnly(cfg) {
		return nil, fmt.Errorf("-dev is for development: every listener has to be on a loopback address, such as 127.0.0.1:2525")
	}
	out, dev := cmd.ErrOrStderr(), make(engine.Dev)
	for _, name := range names {
		if cfg.Plugin(name) == nil {
			return nil, fmt.Errorf("-dev %s: mta.hcl has no such plugin; there are: %s", name, strings.Join(known, ", "))
		}
		if dev[name], err = plugin.NewDev(name, out); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(out, "WARNING: -dev %s: not for production. What is started by hand is not pinned, not limited and not in a sandbox, its calls have no\n"+
		"time-out, and mail waits while it stands at a breakpoint or is not there.\n", strings.Join(names, ","))
	return dev, nil
}
