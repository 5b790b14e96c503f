// Package queue keeps messages and their states on stable storage, in Badger behind a journal.
//
// One goroutine commits: all that waits goes into one write and one sync of the journal (group commit), so that a busy
// server pays for one sync what an idle one pays for one message. What is still in the queue when a file of the journal is
// full is put into Badger then. A message exists when its record is committed, and what Add
// returned survives a kill and a power cut. The queue refuses a message with ErrFull while the disk has less than
// Options.MinFree, and everything with ErrStopped after the first storage error: it does not go on with a store that may
// lie. It leaves behind, when it is killed, a store that Open repairs by itself, and at most some chunks of a large
// message that was never accepted, which Recover deletes.
//
// The queue schedules nothing, scans only for Recover and List, and keeps nothing of a message in memory.
package queue
