package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/archive"
	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/engine"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

func queueExport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "Write queued messages into files: ID.eml, and ID.json with the envelope",
		Long: "Write queued messages into files: ID.eml holds the content, ID.json all else that the queue knows of the message,\n" +
			"what was delivered to whom among it. The queue keeps them: to move to another host, hold them first (mta queue hold\n" +
			"-all), import them there, and delete them here.",
		Example: "  mta queue export /backup/queue\n  mta queue export /tmp/dead -domain dead.example",
		Args:    cobra.ExactArgs(1),
	}
	sel := selectors(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := loadOffline(cmd)
		if err != nil {
			return err
		}
		if _, err := sel.Filter(); err != nil {
			return usageError{err}
		}
		n, err := exportLive(cmd.Context(), cfg, *sel, args[0])
		if errors.Is(err, admin.ErrNotRunning) {
			fmt.Fprintln(cmd.ErrOrStderr(), "the server is down; this is what lies in its files")
			n, err = exportFiles(cmd.Context(), engine.QueueDir(cfg), *sel, args[0])
		}
		fmt.Fprintf(cmd.OutOrStdout(), "exported: %s to %s\n", plural(n, "message"), args[0])
		return err
	}
	return cmd
}

// exportLive asks the running server. What is delivered meanwhile is left out.
func exportLive(ctx context.Context, cfg *config.Config, sel admin.Selection, dir string) (n int, err error) {
	c := admin.NewClient(cfg.Admin.Socket)
	var damaged []error
	err = c.List(ctx, sel, func(m admin.Message) error {
		e, err := c.Envelope(ctx, m.ID)
		if err == nil {
			err = archive.WriteFrom(dir, e, func(w io.Writer) error { return c.Content(ctx, m.ID, w) })
		}
		switch {
		case err == nil:
			n++
		case !errors.Is(err, admin.ErrNoMessage):
			damaged = append(damaged, fmt.Errorf("%s: %w", m.ID, err))
		}
		return nil
	})
	return n, errors.Join(append(damaged, err)...)
}

func exportFiles(ctx context.Context, dir string, sel admin.Selection, to string) (n int, err error) {
	f, err := sel.Filter()
	if err != nil {
		return 0, usageError{err}
	}
	q, err := queue.OpenReadOnly(dir)
	if err != nil {
		return 0, err
	}
	var damaged []error
	err = q.List(ctx, f, func(r *queue.Record) error {
		rec, content, err := q.Load(r.ID)
		if err == nil {
			err = archive.Write(to, archive.Of(rec, q.Name()), content)
		}
		if errors.Is(err, queue.ErrDamaged) {
			damaged = append(damaged, err)
			return nil
		}
		if err == nil {
			n++
		}
		return err
	})
	return n, errors.Join(append(damaged, err, q.Close())...)
}

func queueImport() *cobra.Command {
	var lost bool
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Put exported messages into the queue",
		Long: "Put exported messages into the queue. Everything in DIR is proved first; when something is malformed, nothing is\n" +
			"imported. A message is imported once, and not while or after it was in this very queue, so that nothing is delivered\n" +
			"twice; what was delivered to a recipient before the export is not delivered again.",
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&lost, "lost", false, "also messages of this very queue that it has lost; they may have been delivered")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := loadOffline(cmd)
		if err != nil {
			return err
		}
		paths, err := archive.Prove(args[0])
		if err != nil {
			return err
		}
		if len(paths) == 0 {
			return fmt.Errorf("there is no exported message in %s", args[0])
		}
		n, err := importAll(cmd.Context(), cfg, paths, lost)
		fmt.Fprintf(cmd.OutOrStdout(), "imported: %s; %d were or are in the queue already\n", plural(n, "message"), len(paths)-n)
		return err
	}
	return cmd
}

// importAll gives messages to the running server, or puts them into its files when it is down.
func importAll(ctx context.Context, cfg *config.Config, paths []string, lost bool) (n int, err error) {
	c := admin.NewClient(cfg.Admin.Socket)
	put := func(e *archive.Envelope, _ *queue.Record, content *archive.Content) (bool, error) {
		return c.Import(ctx, e, mail.Reader(content), lost)
	}
	if _, err := c.Status(ctx); errors.Is(err, admin.ErrNotRunning) {
		q, err := queue.Open(engine.QueueDir(cfg), queue.Options{MinFree: int64(cfg.Queue.MinFree)})
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, q.Close()) }()
		put = func(e *archive.Envelope, rec *queue.Record, content *archive.Content) (bool, error) {
			_, err := q.Restore(ctx, e.Store, rec, content, lost)
			if errors.Is(err, queue.ErrRestored) {
				return false, nil
			}
			return err == nil, err
		}
	} else if err != nil {
		return 0, err
	}
	for _, path := range paths {
		added, err := importOne(path, put)
		if err != nil {
			return n, fmt.Errorf("%s: %w", path, err)
		}
		if added {
			n++
		}
	}
	return n, nil
}

func importOne(path string, put func(*archive.Envelope, *queue.Record, *archive.Content) (bool, error)) (bool, error) {
	e, rec, content, err := archive.Read(path)
	if err != nil {
		return false, err
	}
	defer content.Close()
	return put(e, rec, content)
}
