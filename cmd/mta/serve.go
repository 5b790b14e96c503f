package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/engine"
	"github.com/pabal-mta/mta/plugins/users"
	"github.com/pabal-mta/mta/sdk/mail"
)

// stopTime is how long an orderly stop may take. What has not ended then is cut off and stays in the queue.
const stopTime = 30 * time.Second

func serveCommand() *cobra.Command {
	var logAs, level, profile string
	var dev []string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "Run the server until SIGTERM, SIGINT or mta stop. SIGHUP reads the configuration again, as mta reload does. The log\n" +
			"goes to standard error: text on a terminal, otherwise one JSON object a line.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&logAs, "log", "auto", "auto, text or json")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&profile, "cpuprofile", "", "write a CPU profile for go tool pprof to this file")
	cmd.Flags().StringSliceVar(&dev, "dev", nil, "do not start the plugin of that `NAME`, but wait until you have started it, in a debugger or without; for development alone")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if profile != "" {
			f, err := os.Create(profile)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := pprof.StartCPUProfile(f); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
		}
		log, flush, err := logger(cmd.ErrOrStderr(), logAs, level)
		if err != nil {
			return usageError{err}
		}
		defer flush()
		return serve(cmd, log, dev)
	}
	return cmd
}

func logger(w io.Writer, as, level string) (*slog.Logger, func(), error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, fmt.Errorf("-log-level %q: it is debug, info, warn or error", level)
	}
	text := as == "text"
	if f, ok := w.(*os.File); ok && as == "auto" {
		text = term.IsTerminal(int(f.Fd()))
	}
	if as != "auto" && as != "text" && as != "json" {
		return nil, nil, fmt.Errorf("-log %q: it is auto, text or json", as)
	}
	log, flush := engine.NewLogger(w, text, l)
	return log, flush, nil
}

func serve(cmd *cobra.Command, log *slog.Logger, dev []string) error {
	ctx := cmd.Context()
	l, err := loader(cmd)
	if err != nil {
		return err
	}
	if len(dev) > 0 {
		if l.Dev, err = byHand(cmd, dev); err != nil {
			return err
		}
	}
	cfg, err := shown(cmd)(l.Load(ctx, false))
	if err != nil {
		return err
	}
	// The first reading has just been proved; a reload reads again.
	first := cfg
	e := engine.New(engine.Options{
		ConfigPath: l.Path, Logger: log, Version: version(), Builtin: l.Command, Dev: l.Dev, MailSettings: mailSettings,
		Load: func(ctx context.Context) (*config.Config, error) {
			if cfg := first; cfg != nil {
				first = nil
				return cfg, nil
			}
			cfg, diags := l.Load(ctx, false)
			if diags.HasErrors() {
				return nil, inFull(diags)
			}
			return cfg, nil
		},
	})
	made, err := firstAccounts(cfg)
	if err != nil {
		return err
	}
	if err := e.Start(ctx); err != nil {
		return errors.Join(err, forgetAccounts(cfg, made))
	}
	greet(cmd.OutOrStdout(), l.Path, cfg, made)
	go reloadOnHangup(ctx, e, log)
	err = e.Wait(ctx)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	e.Close(stopping)
	return err
}

// inFull makes an error of everything that a check prints, such as the last words of a plugin that did not come up: who
// reads it is at the other end of a socket, or has the log alone.
func inFull(diags config.Diagnostics) error {
	var b strings.Builder
	if err := diags.Print(&b, false); err != nil {
		return diags
	}
	return errors.New(strings.TrimSpace(b.String()))
}

func reloadOnHangup(ctx context.Context, e *engine.Engine, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			if err := e.Reload(ctx); err != nil {
				log.Error("the configuration was not reloaded; the old one stays in force", "error", err)
			}
		}
	}
}

// account is an account that was just made, with its password.
type account struct{ name, password string }

