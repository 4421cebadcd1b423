package archtest_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module   = "github.com/aphex-pipeline/aphex"
	root     = "../.."
	maxLines = 500
)

// source is one Go file of the module.
type source struct {
	path      string // slash-separated, from the root of the module
	imports   []string
	lines     int
	generated bool
}

// sources returns every Go file of the module. It reads them itself, so that
// Go's cache of test results knows what this package depends on.
func sources(t *testing.T) []source {
	t.Helper()
	tree, err := os.OpenRoot(root)
	require.NoError(t, err)
	defer func() { require.NoError(t, tree.Close()) }()
	var found []source
	require.NoError(t, fs.WalkDir(tree.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && skipped(tree, name):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := tree.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		src := source{path: name, lines: bytes.Count(text, []byte("\n")), generated: ast.IsGenerated(file)}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			src.imports = append(src.imports, imported)
		}
		found = append(found, src)
		return nil
	}))
	require.Greater(t, len(found), 100, "the files of the module are not where they are looked for")
	return found
}

// skipped says which folders hold no code of this module: hidden ones, test
// data, and modules of their own.
func skipped(tree *os.Root, dir string) bool {
	base := path.Base(dir)
	if dir == "." {
		return false
	}
	if strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules" {
		return true
	}
	_, err := tree.Stat(path.Join(dir, "go.mod"))
	return err == nil
}

// local returns a package's path within the module; ok is false for packages
// of others.
func local(imported string) (name string, ok bool) {
	return strings.CutPrefix(imported, module+"/")
}

// within says whether name is one of the folders or below one.
func within(name string, folders ...string) bool {
	for _, folder := range folders {
		if name == folder || strings.HasPrefix(name, folder+"/") {
			return true
		}
	}
	return false
}

// stage returns the folder below tasks/ that name belongs to.
func stage(name string) string {
	rest, ok := strings.CutPrefix(name, "tasks/")
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

func TestImports_KeepTheLayers(t *testing.T) {
	t.Parallel()
	rules := []struct {
		name   string
		breaks func(from source, to string) bool
	}{
		{"a folder of tasks knows tasks/task and no other", func(from source, to string) bool {
			a, b := stage(from.path), stage(to)
			return a != "" && b != "" && a != b && b != "task"
		}},
		{"internal knows neither plugin, tasks, cmd nor e2e", func(from source, to string) bool {
			return within(from.path, "internal") && within(to, "plugin", "tasks", "cmd", "e2e")
		}},
		{"plugin knows tasks/task alone of the stages", func(from source, to string) bool {
			return within(from.path, "plugin") && (within(to, "cmd", "e2e") || stage(to) != "" && stage(to) != "task")
		}},
		{"tasks knows no plugin, command or end-to-end test", func(from source, to string) bool {
			return within(from.path, "tasks") && within(to, "plugin", "cmd", "e2e")
		}},
		{"only e2e knows e2e", func(from source, to string) bool {
			return !within(from.path, "e2e") && within(to, "e2e")
		}},
	}
	files := sources(t)
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			t.Parallel()
			var offenders []string
			for _, file := range files {
				for _, imported := range file.imports {
					if to, ok := local(imported); ok && rule.breaks(file, to) {
						offenders = append(offenders, fmt.Sprintf("%s imports %s", file.path, to))
					}
				}
			}
			require.Empty(t, offenders)
		})
	}
}

// The binary is what runs beside the credentials: neither Argo's weight nor
// code for tests belongs into it.
func TestBinary_CarriesNeitherArgoNorTests(t *testing.T) {
	t.Parallel()
	sources(t) // the result depends on every file
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/aphex")
	cmd.Dir = root
	var problem bytes.Buffer
	cmd.Stderr = &problem
	text, err := cmd.Output()
	require.NoError(t, err, problem.String())
	deps := strings.Fields(string(text))
	require.Contains(t, deps, module+"/plugin/sidecar")
	unwanted := []string{
		"github.com/argoproj", "github.com/stretchr/testify", "pgregory.net/rapid", "testing",
		"k8s.io/client-go/kubernetes", // typed clients of the whole API
		module + "/internal/testkit", module + "/internal/archtest", module + "/e2e",
	}
	var offenders []string
	for _, dep := range deps {
		if within(dep, unwanted...) {
			offenders = append(offenders, dep)
		}
	}
	require.Empty(t, offenders)
}

func TestFiles_CanBeReadAtOneSitting(t *testing.T) {
	t.Parallel()
	var offenders []string
	for _, file := range sources(t) {
		if !file.generated && !strings.HasSuffix(file.path, "_test.go") && file.lines >= maxLines {
			offenders = append(offenders, fmt.Sprintf("%s has %d lines", file.path, file.lines))
		}
	}
	require.Empty(t, offenders, "a file has less than %d lines", maxLines)
}
