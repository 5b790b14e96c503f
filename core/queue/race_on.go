//go:build race

package queue

// raceDetector turns the clean-up of the value log off in builds with the race detector: Badger 4.9.6 reads the version of
// its memory table there (DB.MaxVersion) while a commit writes it. An older version than the true one only protects more
// deletes, so the race harms nothing, but the detector would end the process.
const raceDetector = true
