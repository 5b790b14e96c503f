package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/engine"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Short: "Look at the queue, and change it"}
	cmd.AddCommand(queueList(), queueShow(), queueShape(), queueCheck(), queueExport(), queueImport())
	for verb, short := range map[admin.Verb]string{
		admin.Retry:   "Try messages again now",
		admin.Hold:    "Keep messages without trying them",
		admin.Release: "End the hold of messages",
		admin.Bounce:  "Give messages up now, and tell their senders",
		admin.Delete:  "Remove messages, and tell nobody",
	} {
		cmd.AddCommand(queueVerb(verb, short))
	}
	cmd.AddCommand(queueSuspend(), queueResume())
	return cmd
}

// selectors adds the flags that all queue commands share.
func selectors(cmd *cobra.Command) *admin.Selection {
	sel := new(admin.Selection)
	f := cmd.Flags()
	f.StringSliceVar(&sel.IDs, "id", nil, "these messages")
	f.StringVar(&sel.From, "from", "", "messages of this sender, or of senders at @domain; <> for reports")
	f.StringVar(&sel.To, "to", "", "messages with this recipient, or with one at @domain")
	f.StringVar(&sel.Domain, "domain", "", "messages with a recipient in this domain")
	f.StringVar(&sel.State, "state", "", "waiting or held")
	f.StringVar(&sel.Reply, "reply", "", "messages whose last reply for a recipient has this in it, such as 451 or greylist")
	f.DurationVar(&sel.Older, "older", 0, "messages queued longer ago than this, such as 2h")
	return sel
}

// listing calls fn for each selected message: of the running server, or of its files when it is down.
func listing(cmd *cobra.Command, sel admin.Selection, fn func(admin.Message) error) error {
	cfg, err := loadOffline(cmd)
	if err != nil {
		return err
	}
	err = admin.NewClient(cfg.Admin.Socket).List(cmd.Context(), sel, fn)
	if !errors.Is(err, admin.ErrNotRunning) {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "the server is down; this is what lies in its files")
	return fromFiles(cmd.Context(), engine.QueueDir(cfg), sel, fn)
}

func fromFiles(ctx context.Context, dir string, sel admin.Selection, fn func(admin.Message) error) error {
	f, err := sel.Filter()
	if err != nil {
		return usageError{err}
	}
	q, err := queue.OpenReadOnly(dir)
	if err != nil {
		return err
	}
	err = q.List(ctx, f, func(r *queue.Record) error { return fn(admin.MessageOf(admin.Listed{Record: r})) })
	return errors.Join(err, q.Close())
}

func queueList() *cobra.Command {
	var asJSON, onlyCount bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List queued messages, the oldest first",
		Example: "  mta queue list -domain example.com -older 4h\n  mta queue list -state held -json\n  mta queue list -reply 451 -count",
		Args:    cobra.NoArgs,
	}
	sel := selectors(cmd)
	cmd.Flags().IntVar(&sel.Limit, "limit", 0, "at most this many")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVar(&onlyCount, "count", false, "print only how many there are, and of what size")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if onlyCount {
			return printCount(cmd, *sel, asJSON)
		}
		if asJSON {
			enc := json.NewEncoder(cmd.OutOrStdout())
			return listing(cmd, *sel, func(m admin.Message) error { return enc.Encode(m) })
		}
		return printList(cmd, *sel)
	}
	return cmd
}