// firstAccounts makes two accounts with passwords of their own when there is no accounts file yet and nothing listens
// beyond this machine, so that a fresh clone can be tried at once.
func firstAccounts(cfg *config.Config) ([]account, error) {
	if len(cfg.Domains) == 0 || !loopbackOnly(cfg) {
		return nil, nil
	}
	path, err := usersPath(cfg)
	if errors.Is(err, errNoUsers) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	f, err := users.Open(path)
	if err != nil {
		return nil, err
	}
	var made []account
	for _, local := range []string{"ann", "bob"} {
		name, err := mail.NewAddress(local, cfg.Domains[0])
		if err != nil {
			return nil, err
		}
		a := account{name.String(), generatePassword()}
		if err := f.Add(users.Account{Name: name}, a.password); err != nil {
			return nil, err
		}
		made = append(made, a)
	}
	return made, nil
}

// forgetAccounts takes back what firstAccounts has made: nobody was told the passwords.
func forgetAccounts(cfg *config.Config, made []account) error {
	if len(made) == 0 {
		return nil
	}
	path, err := usersPath(cfg)
	if err != nil {
		return err
	}
	return os.Remove(path)
}

func loopbackOnly(cfg *config.Config) bool {
	for _, l := range cfg.Listeners {
		for _, address := range l.Address {
			a, err := netip.ParseAddrPort(address)
			if err != nil || !a.Addr().IsLoopback() {
				return false
			}
		}
	}
	return true
}

// greet says where the server listens, who can log in, and what to try.
func greet(out io.Writer, path string, cfg *config.Config, made []account) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "%s takes mail for %s (%s)\n", cfg.Hostname, strings.Join(cfg.Domains, ", "), path)
	for _, l := range cfg.Listeners {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", l.Name, strings.Join(l.Address, ", "), about(l))
	}
	for _, m := range mailboxListeners(cfg) {
		fmt.Fprintf(w, "  %s\t%s\tto read mail%s\n", m.protocol, strings.Join(m.Address, ", "), inTLS(m.Implicit, m.CertFile != ""))
	}
	if cfg.Admin.Listen != "" {
		fmt.Fprintf(w, "  console\thttp://%s/\tmetrics, health, and a page to look at\n", cfg.Admin.Listen)
	}
	for i, a := range made {
		if i == 0 {
			fmt.Fprintln(w, "two accounts were made; their passwords are shown this once:")
		}
		fmt.Fprintf(w, "  %s\t%s\n", a.name, a.password)
	}
	if to := exampleRecipient(cfg, made); to != "" {
		exe, _ := os.Executable()
		mta := calledAs(exe)
		fmt.Fprintf(w, "try, in another terminal:\n  %s send -to %s\n  %[1]s queue list\n  %[1]s status\n", mta, to)
		if len(mailboxListeners(cfg)) > 0 {
			fmt.Fprintf(w, "  %s mail list -user %s\n", mta, to)
		}
	}
}

// calledAs is what to type for this program: what "go run" has built is in no path.
func calledAs(exe string) string {
	built := func(dir string) bool { return strings.HasPrefix(dir, "go-build") } // in its cache, or in a directory for a while
	if strings.TrimSuffix(filepath.Base(exe), ".exe") == "mta" && slices.ContainsFunc(strings.Split(filepath.ToSlash(exe), "/"), built) {
		return "go run ./cmd/mta"
	}
	return "mta"
}

// exampleRecipient is an address that a line to try can name.
func exampleRecipient(cfg *config.Config, made []account) string {
	if len(made) > 0 {
		return made[0].name
	}
	if path, err := usersPath(cfg); err == nil {
		if f, err := users.Open(path); err == nil {
			if list, err := f.List(); err == nil && len(list) > 0 {
				return list[0].Name.String()
			}
		}
	}
	return ""
}

func about(l *config.Listener) string {
	text := "SMTP"
	if l.Protocol == "lmtp" {
		text = "LMTP"
	}
	text += inTLS(l.Implicit, l.TLS != "")
	if l.Auth != "" {
		text += ", login wanted"
	}
	return text
}

func inTLS(implicit, possible bool) string {
	switch {
	case implicit:
		return ", TLS from the first byte"
	case possible:
		return ", STARTTLS"
	}
	return ""
}
