package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Possible says why disks can't be mounted here, or nil.
func Possible() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may mount a disk")
	}
	for _, name := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("this machine has no %s", name)
		}
	}
	return nil
}

// Mount shows the disk as a file on a FUSE file system in dir/fuse, makes a block device of it, and mounts that in
// dir/disk. Both directories are made. The returned function undoes all that; what the file system had not written yet
// reaches the disk then.
func Mount(d *Disk, dir, options string) (at string, unmount func() error, err error) {
	below, at := filepath.Join(dir, "fuse"), filepath.Join(dir, "disk")
	if err := os.MkdirAll(below, 0o700); err != nil {
		return "", nil, err
	}
	server, err := fs.Mount(below, &root{disk: d}, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMount: true, FsName: "powercut", Name: "powercut", MaxWrite: 1 << 20, DisableXAttrs: true,
	}})
	if err != nil {
		return "", nil, fmt.Errorf("mounting FUSE in %s: %w", below, err)
	}
	undo, err := MountFile(filepath.Join(below, diskName), at, options)
	if err != nil {
		return "", nil, errors.Join(err, server.Unmount())
	}
	return at, func() error {
		if err := undo(); err != nil {
			return err
		}
		// The loop device lets go of its file a little after it is unmounted.
		return patiently(server.Unmount)
	}, nil
}

// patiently does what may be refused for a moment.
func patiently(do func() error) (err error) {
	for range 200 {
		if err = do(); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// MountFile mounts the ext4 in a file on a directory, which it makes.
func MountFile(file, at, options string) (unmount func() error, err error) {
	if err := os.MkdirAll(at, 0o700); err != nil {
		return nil, err
	}
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	loop, err := attach(backing)
	if err != nil {
		return nil, fmt.Errorf("a loop device for %s: %w", file, err)
	}
	defer loop.Close() // the mount keeps it; without one it is detached
	if err := unix.Mount(loop.Name(), at, "ext4", 0, options); err != nil {
		return nil, fmt.Errorf("mounting %s: %w", file, err)
	}
	return func() error { return patiently(func() error { return unix.Unmount(at, 0) }) }, nil
}

// attach makes a loop device of a file. It detaches itself when nobody has it open or mounted any more.
func attach(backing *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) { // no udev here
			_ = unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n))))
		}
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if err != unix.EBUSY { // somebody else was faster
			return nil, err
		}
	}
}

const diskName = "disk.img"

// root is the FUSE file system: one file.
type root struct {
	fs.Inode
	disk *Disk
}

// OnAdd makes the file.
func (r *root) OnAdd(ctx context.Context) {
	file := r.NewPersistentInode(ctx, &file{disk: r.disk}, fs.StableAttr{Mode: fuse.S_IFREG})
	r.AddChild(diskName, file, true)
}

// file is the disk as a file.
type file struct {
	fs.Inode
	disk *Disk
}

var _ = (interface {
	fs.NodeGetattrer
	fs.NodeSetattrer
	fs.NodeOpener
	fs.NodeReader
	fs.NodeWriter
	fs.NodeFsyncer
})((*file)(nil))

// Getattr tells the size.
func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o600, uint64(f.disk.Size())
	return 0
}

// Setattr takes new times and changes nothing.
func (f *file) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return f.Getattr(ctx, h, out)
}

// Open opens the file.
func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// Read reads from the disk.
func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n, _ := f.disk.ReadAt(dest, at)
	return fuse.ReadResultData(dest[:n]), 0
}

// Write writes to the disk.
func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	n, err := f.disk.WriteAt(data, at)
	if err != nil {
		return 0, syscall.ENOSPC
	}
	return uint32(n), 0
}

// Fsync notes a sync.
func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.disk.Sync()
	return 0
}
