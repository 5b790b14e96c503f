package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pabal-mta/mta/plugins/users"
)

func userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Accounts of the built-in plugin \"users\"",
		Long: "Accounts of the built-in plugin \"users\". The file is that of the configuration, or -file. A running server sees a\n" +
			"change at the next login.",
	}
	cmd.PersistentFlags().String("file", "", "the accounts file, instead of the configuration's")
	cmd.AddCommand(userAdd(), userPassword(), userList(), userRemove())
	return cmd
}

// accountsFile opens the file that -file or the configuration names.
func accountsFile(cmd *cobra.Command) (*users.File, error) {
	path, err := cmd.Flags().GetString("file")
	if err != nil {
		return nil, err
	}
	if path == "" {
		cfg, err := load(cmd, false)
		if err != nil {
			return nil, err
		}
		if path, err = usersPath(cfg); err != nil {
			return nil, err
		}
	}
	return users.Open(path)
}

func userAdd() *cobra.Command {
	var generate, anySender bool
	var also []string
	cmd := &cobra.Command{
		Use:     "add ADDRESS",
		Short:   "Add an account",
		Example: "  mta user add ann@example.com\n  echo \"$PASSWORD\" | mta user add ann@example.com -also info@example.com",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&generate, "generate", false, "make a password and print it")
	cmd.Flags().BoolVar(&anySender, "any-sender", false, "it may send under any address")
	cmd.Flags().StringSliceVar(&also, "also", nil, "its other addresses")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a := users.Account{AnySender: anySender}
		var err error
		if a.Name, err = users.ParseName(args[0]); err != nil {
			return usageError{err}
		}
		for _, text := range also {
			address, err := users.ParseName(text)
			if err != nil {
				return usageError{err}
			}
			a.Addresses = append(a.Addresses, address)
		}
		f, err := accountsFile(cmd)
		if err != nil {
			return err
		}
		password, err := newPassword(cmd, generate)
		if err != nil {
			return err
		}
		if err := f.Add(a, password); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "added %s\n", a.Name)
		return nil
	}
	return cmd
}

func userPassword() *cobra.Command {
	var generate bool
	cmd := &cobra.Command{
		Use:   "password ADDRESS",
		Short: "Give an account another password",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := accountsFile(cmd)
			if err != nil {
				return err
			}
			password, err := newPassword(cmd, generate)
			if err != nil {
				return err
			}
			if err := f.SetPassword(args[0], password); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has a new password\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&generate, "generate", false, "make a password and print it")
	return cmd
}

func userList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the accounts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := accountsFile(cmd)
			if err != nil {
				return err
			}
			list, err := f.List()
			if errors.Is(err, fs.ErrNotExist) {
				list, err = nil, nil
			}
			if err != nil {
				return err
			}
			return printAccounts(cmd, list, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func printAccounts(cmd *cobra.Command, list []users.Account, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(cmd.OutOrStdout())
		for _, a := range list {
			if err := enc.Encode(a); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "There are no accounts. Add one: mta user add ANN@EXAMPLE.COM")
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "ACCOUNT\tALSO\tNOTES")
	for _, a := range list {
		var also, notes []string
		for _, o := range a.Addresses {
			also = append(also, o.String())
		}
		if a.AnySender {
			notes = append(notes, "may send under any address")
		}
		if a.Disabled {
			notes = append(notes, "disabled")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", a.Name, strings.Join(also, " "), strings.Join(notes, ", "))
	}
	return nil
}

func userRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ADDRESS",
		Short: "Remove an account; its mailbox stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := accountsFile(cmd)
			if err != nil {
				return err
			}
			if err := f.Remove(args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "removed %s; its mailbox was not touched\n", args[0])
			return nil
		},
	}
}

// newPassword makes one, asks for it on a terminal, or reads a line of standard input. It never takes it from an
// argument, which every user of the machine could read.
func newPassword(cmd *cobra.Command, generate bool) (string, error) {
	if generate {
		p := generatePassword()
		fmt.Fprintf(cmd.OutOrStdout(), "password: %s\n", p)
		return p, nil
	}
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return askPassword(cmd, f)
	}
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if p := strings.TrimRight(line, "\r\n"); p != "" {
		return p, nil
	}
	if err == nil {
		err = errors.New("it is empty")
	}
	return "", fmt.Errorf("reading the password from standard input: %w", err)
}

func askPassword(cmd *cobra.Command, tty *os.File) (string, error) {
	first, err := askSecret(cmd, tty, "password: ")
	if err != nil {
		return "", err
	}
	second, err := askSecret(cmd, tty, "again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two are not equal; nothing was changed")
	}
	return first, nil
}

// generatePassword makes a password of 80 random bits in groups that can be read aloud.
func generatePassword() string {
	text := strings.ToLower(rand.Text())[:16]
	return text[:4] + "-" + text[4:8] + "-" + text[8:12] + "-" + text[12:]
}
