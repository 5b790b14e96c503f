//go:build !linux

package failing

// Calls are the calls that can fail: none.
func Calls() []string { return nil }

// Arm is of Linux alone.
func Arm(string) error { return ErrNotHere }

// Serve is of Linux alone.
func Serve(int, Failure) (int, error) { return 0, ErrNotHere }