func printList(cmd *cobra.Command, sel admin.Selection) error {
	w := &rows{out: cmd.OutOrStdout()}
	n, size := 0, int64(0)
	err := listing(cmd, sel, func(m admin.Message) error {
		var err error
		if n == 0 {
			err = w.add("ID", "AGE", "SIZE", "FROM", "TO", "TRIES", "NEXT", "LAST REPLY")
		}
		n++
		size += m.Size
		return errors.Join(err, printMessage(w, m))
	})
	if err := errors.Join(err, w.flush()); err != nil {
		return err
	}
	if n == 0 {
		if sel.Empty() {
			fmt.Fprintln(cmd.OutOrStdout(), "The queue is empty.")
		} else {
			fmt.Fprintln(cmd.OutOrStdout(), "No queued message is like that.")
		}
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s, %s\n", plural(n, "message"), admin.Bytes(size))
	return nil
}

func printCount(cmd *cobra.Command, sel admin.Selection, asJSON bool) error {
	var sum struct {
		Messages   int   `json:"messages"`
		Recipients int   `json:"recipients"` // still to be delivered
		Bytes      int64 `json:"bytes"`
	}
	err := listing(cmd, sel, func(m admin.Message) error {
		sum.Messages++
		sum.Bytes += m.Size
		for _, r := range m.Recipients {
			if r.State == "pending" {
				sum.Recipients++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(sum)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s for %s, %s\n", plural(sum.Messages, "message"), plural(sum.Recipients, "recipient"), admin.Bytes(sum.Bytes))
	return nil
}

func printMessage(w *rows, m admin.Message) error {
	next := "now"
	switch wait := time.Until(m.Next); {
	case m.State == "held":
		next = "held: " + m.Held
	case m.Suspended != "":
		next = "suspended: " + m.Suspended
	case wait > 0:
		next = "in " + admin.Ago(wait)
	}
	from := cmp.Or(m.From, "<>")
	for i, r := range m.Recipients {
		to := r.Address
		if r.State != "pending" {
			to += " (" + r.State + ")"
		}
		cells := []string{"", "", "", "", to, "", "", shorten(r.Reply, 70)}
		if i == 0 {
			cells = []string{
				m.ID, admin.Ago(time.Since(m.Received)), admin.Bytes(m.Size), from, to, strconv.Itoa(m.Attempts), next, shorten(r.Reply, 70),
			}
		}
		if err := w.add(cells...); err != nil {
			return err
		}
	}
	return nil
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "s") {
		noun += "e"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func queueShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one queued message: its envelope, what was tried, and its content",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var found *admin.Message
			err := listing(cmd, admin.Selection{IDs: args}, func(m admin.Message) error { found = &m; return nil })
			if err != nil {
				return err
			}
			if found == nil {
				return fmt.Errorf("there is no message %s in the queue", args[0])
			}
			showMessage(cmd.OutOrStdout(), *found)
			return printContent(cmd, args[0])
		},
	}
}

// printContent prints the content of a message: from the running server, or from its files when it is down.
func printContent(cmd *cobra.Command, id string) error {
	cfg, err := loadOffline(cmd)
	if err != nil {
		return err
	}
	err = admin.NewClient(cfg.Admin.Socket).Content(cmd.Context(), id, cmd.OutOrStdout())
	if !errors.Is(err, admin.ErrNotRunning) {
		return err
	}
	number, err := queue.ParseID(id)
	if err != nil {
		return err
	}
	q, err := queue.OpenReadOnly(engine.QueueDir(cfg))
	if err != nil {
		return err
	}
	_, content, err := q.Load(number)
	if err == nil {
		_, err = io.Copy(cmd.OutOrStdout(), mail.Reader(content))
	}
	return errors.Join(err, q.Close())
}

func showMessage(out io.Writer, m admin.Message) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "id\t%s, %s\n", m.ID, m.State)
	fmt.Fprintf(w, "from\t%s\n", cmp.Or(m.From, "<> (a report)"))
	fmt.Fprintf(w, "received\t%s, %s ago, %s", m.Received.Format(time.RFC3339), admin.Ago(time.Since(m.Received)), admin.Bytes(m.Size))
	if m.Remote != "" {
		fmt.Fprintf(w, ", from %s at listener %q", m.Remote, m.Listener)
	}
	if m.User != "" {
		fmt.Fprintf(w, ", by %s", m.User)
	}
	if m.Priority != 0 {
		fmt.Fprintf(w, ", priority %d", m.Priority)
	}
	fmt.Fprintln(w)
	for _, r := range m.Recipients {
		fmt.Fprintf(w, "to\t%s, %s\n", r.Address, r.State)
		if r.Reply != "" {
			fmt.Fprintf(w, "\t%s\n", strings.TrimPrefix(r.Host+": "+r.Reply, ": "))
		}
	}
	switch {
	case m.State == "held":
		fmt.Fprintf(w, "held\t%s\n", m.Held)
	case m.Suspended != "":
		fmt.Fprintf(w, "next\tsuspended: %s, after %s\n", m.Suspended, plural(m.Attempts, "attempt"))
	default:
		fmt.Fprintf(w, "next\t%s, after %s\n", m.Next.Format(time.RFC3339), plural(m.Attempts, "attempt"))
	}
	w.Flush()
	fmt.Fprintln(out)
}

// shapeAges are the upper edges of the columns of `mta queue shape`.
var shapeAges = []time.Duration{5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 12 * time.Hour, 48 * time.Hour}

// shapeKeys are what `mta queue shape` can count by.
var shapeKeys = map[string]func(m *admin.Message, r *admin.Recipient) string{
	"domain":    func(_ *admin.Message, r *admin.Recipient) string { return domainOf(r.Address) },
	"recipient": func(_ *admin.Message, r *admin.Recipient) string { return r.Address },
	"sender":    func(m *admin.Message, _ *admin.Recipient) string { return cmp.Or(m.From, "<>") },
	"from":      func(m *admin.Message, _ *admin.Recipient) string { return cmp.Or(domainOf(m.From), "<>") },
	"reply":     func(_ *admin.Message, r *admin.Recipient) string { return cmp.Or(shorten(r.Reply, 70), "(not tried)") },
	"state":     func(m *admin.Message, _ *admin.Recipient) string { return m.State },
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

func queueShape() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:     "shape",
		Short:   "Show recipient domains, senders or replies against the age of what waits",
		Example: "  mta queue shape\n  mta queue shape -by reply -domain example.com",
		Args:    cobra.NoArgs,
	}
	sel := selectors(cmd)
	cmd.Flags().StringVar(&by, "by", "domain", "domain, recipient, sender, from (the sender's domain), reply, or state")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		key, ok := shapeKeys[by]
		if !ok {
			return usageError{fmt.Errorf("the queue has no shape by %q; there are domain, recipient, sender, from, reply and state", by)}
		}
		rows := map[string][]int{}
		err := listing(cmd, *sel, func(m admin.Message) error {
			for _, r := range m.Recipients {
				if r.State != "pending" {
					continue
				}
				row := key(&m, &r)
				if rows[row] == nil {
					rows[row] = make([]int, len(shapeAges)+2)
				}
				column, _ := slices.BinarySearch(shapeAges, time.Since(m.Received))
				rows[row][column+1]++
				rows[row][0]++
			}
			return nil
		})
		if err != nil {
			return err
		}
		printShape(cmd.OutOrStdout(), strings.ToUpper(by), rows)
		return nil
	}
	return cmd
}

