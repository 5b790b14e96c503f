package users

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// cost is how dear a hash is (RFC 9106, 3.1).
type cost struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// defaultCost is the smallest that OWASP's password storage cheat sheet recommends: 19 MiB, two passes. It takes some
// 30 ms of one processor, which a mail server that is logged into all day can pay.
var defaultCost = cost{memory: 19 * 1024, passes: 2, threads: 1}

const (
	saltLen = 16
	sumLen  = 32
)

// hash is a stored password.
type hash struct {
	text string // as it stands in the file
	cost cost
	salt []byte
	sum  []byte
}

var b64 = base64.RawStdEncoding.Strict()

// newHash hashes a password with a fresh salt.
func newHash(password string) (hash, error) {
	h := hash{cost: defaultCost, salt: make([]byte, saltLen)}
	if _, err := rand.Read(h.salt); err != nil {
		return hash{}, fmt.Errorf("making a salt: %w", err)
	}
	h.sum = h.compute(password, sumLen)
	h.text = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		h.cost.memory, h.cost.passes, h.cost.threads, b64.EncodeToString(h.salt), b64.EncodeToString(h.sum))
	return h, nil
}

func (h hash) compute(password string, n int) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.cost.passes, h.cost.memory, h.cost.threads, uint32(n))
}

// matches takes the same time whatever the answer. A hash without a sum fits no password.
func (h hash) matches(password string) bool {
	n := len(h.sum)
	if n == 0 {
		n = sumLen
	}
	return subtle.ConstantTimeCompare(h.compute(password, n), h.sum) == 1
}

var errHash = errors.New("the second field is not a password hash such as $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH (mta user password writes one)")

// parseHash reads the PHC string form. Costs that a server could choke on are refused.
func parseHash(s string) (hash, error) {
	p := strings.Split(s, "$")
	if len(p) != 6 || p[0] != "" || p[1] != "argon2id" || p[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return hash{}, errHash
	}
	h := hash{text: s}
	if _, err := fmt.Sscanf(p[3], "m=%d,t=%d,p=%d", &h.cost.memory, &h.cost.passes, &h.cost.threads); err != nil {
		return hash{}, errHash
	}
	if p[3] != fmt.Sprintf("m=%d,t=%d,p=%d", h.cost.memory, h.cost.passes, h.cost.threads) {
		return hash{}, errHash
	}
	var err error
	if h.salt, err = b64.DecodeString(p[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return hash{}, errHash
	}
	if h.sum, err = b64.DecodeString(p[5]); err != nil || len(h.sum) < 16 || len(h.sum) > 64 {
		return hash{}, errHash
	}
	return h, h.cost.check()
}

func (c cost) check() error {
	if c.memory < 8*uint32(c.threads) || c.memory > 256*1024 || c.passes < 1 || c.passes > 20 || c.threads < 1 || c.threads > 16 {
		return fmt.Errorf("the password hash costs m=%d,t=%d,p=%d; taken are m up to 262144 (256 MiB), t up to 20, p up to 16",
			c.memory, c.passes, c.threads)
	}
	return nil
}
