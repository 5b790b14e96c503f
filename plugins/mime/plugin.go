package mime

import (
	"context"

	"github.com/pabal-mta/mta/sdk"
)

// Plugin is the builtin "mime".
func Plugin() sdk.Served {
	return sdk.Of(sdk.Plugin[Config]{
		Name: "mime", Version: "0.1.0", Doc: "8bit and binary to quoted-printable and base64 for hosts that need it, and back for the mailbox",
		Kinds: (*Converter)(nil),
		New: func(_ context.Context, cfg Config, _ sdk.Host) (any, error) {
			return New(cfg)
		},
	})
}
