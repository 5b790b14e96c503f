package schema

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// scalar is how one value is read: what it is called, how it stands in JSON, and how its text becomes a Go value.
type scalar struct {
	word  string
	json  jsonForm
	parse func(v reflect.Value, text string) error
}

// jsonForm is the JSON values that a scalar takes.
type jsonForm uint8

const (
	jsonString jsonForm = 1 << iota
	jsonNumber
	jsonBool
)

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

	// known is the types that say by themselves what they mean.
	known = map[reflect.Type]scalar{
		reflect.TypeFor[time.Duration]():  {"duration", jsonString, setter(ParseDuration)},
		reflect.TypeFor[Size]():           {"size", jsonString | jsonNumber, setter(ParseSize)},
		reflect.TypeFor[netip.Prefix]():   {"cidr", jsonString, setter(parsePrefix)},
		reflect.TypeFor[netip.Addr]():     {"ip", jsonString, setter(parseIP)},
		reflect.TypeFor[*regexp.Regexp](): {"regex", jsonString, setter(parseRegexp)},
		reflect.TypeFor[Secret]():         {"secret", jsonString, setString},
	}
)

func setter[T any](parse func(string) (T, error)) func(reflect.Value, string) error {
	return func(v reflect.Value, text string) error {
		x, err := parse(text)
		if err == nil {
			v.Set(reflect.ValueOf(x))
		}
		return err
	}
}

// scalarOf finds how values of type t are read. Meaning is the type tag, "" for none.
func scalarOf(t reflect.Type, meaning string) (scalar, error) {
	if s, ok := known[t]; ok {
		if meaning != "" && meaning != s.word {
			return scalar{}, fmt.Errorf("a %s is a %s, not a %q", t, s.word, meaning)
		}
		return s, nil
	}
	s, ok := kindOf(t)
	if !ok {
		return scalar{}, fmt.Errorf("a %s can't be configured", t)
	}
	switch {
	case meaning == "" || meaning == s.word:
	case meaning == "path" && t.Kind() == reflect.String && s.word == "string":
		s.word, s.parse = "path", setPath
	case meaning == "address" && s.word == "string":
		s.word = "address"
	default:
		return scalar{}, fmt.Errorf("a type tag is path or address, not %q for a %s", meaning, t)
	}
	return s, nil
}

func kindOf(t reflect.Type) (scalar, bool) {
	switch {
	case t.Kind() == reflect.Pointer && t.Implements(textUnmarshaler):
		return scalar{"string", jsonString, setNewText}, true
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		return scalar{"string", jsonString, setText}, true
	}
	switch t.Kind() {
	case reflect.String:
		return scalar{"string", jsonString, setString}, true
	case reflect.Bool:
		return scalar{"bool", jsonBool, setBool}, true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return scalar{"int", jsonNumber, setInt}, true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return scalar{"int", jsonNumber, setUint}, true
	case reflect.Float32, reflect.Float64:
		return scalar{"float", jsonNumber, setFloat}, true
	default:
		return scalar{}, false
	}
}

func setString(v reflect.Value, text string) error {
	v.SetString(text)
	return nil
}

func setPath(v reflect.Value, text string) error {
	if text == "" || strings.ContainsRune(text, 0) {
		return fmt.Errorf("%s is not a path", quoteShort(text))
	}
	v.SetString(text)
	return nil
}

func setText(v reflect.Value, text string) error {
	return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
}

func setNewText(v reflect.Value, text string) error {
	p := reflect.New(v.Type().Elem())
	if err := p.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		return err
	}
	v.Set(p)
	return nil
}

func setBool(v reflect.Value, text string) error {
	if text != "true" && text != "false" {
		return fmt.Errorf("%s is not true or false", quoteShort(text))
	}
	v.SetBool(text == "true")
	return nil
}

func setInt(v reflect.Value, text string) error {
	n, err := strconv.ParseInt(text, 10, v.Type().Bits())
	if err != nil {
		return numberError(err, text)
	}
	v.SetInt(n)
	return nil
}

func setUint(v reflect.Value, text string) error {
	n, err := strconv.ParseUint(text, 10, v.Type().Bits())
	if err != nil {
		return numberError(err, text)
	}
	v.SetUint(n)
	return nil
}

func numberError(err error, text string) error {
	if errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%s is too large", quoteShort(text))
	}
	return fmt.Errorf("%s is not a whole number that may stand here", quoteShort(text))
}

func setFloat(v reflect.Value, text string) error {
	f, err := strconv.ParseFloat(text, v.Type().Bits())
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%s is not a number", quoteShort(text))
	}
	v.SetFloat(f)
	return nil
}

// parsePrefix takes a network, or one address as the network of only itself. Bits behind the prefix are more often a
// mistake than a wish, so they are refused.
func parsePrefix(s string) (netip.Prefix, error) {
	if ip, err := parseIP(s); err == nil {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is not a network such as 192.0.2.0/24 or 2001:db8::/32", quoteShort(s))
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits set behind its prefix; the network is %s", quoteShort(s), p.Masked())
	}
	return p, nil
}

func parseIP(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" || ip.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s is not an IP address such as 192.0.2.1 or 2001:db8::1", quoteShort(s))
	}
	return ip, nil
}

func parseRegexp(s string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("%s is not a regular expression: %w", quoteShort(s), err)
	}
	return re, nil
}

// quoteShort quotes what an operator wrote, cut so that a message stays a line.
func quoteShort(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
