package config_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/plugins/bounces"
	"github.com/pabal-mta/mta/plugins/maildir"
	"github.com/pabal-mta/mta/plugins/mime"
	"github.com/pabal-mta/mta/plugins/users"
	"github.com/pabal-mta/mta/sdk/schema"
)

// describeBuiltin stands for the processes of the built-in plugins: their own structs are read in this one.
func describeBuiltin(_ context.Context, p *config.Plugin) (*config.Description, error) {
	builtin := map[string]struct {
		kinds  []string
		config any
	}{
		"users":   {[]string{"authenticator"}, users.Config{}},
		"maildir": {[]string{"store", "directory"}, maildir.Config{}},
		"mime":    {[]string{"converter"}, mime.Config{}},
		"bounces": {[]string{"bounce"}, bounces.Config{}},
	}[p.Builtin()]
	s, err := schema.Of(builtin.config)
	return &config.Description{Kinds: builtin.kinds, Schema: s}, err
}

// TestShipped loads the file at the top of the repository, which works from a clone and is laid out as mta fmt does.
func TestShipped(t *testing.T) {
	const file = "../../mta.hcl"
	c, ds := config.Load(t.Context(), file, config.Options{Describe: describeBuiltin, Builtins: []string{"bounces", "maildir", "mime", "users"}})
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	if !strings.HasSuffix(c.DataDir, "/var") || len(c.Listeners) != 2 || !c.Listeners[1].InsecureAuth {
		t.Errorf("%+v", c)
	}
	var accounts struct{ File string }
	if err := json.Unmarshal(c.Plugin("users").Config, &accounts); err != nil || accounts.File != c.DataDir+"/users" {
		t.Errorf("accounts are in %q, %v", accounts.File, err)
	}
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := config.Format(src); !bytes.Equal(out, src) {
		t.Error("mta.hcl is not laid out as mta fmt does")
	}
}
