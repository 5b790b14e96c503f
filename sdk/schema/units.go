package schema

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. An operator writes "35MiB", "1GB" or a plain number.
type Size int64

// sizeUnits are tried in this order to print a Size: the largest that leaves no rest, binary ones first.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// ParseSize reads a whole number of bytes with a unit: B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of
// 1024) in any case, or none for bytes.
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := s[len(digits):]
	if unit != "" {
		digits = strings.TrimSuffix(digits, " ")
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is too large for a size", quoteShort(s))
	}
	if err == nil && unit == "" {
		return Size(n), nil
	}
	for _, u := range sizeUnits {
		if err != nil || !strings.EqualFold(u.name, unit) {
			continue
		}
		if int64(n) > math.MaxInt64/u.bytes {
			return 0, fmt.Errorf("%s is too large for a size", quoteShort(s))
		}
		return Size(int64(n) * u.bytes), nil
	}
	return 0, fmt.Errorf("%s is not a size such as 512KiB, 35MiB or 1GB", quoteShort(s))
}

// String writes the size in the largest unit that leaves no rest.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// MarshalText writes the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(b []byte) error {
	n, err := ParseSize(string(b))
	if err == nil {
		*s = n
	}
	return err
}

// ParseDuration reads a time that is not negative: what time.ParseDuration reads, and d and w for 24 hours and 7 days, as
// in "5d" or "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a duration such as 30s, 5m, 4h or 5d", quoteShort(s))
	rest, total := s, time.Duration(0)
	for _, u := range []struct {
		unit byte
		each time.Duration
	}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}} {
		digits, after, found := strings.Cut(rest, string(u.unit))
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil {
			return 0, bad
		}
		if time.Duration(n) > (math.MaxInt64-total)/u.each {
			return 0, fmt.Errorf("%s is too long", quoteShort(s))
		}
		total += time.Duration(n) * u.each
		rest = after
	}
	if rest == "" && s != "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || strings.HasPrefix(rest, "-") {
		return 0, bad
	}
	if d > math.MaxInt64-total {
		return 0, fmt.Errorf("%s is too long", quoteShort(s))
	}
	return total + d, nil
}