func printShape(out io.Writer, by string, rows map[string][]int) {
	domains := make([]string, 0, len(rows))
	for d := range rows {
		domains = append(domains, d)
	}
	slices.SortFunc(domains, func(a, b string) int {
		return cmp.Or(cmp.Compare(rows[b][0], rows[a][0]), cmp.Compare(a, b))
	})
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "RECIPIENTS\t")
	for _, age := range shapeAges {
		fmt.Fprintf(w, "< %s\t", admin.Ago(age))
	}
	fmt.Fprintln(w, "older\t  "+by)
	for _, d := range domains {
		for _, n := range rows[d] {
			fmt.Fprintf(w, "%d\t", n)
		}
		fmt.Fprintf(w, "  %s\n", d)
	}
	w.Flush()
}

func queueVerb(verb admin.Verb, short string) *cobra.Command {
	var yes, all bool
	cmd := &cobra.Command{
		Use:   string(verb) + " [ID...]",
		Short: short,
		Long: short + ".\n\nMessages are named by their ids or by selectors; -all stands for every message. What would change more than\n" +
			"one message prints the count and asks for -yes.",
	}
	sel := selectors(cmd)
	var reason string
	cmd.Flags().BoolVar(&yes, "yes", false, "do it, also to more than one message")
	cmd.Flags().BoolVar(&all, "all", false, "every message")
	if verb == admin.Hold || verb == admin.Bounce {
		cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sel.IDs = append(sel.IDs, args...)
		if sel.Empty() && !all {
			return usageError{fmt.Errorf("which messages? Give ids, selectors (-from -to -domain -state -reply -older), or -all")}
		}
		if _, err := sel.Filter(); err != nil {
			return usageError{err}
		}
		return actOn(cmd, verb, admin.Order{Selection: *sel, Reason: reason}, yes)
	}
	return cmd
}

func actOn(cmd *cobra.Command, verb admin.Verb, order admin.Order, yes bool) error {
	c, err := client(cmd)
	if err != nil {
		return err
	}
	order.Dry = true
	n, err := c.Act(cmd.Context(), verb, order)
	switch {
	case err != nil:
		return err
	case n == 0:
		return errors.New("no queued message is like that")
	case n > 1 && !yes:
		fmt.Fprintf(cmd.ErrOrStderr(), "this would %s %s; say -yes to do it\n", verb, plural(n, "message"))
		return errShown
	}
	order.Dry = false
	done, err := c.Act(cmd.Context(), verb, order)
	if err != nil {
		return err
	}
	left := ""
	if verb == admin.Retry && done < n {
		left = "; the others are held, or their destination is suspended (mta status)"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s%s\n", verb, plural(done, "message"), left)
	return nil
}
