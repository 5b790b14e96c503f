package engine

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Loader reads a configuration the way that the server does: the plugins are asked what may stand in their blocks.
type Loader struct {
	Path     string
	Command  []string // the command that runs a built-in plugin, without the plugin's name
	Builtins []string // their names
	Dev      Dev      // plugins that are started by hand
}

// Dev is where plugins are waited for that their authors start by hand, by their labels.
type Dev map[string]*plugin.Dev

// LoadWords reads the words of a configuration, for who only has to find the server. It can't be run.
func (l Loader) LoadWords(ctx context.Context) (*config.Config, config.Diagnostics) {
	return config.Load(ctx, l.Path, config.Options{Offline: true, Unpinned: true, Builtins: l.Builtins})
}

// Load reads the configuration. With offline only its words are proved, and it can't be run.
func (l Loader) Load(ctx context.Context, offline bool) (*config.Config, config.Diagnostics) {
	o := config.Options{Offline: offline, Builtins: l.Builtins, ByHand: slices.Collect(maps.Keys(l.Dev))}
	if offline {
		return config.Load(ctx, l.Path, o)
	}
	o.Describe = l.describe
	o.Validate = func(ctx context.Context, p *config.Plugin) ([]schema.Problem, error) {
		return plugin.Validate(ctx, l.spec(p))
	}
	return config.Load(ctx, l.Path, o)
}

// Describe asks one plugin of a configuration what it is.
func (l Loader) Describe(ctx context.Context, p *config.Plugin) (*plugin.Description, error) {
	return plugin.Describe(ctx, l.spec(p))
}

// LoadUnpinned reads a configuration whose plugins need not be pinned yet, for who tries or pins one. It can't be run.
func (l Loader) LoadUnpinned(ctx context.Context) (*config.Config, config.Diagnostics) {
	return config.Load(ctx, l.Path, config.Options{Unpinned: true, Builtins: l.Builtins, Describe: l.describe})
}

// Conform proves that a plugin keeps the contract; see plugin.Conform.
func (l Loader) Conform(ctx context.Context, p *config.Plugin, o plugin.Options, seen func(plugin.Finding)) (*plugin.Conformance, error) {
	return plugin.Conform(ctx, l.spec(p), o, seen)
}

func (l Loader) describe(ctx context.Context, p *config.Plugin) (*config.Description, error) {
	d, err := plugin.Describe(ctx, l.spec(p))
	if err != nil {
		return nil, err
	}
	return &config.Description{Version: d.Version, Kinds: d.Kinds, Schema: d.Schema}, nil
}

func (l Loader) spec(p *config.Plugin) plugin.Spec { return spec(p, l.Command, l.Dev) }

// spec says how the plugin of a block is started.
func spec(p *config.Plugin, command []string, dev Dev) plugin.Spec {
	s := plugin.Spec{
		Name: p.Name, SHA256: p.SHA256, Args: p.Args, Env: environment(p.Env), Auth: p.Auth, Config: p.Config, Timeout: p.Timeout,
		Processes: p.Processes, MaxConcurrent: p.MaxConcurrent, RestartMin: p.Restart.Min, RestartMax: p.Restart.Max,
		BreakerFailures: p.Breaker.Failures, BreakerCooldown: p.Breaker.Cooldown, User: p.User,
		Limits: plugin.Limits{Memory: int64(p.Limits.Memory), PIDs: p.Limits.PIDs, NoFile: p.Limits.NoFile},
		Shim:   shim(command),
	}
	if box := p.Sandbox; box.Confined {
		s.Sandbox = &plugin.Sandbox{Read: box.Read, Write: box.Write, ConnectTCP: box.ConnectTCP}
	}
	if name := p.Builtin(); name != "" {
		s.Builtin, s.Self, s.BuiltinArgs = name, command[0], append(command[1:len(command):len(command)], name)
	} else {
		s.Path = p.Source
	}
	if d := dev[p.Name]; d != nil {
		return d.Spec(s)
	}
	return s
}

// shim is our own program, made to keep itself to what a plugin is allowed before it becomes that plugin: the command
// beside the one that serves a built-in.
func shim(serve []string) []string {
	return append(serve[:len(serve)-1:len(serve)-1], "exec")
}

// environment resolves the names that a plugin's env passes on.
func environment(list []string) []string {
	var out []string
	for _, entry := range list {
		name, _, set := strings.Cut(entry, "=")
		if set {
			out = append(out, entry)
		} else if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}

// specs are the plugins of a configuration, ready to be started.
func (e *Engine) specs(cfg *config.Config) []plugin.Spec {
	list := make([]plugin.Spec, len(cfg.Plugins))
	for i, p := range cfg.Plugins {
		list[i] = spec(p, e.options.Builtin, e.options.Dev)
		list[i].Where = cfg.Origin(p, "source").String()
		list[i].RunDir = filepath.Join(cfg.DataDir, "run")
		list[i].StateDir = filepath.Join(cfg.DataDir, "plugins", p.Name)
	}
	return list
}
