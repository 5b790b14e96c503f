package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
	"github.com/pabal-mta/mta/sdk/pluginv1/conform"
	"github.com/pabal-mta/mta/sdk/schema"
)

func (e *examinee) lifeChecks() []conform.Check {
	return []conform.Check{
		e.check("handshake", "It starts, its first line of output is the handshake, and it serves gRPC on a unix socket.",
			"print nothing before the line \"1|1|unix|PATH|grpc|\", and serve before you print it", checkHandshake),
		e.check("health", "grpc.health.v1.Health says SERVING for the service \"plugin\".",
			"serve the standard health service on the same socket; without it the server takes the plugin for hung", checkHealth),
		e.check("describe", "Describe needs no configuration, always answers the same, and does so within 2 s.",
			"do no I/O in Describe: who the plugin is does not change", checkDescribe),
		e.check("schema", "The schema of the configuration is legal, so that mta check can prove a config block.",
			"the form is that of package sdk/schema: attributes with name and type, and blocks", checkSchema),
		e.check("bad-config", "A configuration that is wrong is answered with diagnostics that point into it; nothing crashes.",
			"check config_json against your own schema and answer with Diagnostics: an unknown name is an error, too", checkBadConfig),
		e.check("configure", "The given configuration is taken, and what the plugin can do after it holds what it promised before.",
			"give a configuration that it takes: mta plugin check FILE -config mta.hcl", checkConfigure),
	}
}

func (e *examinee) endChecks() []conform.Check {
	return []conform.Check{
		e.check("future-config", "Fields of Configure that a later server may send are ignored.",
			"do not refuse unknown fields: that is how v1 plugins run on every later server", checkFutureConfig),
		e.check("memory", "How its memory grows over 1,000 calls.", "", noteMemory),
		e.check("sigterm", "SIGTERM does not end it before Drain: a service manager sends it to the whole group, and the server still needs its plugins.",
			"ignore SIGTERM and SIGINT until Drain has been called", checkSIGTERM),
		e.check("drain", "Drain ends within its time, and the plugin exits when it is asked to.",
			"answer Drain when no call is running or timeout_ms is over, and exit on plugin.GRPCController.Shutdown", checkDrain),
		e.check("lifeline", "When the server dies the plugin exits within 2 s.",
			"read the descriptor that MTA_LIFELINE names, in a thread of its own, and exit when reading ends", checkLifeline),
		e.check("stdout", "It prints nothing to its standard output after the handshake.",
			"move standard output to standard error before the first line of your own code runs", checkStdout),
	}
}

// check makes a check of a question that is about processes.
func (e *examinee) check(name, proves, hint string, ask func(context.Context, *examinee) (string, error)) conform.Check {
	return conform.Check{Name: name, Proves: proves, Hint: hint, Ask: func(ctx context.Context, _ conform.Examinee) (string, error) { return ask(ctx, e) }}
}

func checkHandshake(ctx context.Context, e *examinee) (string, error) {
	p, err := e.fresh(ctx)
	if err != nil {
		e.broken = true
		return "", err
	}
	defer p.end()
	a := p.about
	e.report.Name, e.report.Version, e.report.SDK = calls.Printable(a.GetName()), calls.Printable(a.GetVersion()), calls.Printable(a.GetSdk())
	return fmt.Sprintf("ready after %d ms", time.Since(p.born).Milliseconds()), nil
}

func checkHealth(ctx context.Context, e *examinee) (string, error) {
	p, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	defer p.end()
	return "", p.alive(ctx, conform.Promptly)
}

func checkDescribe(ctx context.Context, e *examinee) (string, error) {
	first, err := e.describeTwice(ctx)
	if err != nil {
		return "", err
	}
	again, err := e.describeTwice(ctx)
	if err != nil {
		return "", err
	}
	if !proto.Equal(first, again) {
		return "", errors.New("two processes describe themselves differently")
	}
	switch {
	case !isWord(first.GetName()):
		return "", fmt.Errorf("its name is %q; one word of letters, digits, - and _ is wanted", first.GetName())
	case first.GetVersion() == "":
		return "", errors.New("it has no version")
	}
	var kinds []string
	for _, k := range first.GetKinds() {
		kinds = append(kinds, k.GetName())
	}
	return strings.Join(kinds, " "), knownKinds(first.GetKinds())
}

var isWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`).MatchString

// describeTwice asks one process twice.
func (e *examinee) describeTwice(ctx context.Context) (*pluginv1.DescribeResponse, error) {
	p, err := e.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer p.end()
	ctx, cancel := context.WithTimeout(ctx, conform.Promptly)
	defer cancel()
	res, err := p.client.Describe(ctx, "99.9.9")
	if err != nil {
		return nil, errors.New("Describe: " + calls.Printable(status.Convert(err).Message()))
	}
	if !proto.Equal(p.about, res) {
		return nil, errors.New("one process describes itself differently the second time")
	}
	return res, nil
}

func knownKinds(list []*pluginv1.Kind) error {
	for i, k := range list {
		if !conform.IsKind(k.GetName()) {
			return fmt.Errorf("%q is no kind of plugin", calls.Printable(k.GetName()))
		}
		for _, other := range list[:i] {
			if other.GetName() == k.GetName() {
				return fmt.Errorf("it names the kind %q twice", k.GetName())
			}
		}
	}
	return nil
}

func checkSchema(ctx context.Context, e *examinee) (string, error) {
	s, err := e.schema(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d attributes, %d blocks", len(s.Attributes), len(s.Blocks)), schemaProblem("", s)
}

func (e *examinee) schema(ctx context.Context) (*schema.Schema, error) {
	p, err := e.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer p.end()
	var s schema.Schema
	if err := json.Unmarshal(p.about.GetSchemaJson(), &s); err != nil {
		return nil, fmt.Errorf("schema_json is no schema: %w", err)
	}
	return &s, nil
}

var (
	isAttribute = regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString
	attrTypes   = []string{"string", "bool", "int", "float", "duration", "size", "cidr", "ip", "regex", "address", "path", "secret"}
)

// schemaProblem returns the first thing that is wrong with a schema.
func schemaProblem(at string, s *schema.Schema) error {
	names := make(map[string]bool)
	name := func(n string) error {
		if !isAttribute(n) || names[n] {
			return fmt.Errorf("%s%q is no name, or is there twice: small letters, digits and _, a letter first", at, n)
		}
		names[n] = true
		return nil
	}
	for _, a := range s.Attributes {
		if err := name(a.Name); err != nil {
			return err
		}
		if _, elem := a.Elem(); !slices.Contains(attrTypes, elem) {
			return fmt.Errorf("%s%s has the unknown type %q; there are %s, and list(...) and map(...) of them", at, a.Name, a.Type, strings.Join(attrTypes, " "))
		}
		if a.Required && a.Default != "" {
			return fmt.Errorf("%s%s is required and has a default", at, a.Name)
		}
	}
	for i, b := range s.Blocks {
		if err := name(b.Name); err != nil {
			return err
		}
		if err := schemaProblem(at+b.Name+".", &s.Blocks[i].Schema); err != nil {
			return err
		}
	}
	return nil
}

func checkBadConfig(ctx context.Context, e *examinee) (string, error) {
	s, err := e.schema(ctx)
	if err != nil {
		return "", err
	}
	p, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	defer p.end()
	list := badConfigs(s)
	for _, c := range list {
		res, err := p.client.Configure(ctx, &pluginv1.ConfigureRequest{ConfigJson: []byte(c.json), ValidateOnly: true, Instance: "check"})
		if err != nil {
			return "", fmt.Errorf("%s: the call failed instead of giving diagnostics: %s", c.what, calls.Printable(status.Convert(err).Message()))
		}
		if err := c.judge(res.GetDiagnostics()); err != nil {
			return "", fmt.Errorf("%s (%.60q): %w", c.what, c.json, err)
		}
	}
	return fmt.Sprintf("%d of them", len(list)), p.alive(ctx, conform.Promptly)
}

// badConfig is a configuration that is wrong at an attribute, or as a whole.
type badConfig struct{ what, json, at string }

func badConfigs(s *schema.Schema) []badConfig {
	list := []badConfig{
		{"no JSON", "{", ""}, {"a list", "[]", ""}, {"a string", `"x"`, ""}, {"two objects", "{} {}", ""},
		{"an unknown name", `{"no_such_name_here": 1}`, "no_such_name_here"},
		{"deep nesting", strings.Repeat("[", 9000) + strings.Repeat("]", 9000), ""},
	}
	for _, a := range s.Attributes {
		list = append(list, badConfig{"a wrong type", fmt.Sprintf(`{%q: {"a": {"b": [1]}}}`, a.Name), a.Name})
		if a.Required {
			list = append(list, badConfig{"a missing attribute", "{}", ""})
		}
	}
	return list
}

// judge wants an error, with a path that leads to the place.
func (c badConfig) judge(list []*pluginv1.Diagnostic) error {
	var errs []*pluginv1.Diagnostic
	for _, d := range list {
		if d.GetSeverity() == pluginv1.Severity_SEVERITY_UNSPECIFIED {
			return errors.New("a diagnostic has no severity")
		}
		if d.GetSeverity() == pluginv1.Severity_SEVERITY_ERROR {
			errs = append(errs, d)
		}
	}
	if len(errs) == 0 {
		return errors.New("it was taken")
	}
	points := func(d *pluginv1.Diagnostic) bool { return len(d.GetPath()) > 0 && d.GetPath()[0] == c.at }
	if c.at != "" && !slices.ContainsFunc(errs, points) {
		return fmt.Errorf("no diagnostic has a path that begins with %q", c.at)
	}
	return nil
}

func checkConfigure(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	for _, k := range p.about.GetKinds() {
		if !slices.Contains(p.kinds, k.GetName()) {
			return "", fmt.Errorf("it promised to be a %q and is none", calls.Printable(k.GetName()))
		}
	}
	for _, k := range p.kinds {
		if conform.IsKind(k) { // a later SDK may name more than this server knows
			e.report.Kinds = append(e.report.Kinds, k)
		}
	}
	if len(e.report.Kinds) == 0 {
		return "", hinted{fmt.Errorf("it is none of the kinds that this server knows, but %s", strings.Join(p.kinds, ", ")),
			"answer Configure with at least one kind of plugin.proto"}
	}
	e.configured = true // from here on there is a kind to make calls of
	return strings.Join(p.kinds, " "), nil
}

func checkFutureConfig(ctx context.Context, e *examinee) (string, error) {
	p, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	defer p.end()
	q := &pluginv1.ConfigureRequest{ConfigJson: e.spec.config(), ValidateOnly: true, Instance: "check"}
	conform.AddUnknown(q.ProtoReflect())
	res, err := p.client.Configure(ctx, q)
	if err != nil {
		return "", errors.New("Configure: " + calls.Printable(status.Convert(err).Message()))
	}
	if problems := calls.Problems(res); len(problems) > 0 {
		return "", &ConfigError{problems}
	}
	return "", nil
}

func checkSIGTERM(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if err := syscall.Kill(int(p.child.pid.Load()), sig); err != nil {
			return "", err
		}
	}
	select {
	case <-p.child.gone:
		return "", e.died(p, 0)
	case <-time.After(300 * time.Millisecond):
	}
	return "", conform.Normal(ctx, e)
}

func checkDrain(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	defer e.end()
	began := time.Now()
	drain, cancel := context.WithTimeout(ctx, 2*conform.Promptly)
	defer cancel()
	unfinished, err := p.client.Drain(drain, conform.Promptly)
	if err != nil {
		return "", errors.New("Drain: " + calls.Printable(status.Convert(err).Message()))
	}
	if unfinished != 0 {
		return "", fmt.Errorf("it says that %d calls are running, and there is none", unfinished)
	}
	took := time.Since(began)
	p.client.Close()
	p.launch.Kill() // Shutdown, and after 2 s by force
	<-p.child.gone
	if ws, ok := p.child.state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "", fmt.Errorf("it did not exit when it was asked to, and was killed (%s)", p.child.ending())
	}
	return fmt.Sprintf("drained in %d ms, ended %d ms after that", took.Milliseconds(), (time.Since(began) - took).Milliseconds()), nil
}

func checkLifeline(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	defer e.end()
	began := time.Now()
	p.child.reap.Close()
	select {
	case <-p.child.gone:
		return fmt.Sprintf("it exited after %d ms", time.Since(began).Milliseconds()), nil
	case <-time.After(conform.Promptly):
		return "", errors.New("it still runs after 2 s")
	}
}

func checkStdout(_ context.Context, e *examinee) (string, error) {
	if lines := e.printed.all(); len(lines) > 0 {
		return "", fmt.Errorf("it printed %q", lines[0])
	}
	return "", nil
}

// many makes about n calls of all kinds, sixteen at a time, for ten seconds at most, and returns how many it made.
func (e *examinee) many(ctx context.Context, p *process, n int) int64 {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var next, made atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n && ctx.Err() == nil; i = int(next.Add(1)) {
				if conform.Plain(ctx, p.client, e.report.Kinds[i%len(e.report.Kinds)], i) == nil {
					made.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return made.Load()
}

// noteMemory reports how much memory the process has before and after many calls.
func noteMemory(ctx context.Context, e *examinee) (string, error) {
	p, err := e.process(ctx)
	if err != nil {
		return "", err
	}
	if _, err := resident(p); err != nil {
		return err.Error(), errSkip
	}
	e.many(ctx, p, 100)
	before, _ := resident(p)
	n := e.many(ctx, p, 1000)
	after, err := resident(p)
	if err != nil {
		return "", e.died(p, 0)
	}
	return fmt.Sprintf("%.1f MiB, and %.1f MiB after %d calls", before, after, n), nil
}

// resident returns how many MiB of memory a process has.
func resident(p *process) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.child.pid.Load()))
	if err != nil {
		return 0, errors.New("this system does not tell")
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			return float64(kib) / 1024, err
		}
	}
	return 0, errors.New("this system does not tell")
}
