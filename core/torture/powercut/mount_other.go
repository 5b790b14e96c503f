//go:build !linux

package powercut

import "errors"

var errNotLinux = errors.New("only Linux has loop devices and FUSE as they are used here")

// Possible says why disks can't be mounted here.
func Possible() error { return errNotLinux }

// Mount is of Linux alone.
func Mount(*Disk, string, string) (string, func() error, error) { return "", nil, errNotLinux }

// MountFile is of Linux alone.
func MountFile(string, string, string) (func() error, error) { return nil, errNotLinux }
