package synth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/synth"
)

// The oracle: what `cdk synth` of the pinned CLI writes, byte for byte.
func TestSynth_EqualsTheCLI(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	source := filepath.Join(w.root, worker.SourceDir)
	project, err := os.ReadFile(filepath.Join(source, "shop", "cdk.json"))
	require.NoError(t, err)
	w.put(t, "shop/cdk.json", "\uFEFF"+string(project)) // as some editors write it
	dir, log, err := w.run(t, "shop", nil)
	require.NoError(t, err, log)

	expected := filepath.Join(t.TempDir(), "cdk.out")
	cli := exec.CommandContext(t.Context(), filepath.Join(source, "node_modules", ".bin", "cdk"),
		"synth", "--quiet", "--no-notices", "--output", expected, "**")
	cli.Dir = filepath.Join(source, "shop")
	cli.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true", "CI=true", "CDK_DISABLE_CLI_TELEMETRY=true",
		"AWS_REGION=eu-west-1", "CDK_DEFAULT_ACCOUNT=111111111111",
	}
	output, err := cli.CombinedOutput()
	require.NoError(t, err, "%s", output)

	names := func(dir string) (list []string) {
		require.NoError(t, filepath.WalkDir(dir, func(file string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				list = append(list, strings.TrimPrefix(file, dir))
			}
			return err
		}))
		return list
	}
	// Files of the CLI's own bookkeeping, and of the lint that we leave out.
	ours := slices.DeleteFunc(names(expected), func(name string) bool {
		return strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "/performance-counters") || strings.HasPrefix(name, "/validation-report")
	})
	require.Contains(t, ours, "/ShopApi.template.json")
	require.Contains(t, ours, "/assembly-Prod/ProdDb194869D6.template.json")
	for _, name := range ours {
		want, err := os.ReadFile(filepath.Join(expected, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		if strings.HasSuffix(name, ".template.json") || strings.HasSuffix(name, ".assets.json") {
			require.Equal(t, string(want), string(got), name)
		}
	}
}

func TestSynth_AssemblyIsCompleteAndPrivate(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	dir, log, err := w.run(t, "shop", func(r *synth.Request) { r.Stacks = []string{"ShopData", "ShopApi"} })
	require.NoError(t, err, log)
	require.True(t, strings.HasPrefix(dir, w.private+string(filepath.Separator)))
	require.Contains(t, log, "synthesize shop for environment dev (account 111111111111, region eu-west-1)")
	loaded, err := assembly.Load(dir)
	require.NoError(t, err)
	stack, ok := loaded.Stack("ShopApi")
	require.True(t, ok)
	require.Equal(t, "111111111111", stack.Account)
	require.Equal(t, "eu-west-1", stack.Region)
	for _, file := range stack.Files() {
		_, err := os.Stat(filepath.Join(dir, file.Path))
		require.NoError(t, err)
	}
	left, err := os.ReadDir(filepath.Join(w.root, worker.OutDir))
	require.NoError(t, err)
	require.Empty(t, left, "nothing stays in the worker")

	// The same request again replaces the assembly.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "stale"), nil, 0o600))
	again, _, err := w.run(t, "shop", nil)
	require.NoError(t, err)
	require.Equal(t, dir, again)
	require.NoFileExists(t, filepath.Join(dir, "stale"))
}

func TestSynth_OutputOfTheAppIsOnlyLogged(t *testing.T) {
	t.Parallel()
	dir, log, err := newWorkspace(t).run(t, "chatty", nil)
	require.NoError(t, err, log)
	require.FileExists(t, filepath.Join(dir, "Chatty.template.json"))
	require.Contains(t, log, "built\n{\"Resources\": \"not a template\"} --loud\n")
	require.Contains(t, log, "on standard error\n")
}

// values returns what the app named environment saw.
func values(t *testing.T, dir string) (context map[string]any, env map[string]string) {
	t.Helper()
	var template struct {
		Outputs map[string]struct {
			Value string `json:"Value"`
		} `json:"Outputs"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "Environment.template.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &template))
	require.NoError(t, json.Unmarshal([]byte(template.Outputs["Context"].Value), &context))
	require.NoError(t, json.Unmarshal([]byte(template.Outputs["Env"].Value), &env))
	return context, env
}

func TestSynth_Environment(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	require.NoError(t, os.MkdirAll(filepath.Join(w.root, worker.HomeDir), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(w.root, worker.HomeDir, ".cdk.json"), []byte(`{"pathMetadata": false, "versionReporting": true, "context": {"order": "user", "number": 7}}`), 0o600))
	dir, log, err := w.run(t, "environment", func(r *synth.Request) {
		r.Environment.Context = map[string]any{"both": map[string]any{"d": "environment"}, "order": "environment", "flag": true}
		r.Environment.RequiredContext = []string{"order", "only-saved"}
		r.Artifacts, r.Outputs = "artifacts/", worker.OutDir+"/deploy-dev"
	})
	require.NoError(t, err, log)
	require.Contains(t, log, "warning: staging: false in cdk.json is ignored")
	context, env := values(t, dir)
	require.Equal(t, map[string]any{
		"only-saved": 12345678901234567890.0, "order": "environment", "number": 7.0, "flag": true, "big0": nil, "big149": nil,
		"both":                                      map[string]any{"a": "project", "b": "project", "c": "saved", "d": "environment"},
		"aws:cdk:enable-path-metadata":              nil,
		"aws:cdk:enable-asset-metadata":             nil,
		"aws:cdk:version-reporting":                 nil,
		"aws:cdk:disable-version-reporting":         true,
		"aws:cdk:bundling-stacks":                   []any{"**"},
		"aws:cdk:disable-asset-staging":             nil,
		"@aws-cdk/core:failSynthOnValidationErrors": false,
	}, context)
	for name, value := range map[string]string{
		"AWS_REGION": "eu-west-1", "AWS_ACCOUNT": "111111111111", "APHEX_ENVIRONMENT": "dev", "APHEX_ARTIFACTS": filepath.Join(w.root, worker.SourceDir, "artifacts"),
		"APHEX_OUTPUTS_DIR":   filepath.Join(w.root, worker.OutDir, "deploy-dev"),
		"CDK_DEFAULT_ACCOUNT": "111111111111", "CDK_DEFAULT_REGION": "eu-west-1", "CDK_CLI_ASM_VERSION": "55.0.0", "CDK_CLI_VERSION": "2.1148.1",
		"CDK_VALIDATION": "false", "PYTHONIOENCODING": "utf-8", "CDK_ERROR_FILE": env["CDK_OUTDIR"] + "/error.txt",
		"CDK_PERF_COUNTERS_FILE": env["CDK_OUTDIR"] + "/performance-counters.json",
	} {
		require.Equal(t, value, env[name], name)
	}
	require.True(t, strings.HasPrefix(env["CDK_OUTDIR"], filepath.Join(w.root, worker.OutDir)+"/"))
	for name := range env {
		require.NotContains(t, []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}, name)
	}
}

// More context than a variable can hold reaches the app through a file.
func TestSynth_ContextOverflow(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	dir, log, err := w.run(t, "environment", func(r *synth.Request) {
		r.Environment.Context = map[string]any{}
		for i := range 150 {
			r.Environment.Context[fmt.Sprintf("big%d", i)] = strings.Repeat("x", 1000) + strconv.Itoa(i)
		}
	})
	require.NoError(t, err, log)
	context, env := values(t, dir)
	require.Equal(t, strings.Repeat("x", 1000)+"0", context["big0"])
	require.Equal(t, strings.Repeat("x", 1000)+"149", context["big149"])
	require.Less(t, len(env["CDK_CONTEXT_JSON"]), 100_000)
	require.NotEmpty(t, env["CONTEXT_OVERFLOW_LOCATION_ENV"])
	require.NotContains(t, env, "APHEX_OUTPUTS_DIR", "nothing came before")
}

func TestSynth_Refuses(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.put(t, "broken/cdk.json", "{\"app\": \n")
	w.put(t, "silent/cdk.json", `{"app": "exit 3"}`)
	w.put(t, "empty/cdk.json", `{}`)
	w.put(t, "listed/cdk.json", `{"app": ["node", 1]}`)
	w.put(t, "account/cdk.json", `{"app": "true", "context": {"default-account": "1"}}`)
	w.put(t, "build/cdk.json", `{"app": "true", "build": "echo no compiler; exit 9"}`)
	w.put(t, "killed/cdk.json", `{"app": "kill -9 $$"}`)
	tests := []struct {
		app    string
		stacks []string
		reason fault.Reason
		parts  []string
	}{
		{"throws", nil, fault.SynthFailed, []string{"synthesize throws for environment dev: the app (node app.js) ended with exit code 1", "the bucket name is taken: shop-assets"}},
		{"silent", nil, fault.SynthFailed, []string{"the app (exit 3) ended with exit code 3; it printed nothing"}},
		{"killed", nil, fault.SynthFailed, []string{"ended with signal SIGKILL"}},
		{"build", nil, fault.SynthFailed, []string{"the build command of cdk.json (echo no compiler; exit 9) ended with exit code 9", "no compiler"}},
		{"nowhere", nil, fault.AssemblyInvalid, []string{"the app ended well, but it wrote no manifest.json"}},
		{"annotated", nil, fault.SynthAnnotation, []string{"the app reports 1 error: Bad/P: never do this"}},
		{"annotated", []string{"Bad"}, fault.SynthAnnotation, []string{"Bad/P: never do this"}},
		{"annotated", []string{"Good", "Ugly"}, fault.StackUnknown, []string{"Ugly"}},
		{"policy", []string{"Bad"}, fault.SynthAnnotation, []string{"Bad/P/Resource: parameters are not allowed (shop-rules, no-parameters)"}},
		{"policy", []string{"Prod/Db"}, fault.SynthAnnotation, []string{"Prod/Db/P/Resource: parameters are not allowed (shop-rules, no-parameters)"}},
		{"lookup", nil, fault.ContextMissing, []string{
			"the app needs 2 context values", `"availability-zones:account=111111111111:region=eu-west-1" (availability-zones, account 111111111111, region eu-west-1)`,
			`(ssm, account 111111111111, region eu-west-1)`,
		}},
		{"broken", nil, fault.ConfigInvalid, []string{"broken/cdk.json: unexpected EOF"}},
		{"empty", nil, fault.ConfigInvalid, []string{"cdk.json has no app"}},
		{"listed", nil, fault.ConfigInvalid, []string{"an entry that is not text"}},
		{"account", nil, fault.ConfigInvalid, []string{`the context key "default-account" in cdk.json is not allowed`}},
		{"none", nil, fault.AppMissing, []string{`there is no cdk.json in "none"`}},
	}
	for _, tt := range tests {
		t.Run(tt.app+strings.Join(tt.stacks, ","), func(t *testing.T) {
			t.Parallel()
			dir, log, err := w.run(t, tt.app, func(r *synth.Request) { r.Stacks = tt.stacks })
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason}, log)
			require.Empty(t, dir)
			for _, part := range tt.parts {
				require.ErrorContains(t, err, part)
			}
			require.NotEmpty(t, fault.From(err).Remedy)
			require.Equal(t, fault.User, fault.From(err).Class)
		})
	}
}

func TestSynth_ProblemsOfOtherStacksDoNotMatter(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	_, log, err := w.run(t, "annotated", func(r *synth.Request) { r.Stacks = []string{"Good"} })
	require.NoError(t, err)
	require.Contains(t, log, "warning: Good/P: think again")
	_, _, err = w.run(t, "policy", func(r *synth.Request) { r.Stacks = []string{"Good"}; r.ID += "policy" })
	require.NoError(t, err)
}

// Feature: aphex-pipeline, Property 21: CDK context validation
func TestSynth_RequiredContext(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.put(t, "shop/bin/app.js", "process.exit(1)")
	_, _, err := w.run(t, "shop", func(r *synth.Request) { r.Environment.RequiredContext = []string{"shop:size", "zone", "cidr"} })
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ContextMissing})
	require.ErrorContains(t, err, "required context has no value: cidr, zone")
}

func TestSynth_ReservedContext(t *testing.T) {
	t.Parallel()
	_, _, err := newWorkspace(t).run(t, "shop", func(r *synth.Request) { r.Environment.Context = map[string]any{"aws:x": 1} })
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ConfigInvalid})
	require.ErrorContains(t, err, `context keys that begin with "aws:" are reserved: "aws:x"`)
}

// A folder as app is the assembly itself; nothing is run.
func TestSynth_FolderAsApp(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	dir, _, err := w.run(t, "chatty", nil)
	require.NoError(t, err)
	require.NoError(t, os.CopyFS(filepath.Join(w.root, worker.SourceDir, "made", "cdk.out"), os.DirFS(dir)))
	w.put(t, "made/cdk.json", `{"app": "cdk.out"}`)
	made, log, err := w.run(t, "made", func(r *synth.Request) { r.ID = "made" })
	require.NoError(t, err, log)
	require.NotEqual(t, dir, made)
	require.FileExists(t, filepath.Join(made, "Chatty.template.json"))
	require.DirExists(t, filepath.Join(w.root, worker.SourceDir, "made", "cdk.out"))
}

// A virtual environment's python is a link to the system's.
func TestSynth_ProgramBehindALinkOutOfTheWorkspace(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	node, err := exec.LookPath("node")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(node, filepath.Join(w.root, worker.SourceDir, "chatty", "runtime")))
	w.put(t, "chatty/cdk.json", `{"app": "./runtime app.js"}`)
	dir, log, err := w.run(t, "chatty", nil)
	require.NoError(t, err, log)
	require.FileExists(t, filepath.Join(dir, "Chatty.template.json"))
}

// A link in the assembly must not lead the sidecar to files of its own.
func TestSynth_LinksInTheAssemblyAreNotFollowed(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	secret := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(secret, []byte("s3cr3t-token"), 0o600))
	for _, name := range []string{"validation-report.json", "manifest.json"} {
		w.put(t, "links/cdk.json", `{"app": "mkdir -p $CDK_OUTDIR && echo '{\"version\": \"55.0.0\"}' > $CDK_OUTDIR/manifest.json && ln -sf `+secret+` $CDK_OUTDIR/`+name+`"}`)
		_, log, err := w.run(t, "links", func(r *synth.Request) { r.ID = name })
		require.Error(t, err, name)
		require.NotContains(t, err.Error()+log, "s3cr3t")
	}
}

func TestSynth_HangingAppIsStopped(t *testing.T) {
	t.Parallel()
	for name, cancel := range map[string]bool{"time limit": false, "cancelled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t)
			ctx, stop := context.WithCancelCause(t.Context())
			defer stop(nil)
			config := synth.Config{Worker: w.client, Private: w.private, Timeout: 10 * time.Second, Grace: 200 * time.Millisecond}
			var out bytes.Buffer
			if cancel {
				config.Timeout = time.Minute
				go func() {
					for ctx.Err() == nil {
						if found, _ := filepath.Glob(filepath.Join(w.root, worker.OutDir, "*", "*.pids")); len(found) > 0 {
							stop(errors.New("the run was stopped"))
						}
						time.Sleep(10 * time.Millisecond)
					}
				}()
			}
			_, err := synth.New(config).Synth(ctx, synth.Request{Environment: environment(), App: "hangs", ID: name}, &out)
			if cancel {
				require.ErrorIs(t, err, &fault.Fault{Reason: fault.Cancellation})
				require.ErrorContains(t, err, "the run was stopped")
			} else {
				require.ErrorIs(t, err, &fault.Fault{Reason: fault.SynthTimeout})
				require.ErrorContains(t, err, "did not end within 10s and was stopped")
				require.ErrorContains(t, err, "waiting for the moon")
			}
			found, err := filepath.Glob(filepath.Join(w.root, worker.OutDir, "*", "*.pids"))
			require.NoError(t, err)
			require.Len(t, found, 1)
			data, err := os.ReadFile(found[0])
			require.NoError(t, err)
			for pid := range strings.FieldsSeq(string(data)) {
				number, err := strconv.Atoi(pid)
				require.NoError(t, err)
				require.False(t, alive(number), "process %d lives", number)
			}
		})
	}
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

func TestFindApp(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.put(t, "shop/lib/deep/stack.js", "")
	tests := []struct{ path, app, message string }{
		{"shop", "shop", ""},
		{"./shop/", "shop", ""},
		{"shop/bin/app.js", "shop", ""},
		{"shop/lib/deep", "shop", ""},
		{"shop/lib/none.js", "", `"shop/lib/none.js" does not exist`},
		{"loose/app.js", "", `no folder at or above "loose/app.js" holds a cdk.json`},
		{"../x", "", "leads out of the repository"},
		{"/etc", "", "leads out of the repository"},
	}
	w.put(t, "loose/app.js", "")
	for _, tt := range tests {
		app, err := w.synthesizer().FindApp(t.Context(), tt.path)
		if tt.message == "" {
			require.NoError(t, err, tt.path)
			require.Equal(t, tt.app, app)
			continue
		}
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.AppMissing})
		require.ErrorContains(t, err, tt.message)
	}
	w.put(t, "cdk.json", "{}")
	app, err := w.synthesizer().FindApp(t.Context(), "loose/app.js")
	require.NoError(t, err)
	require.Equal(t, ".", app)
	app, err = w.synthesizer().FindApp(t.Context(), ".")
	require.NoError(t, err)
	require.Equal(t, ".", app)
}
