package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// errNoFile says that something else stands where a file of ours is wanted.
var errNoFile = errors.New("no regular file")

// errTwice says that two files have the unique name of one message.
var errTwice = errors.New("there is another file of that name")

// Trouble logs what keeps an account from being used, and what to do about it.
func (a *Account) Trouble(doing string, err error) {
	a.store.log.Warn("a mailbox can't be used", "doing", doing, "account", a.key, "path", a.root.Name(), "error", err, "hint", Hint(err))
}

// Hint says what to do about a trouble with files; it is empty where the error says it all.
func Hint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("the mailbox and all in it must belong to the user that the server runs as (uid %d): see chown -R and chmod -R u+rwX",
			os.Geteuid())
	case errors.Is(err, syscall.EROFS):
		return "the file system is mounted for reading only: mount it for writing"
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, errNoFile):
		return "something else stands where a file or folder of the mailbox is wanted: move it away"
	case errors.Is(err, errTwice):
		return "what stands before the colon names one message: give one of the files another name"
	}
	return ""
}
