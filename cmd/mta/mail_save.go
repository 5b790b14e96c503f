package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/cmd/mta/useragent"
	"github.com/pabal-mta/mta/core/admin"
)

// saving is what of a message is saved, and where.
type saving struct {
	dir             string
	parts           []string
	whole, pictures bool
	force           bool
}

func (m *mailFlags) saveCommand() *cobra.Command {
	var s saving
	cmd := &cobra.Command{
		Use:   "save N",
		Short: "Save the attachments of a message",
		Long: "Save the attachments of a message, byte for byte as they were sent. No file is overwritten without -force, and none is\n" +
			"written outside the folder.",
		Example: "  mta mail save 7 -dir ~/Downloads\n  mta mail save 7 -part report.pdf -part 2.1\n  mta mail save 7 -eml",
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&s.dir, "dir", ".", "the folder to save into")
	f.StringArrayVar(&s.parts, "part", nil, "only this part: its number or its name, as read shows them")
	f.BoolVar(&s.whole, "eml", false, "the whole message, as a file .eml")
	f.BoolVar(&s.pictures, "cid", false, "also the pictures that the HTML shows")
	f.BoolVar(&s.force, "force", false, "overwrite files")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return m.withMailbox(cmd, m.folder, true, func(_ *useragent.Account, box *useragent.Mailbox) error {
			n, message, err := fetch(cmd, box, args)
			if err != nil {
				return err
			}
			files, err := s.choose(message, fmt.Sprintf("message-%d", n))
			if err != nil {
				return err
			}
			if len(files) == 0 {
				return errors.New("the message has no attachment; -eml saves the message, -part a part of it")
			}
			return useragent.SaveFiles(s.dir, files, s.force, func(name string, size int) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", filepath.Join(s.dir, name), admin.Bytes(int64(size)))
			})
		})
	}
	return cmd
}

// choose returns the files that are asked for.
func (s *saving) choose(m *useragent.Message, fallback string) ([]useragent.File, error) {
	if s.whole {
		name := useragent.FileName(m.Header.Text("Subject"))
		if name == "" {
			name = fallback
		}
		return []useragent.File{{Name: name + ".eml", Data: m.Raw}}, nil
	}
	var list []*useragent.Part
	for _, name := range s.parts {
		p := m.Find(name)
		if p == nil {
			return nil, fmt.Errorf("the message has no part %q; mta mail read shows them", name)
		}
		list = append(list, p)
	}
	if len(s.parts) == 0 {
		list = m.Attachments()
	}
	if s.pictures {
		list = append(list, m.Pictures()...)
	}
	var files []useragent.File
	for _, p := range list {
		files = append(files, useragent.File{Name: p.SaveName(), Data: p.Bytes()})
	}
	return files, nil
}

// readFile reads a file to attach, and refuses what is none.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	return os.ReadFile(path)
}
