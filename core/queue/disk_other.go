//go:build !linux

package queue

import (
	"errors"
	"os"
)

// diskFree is not known here, so that there is no disk guard.
func diskFree(string) (int64, error) { return 0, errors.ErrUnsupported }

func reserve(*os.File, int64) error { return errors.ErrUnsupported }

func owner(os.FileInfo) (uid, gid int, ok bool) { return 0, 0, false }

func adviseMaps(string, map[string]bool) error { return nil }

func forgetMaps(string) error { return nil }
