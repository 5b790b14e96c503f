//go:build !linux || !(amd64 || arm64)

package failing

// Calls are the calls that can fail: none.
func Calls() []string { return nil }

// Arm is of Linux alone, on amd64 and arm64.
func Arm(string) error { return ErrNotHere }

// Serve is of Linux alone, on amd64 and arm64.
func Serve(int, Failure) (int, error) { return 0, ErrNotHere }
