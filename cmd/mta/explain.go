package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
)

// maxExplained bounds the message that is sent to the server with a question.
const maxExplained = 700 << 10

func explainCommand() *cobra.Command {
	var q admin.Question
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "Tell what would become of a message: who is asked, what they say, and which way it would go",
		Long: "Tell what would become of a message to ADDRESS. The running server holds the whole dialogue with itself, with the\n" +
			"plugins that it runs, and queues nothing; plugins may remember that they were asked, as a greylist does. Then come\n" +
			"the route, the hosts and the TLS that the message would meet; no host is connected to. Without -file the plugins\n" +
			"are not asked about the message itself.",
		Example: "  mta explain ann@example.com\n  mta explain bob@example.org -from ann@example.com -user ann@example.com -file letter.eml",
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&q.From, "from", "", "reverse-path (default: the null sender)")
	f.StringVar(&q.IP, "ip", "", "address of the client (default: 192.0.2.1, a stranger)")
	f.StringVar(&q.Helo, "helo", "", "what the client calls itself")
	f.StringVar(&q.User, "user", "", "the account that has logged in")
	f.StringVar(&q.Listener, "listener", "", "where the message comes in (default: the first that fits)")
	f.StringVar(&file, "file", "", "the message; - reads standard input")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		q.To = args[0]
		if q.Content, err = contentOf(cmd, file); err != nil {
			return err
		}
		c, err := client(cmd)
		if err != nil {
			return err
		}
		x, err := c.Explain(cmd.Context(), q)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(x)
		}
		printExplanation(cmd.OutOrStdout(), x)
		return nil
	}
	return cmd
}

// contentOf reads the message that is asked about.
func contentOf(cmd *cobra.Command, file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxExplained+1))
	if err == nil && len(b) > maxExplained {
		return nil, fmt.Errorf("%s is larger than %d KiB; cut it, or ask without it", file, maxExplained>>10)
	}
	return b, err
}

func printExplanation(w io.Writer, x admin.Explanation) {
	fmt.Fprintf(w, "listener %s", x.Listener)
	if x.Pipeline != "" {
		fmt.Fprintf(w, ", pipeline %s", x.Pipeline)
	}
	fmt.Fprintln(w)
	for _, l := range x.Dialogue {
		if l.Says != "" {
			fmt.Fprintf(w, "C: %s\n", l.Says)
		}
		for _, s := range l.Steps {
			printStep(w, s)
		}
		fmt.Fprintf(w, "S: %s\n", strings.ReplaceAll(l.Reply, "\n", "\n   "))
		if l.Why != "" {
			fmt.Fprintf(w, "   because %s\n", firstLine(l.Why))
		}
	}
	if !x.Accepted {
		fmt.Fprintln(w, "it would not be taken")
		return
	}
	if x.Held != "" {
		fmt.Fprintf(w, "it would be held: %s\n", x.Held)
	}
	for _, line := range x.Header {
		fmt.Fprintf(w, "   | %s\n", line)
	}
	for _, way := range x.Ways {
		printWay(w, way)
	}
}

func printStep(w io.Writer, s admin.StepAnswer) {
	fmt.Fprintf(w, "   plugin %s at %s: %s", s.Plugin, s.Stage, s.Verdict)
	for _, more := range []string{s.Reply, s.Edits, s.Reason} {
		if more != "" {
			fmt.Fprintf(w, "; %s", more)
		}
	}
	fmt.Fprintf(w, " (%s)\n", s.Took.Round(10*time.Microsecond))
	if s.Error != "" {
		fmt.Fprintf(w, "      it failed: %s\n", firstLine(s.Error))
	}
}

func printWay(w io.Writer, way admin.WayOfOne) {
	fmt.Fprintf(w, "%s\n", way.To)
	for _, p := range way.Passed {
		fmt.Fprintf(w, "   not by route %s\n", p)
	}
	if way.Route != "" {
		fmt.Fprintf(w, "   by route %s, %s", way.Route, way.Kind)
		if way.Store != "" {
			fmt.Fprintf(w, " in plugin %s", way.Store)
		}
		if len(way.Convert) > 0 {
			fmt.Fprintf(w, ", converted by %s", strings.Join(way.Convert, ", "))
		}
		fmt.Fprintln(w)
	}
	for _, h := range way.Hops {
		fmt.Fprintf(w, "   to %s %s; TLS: %s\n", h.Host, strings.Join(h.Addresses, " "), h.TLS)
		if h.Problem != "" {
			fmt.Fprintf(w, "      %s\n", h.Problem)
		}
	}
	if way.Problem != "" {
		fmt.Fprintf(w, "   %s\n", way.Problem)
	}
}
