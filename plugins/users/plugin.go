package users

import (
	"context"
	"fmt"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Plugin is the builtin "users".
func Plugin() sdk.Served {
	return sdk.Of(sdk.Plugin[Config]{
		Name: "users", Version: "0.1.0", Doc: "who may log in: accounts in one text file, passwords as argon2id",
		Kinds: (*Users)(nil),
		New: func(_ context.Context, cfg Config, host sdk.Host) (any, error) {
			return New(cfg, host.Logger())
		},
	})
}

// Check finds what is wrong with the numbers.
func (c Config) Check() (problems []schema.Problem) {
	if c.Parallel < 1 || c.Parallel > maxParallel {
		problems = append(problems, schema.Problem{Path: []string{"parallel"}, Summary: fmt.Sprintf("%d is not between 1 and %d", c.Parallel, maxParallel)})
	}
	if c.Cache < 0 {
		problems = append(problems, schema.Problem{Path: []string{"cache"}, Summary: "a time to remember is not negative"})
	}
	return problems
}
