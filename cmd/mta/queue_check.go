package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/archive"
	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/engine"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// checkReport is what `mta queue check` prints with -json. Fields are only ever added.
type checkReport struct {
	Sound      bool                   `json:"sound"`
	Live       bool                   `json:"live"` // a running server was asked: its files were not read
	Messages   int64                  `json:"messages"`
	Bytes      int64                  `json:"bytes"`
	Damaged    []admin.DamagedMessage `json:"damaged"`
	Missing    int64                  `json:"missing"`
	Files      []string               `json:"files"`    // what is damaged of them
	Repaired   []string               `json:"repaired"` // what was done, or would be
	Quarantine string                 `json:"quarantine,omitempty"`
	repair     bool
}

func queueCheck() *cobra.Command {
	var asJSON, repair bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Prove every message and every file of the queue, and repair it",
		Long: "Prove every message and every file of the queue, and repair it.\n\n" +
			"While the server runs, it reads every queued message and proves its checksums. While it is stopped, the files are\n" +
			"proved too. Nothing is changed without -repair, which wants the server stopped: it keeps what is good of damaged\n" +
			"files, moves the damaged ones to broken/ in the queue's directory, puts damaged messages into quarantine/ beside it\n" +
			"(ID.eml, and ID.json with what is known of the envelope), and lets the server start with what is left.\n" +
			"Exit code 0: all is sound, or was repaired without a loss. 1: something is or was damaged.",
		Example: "  mta queue check\n  mta stop && mta queue check -repair",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&repair, "repair", false, "change what is damaged")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadOffline(cmd)
		if err != nil {
			return err
		}
		r, err := checkQueue(cmd.Context(), cfg, repair)
		if err != nil {
			return err
		}
		if asJSON {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(r)
		} else {
			r.print(cmd.OutOrStdout())
		}
		if err == nil && !r.fine() {
			return errShown
		}
		return err
	}
	return cmd
}

// fine reports that nothing is lost.
func (r *checkReport) fine() bool {
	return r.Sound || r.repair && len(r.Damaged) == 0 && r.Missing == 0
}

// checkQueue asks the running server, or reads the files when it is down.
func checkQueue(ctx context.Context, cfg *config.Config, repair bool) (*checkReport, error) {
	c := admin.NewClient(cfg.Admin.Socket)
	status, err := c.Status(ctx)
	switch {
	case err == nil && repair:
		return nil, errors.New("the server is running; stop it for a repair (mta stop)")
	case err == nil:
		return checkLive(ctx, c, status)
	case !errors.Is(err, admin.ErrNotRunning):
		return nil, err
	}
	return checkFiles(ctx, engine.QueueDir(cfg), repair)
}

func checkLive(ctx context.Context, c *admin.Client, status admin.Status) (*checkReport, error) {
	r := &checkReport{Live: true, Missing: status.Queue.Missing, Files: status.Queue.Problems}
	checked, err := c.Check(ctx, func(m admin.DamagedMessage) error {
		r.Damaged = append(r.Damaged, m)
		return nil
	})
	r.Messages, r.Bytes = checked.Messages, checked.Bytes
	r.Sound = len(r.Damaged) == 0 && r.Missing == 0 && len(r.Files) == 0
	return r, err
}

func checkFiles(ctx context.Context, dir string, repair bool) (*checkReport, error) {
	r := &checkReport{repair: repair, Quarantine: filepath.Join(filepath.Dir(dir), "quarantine")}
	found, err := queue.CheckStore(ctx, dir, queue.CheckOptions{Repair: repair, Quarantine: func(rec *queue.Record, c mail.Content, damage error) error {
		e := archive.Of(rec, "") // of no store: when it was mended by hand it can be imported
		e.Damage = damage.Error()
		return archive.Write(r.Quarantine, e, c)
	}})
	if err != nil {
		return nil, err
	}
	r.Sound, r.Messages, r.Bytes, r.Missing = found.Sound(), found.Messages, found.Bytes, found.Missing
	r.Files, r.Repaired = found.Files, found.Repaired
	for _, m := range found.Lost {
		d := admin.DamagedMessage{Message: admin.MessageOf(admin.Listed{Record: m.Record}), Damage: m.Damage.Error()}
		if repair {
			d.File = filepath.Join(r.Quarantine, d.ID+".json")
		}
		r.Damaged = append(r.Damaged, d)
	}
	if len(r.Damaged) == 0 || !repair {
		r.Quarantine = ""
	}
	return r, nil
}

func (r *checkReport) print(out io.Writer) {
	for _, f := range r.Files {
		fmt.Fprintf(out, "damaged    %s\n", f)
	}
	verb := "would be"
	if r.repair {
		verb = "done"
	}
	for _, s := range r.Repaired {
		fmt.Fprintf(out, "%-10s %s\n", verb, s)
	}
	for _, m := range r.Damaged {
		fmt.Fprintf(out, "message    %s", m.ID)
		if m.From != "" || len(m.Recipients) > 0 {
			fmt.Fprintf(out, " from %s", orNull(m.From))
		}
		for _, to := range m.Recipients {
			fmt.Fprintf(out, " to %s (%s)", to.Address, to.State)
		}
		fmt.Fprintf(out, ": %s\n", m.Damage)
		if m.File != "" {
			fmt.Fprintf(out, "           what is left of it: %s\n", m.File)
		}
	}
	if r.Missing > 0 {
		fmt.Fprintf(out, "missing    %s, at the least: nothing is left of what was taken from the queue's files\n", plural(int(r.Missing), "message"))
	}
	fmt.Fprintf(out, "sound      %s, %s\n", plural(int(r.Messages), "message"), admin.Bytes(r.Bytes))
	switch {
	case r.Sound && r.Live:
		fmt.Fprintln(out, "All messages are sound. The files are proved when the server is stopped.")
	case r.Sound:
		fmt.Fprintln(out, "The queue is sound.")
	case r.repair:
		fmt.Fprintln(out, "The queue was repaired.")
	default:
		fmt.Fprintln(out, "The queue is damaged; nothing was changed. With the server stopped, mta queue check -repair repairs it.")
	}
}

func orNull(from string) string {
	if from == "" {
		return "<>"
	}
	return from
}
