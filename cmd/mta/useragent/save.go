package useragent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// SaveFiles writes files into a folder, which is made if it is not there, and tells of each that is there. Names are made harmless first; two of one name
// get numbers. A file that exists stays as it is unless force is set, and a file that can't be written whole is not left
// behind.
func SaveFiles(dir string, files []File, force bool, saved func(name string, size int)) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing is lost with a directory
	taken := map[string]bool{}
	for _, f := range files {
		name := distinctName(f.Name, taken)
		if err := saveFile(root, name, f.Data, force); err != nil {
			return err
		}
		saved(name, len(f.Data))
	}
	return nil
}

// distinctName numbers names that came before; case is no difference, as on some disks.
func distinctName(name string, taken map[string]bool) string {
	name = FileName(name)
	if name == "" {
		name = "part"
	}
	ext := path.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	for n := 2; taken[strings.ToLower(name)]; n++ {
		name = fmt.Sprintf("%s (%d)%s", stem, n, ext)
	}
	taken[strings.ToLower(name)] = true
	return name
}

func saveFile(root *os.Root, name string, data []byte, force bool) error {
	if force {
		return replaceFile(root, name, data)
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; -force overwrites it", name)
	}
	if err != nil {
		return err
	}
	if err := writeAndClose(f, data); err != nil {
		return errors.Join(err, root.Remove(name))
	}
	return nil
}

// replaceFile puts a new file in the place of the old one; a link is replaced, not followed.
func replaceFile(root *os.Root, name string, data []byte) error {
	temp := ".saving-" + shortName(name)
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	err = writeAndClose(f, data)
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return nil
}

func writeAndClose(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return errors.Join(err, f.Close())
}
