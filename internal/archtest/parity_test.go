package archtest_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// parityPage is the checklist of what equals the CDK command line.
const parityPage = "docs/spec/cdk-parity.md"

// parityIDs are the ids of the checklist: a letter and how many there are.
func parityIDs() []string {
	var ids []string
	for _, group := range []struct {
		letter string
		count  int
	}{{"A", 12}, {"M", 4}, {"P", 9}, {"D", 30}, {"C", 5}} {
		for i := range group.count {
			ids = append(ids, fmt.Sprintf("%s%d", group.letter, i+1))
		}
	}
	return ids
}

// parityRow is one line of the checklist.
type parityRow struct {
	id, level, status string
	tests             []string
}

// parityRows reads the checklist's table: id, behaviour, level, status, tests.
func parityRows(t *testing.T) []parityRow {
	t.Helper()
	data, err := os.ReadFile(path.Join(root, parityPage))
	require.NoError(t, err)
	var rows []parityRow
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 5 || !regexp.MustCompile(`^ [A-Z]\d+ $`).MatchString(cells[0]) {
			continue
		}
		rows = append(rows, parityRow{
			id: strings.TrimSpace(cells[0]), level: strings.TrimSpace(cells[2]), status: strings.TrimSpace(cells[3]),
			tests: regexp.MustCompile(`Test\w+`).FindAllString(cells[4], -1),
		})
	}
	return rows
}

func TestParity_EveryIDHasAStatusAndDoneOnesATestThatExists(t *testing.T) {
	t.Parallel()
	existing := testNames(t)
	var ids []string
	for _, row := range parityRows(t) {
		ids = append(ids, row.id)
		require.Contains(t, []string{"M", "S", "C", "N"}, row.level, row.id)
		require.Contains(t, []string{"done", "partly", "not yet"}, row.status, row.id)
		if row.status == "done" {
			require.NotEmpty(t, row.tests, "%s says done without a test", row.id)
		}
		for _, name := range row.tests {
			require.Contains(t, existing, name, "%s names a test that does not exist", row.id)
		}
	}
	require.Equal(t, parityIDs(), ids)
}

// testNames returns the names of all tests of the module.
func testNames(t *testing.T) []string {
	t.Helper()
	tree, err := os.OpenRoot(root)
	require.NoError(t, err)
	defer func() { require.NoError(t, tree.Close()) }()
	pattern := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	var names []string
	require.NoError(t, fs.WalkDir(tree.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && skipped(tree, name):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := tree.ReadFile(name)
		for _, match := range pattern.FindAllSubmatch(text, -1) {
			names = append(names, string(match[1]))
		}
		return err
	}))
	slices.Sort(names)
	return names
}

// Each behaviour that a deployment must have is broken by a stored patch:
// `make mutants` sees that a test notices.
func TestParity_EveryMustHasAMutant(t *testing.T) {
	t.Parallel()
	for _, row := range parityRows(t) {
		patches, err := filepath.Glob(filepath.Join(root, "hack", "mutants", "testdata", "parity-"+row.id+"-*.patch"))
		require.NoError(t, err)
		if row.level == "M" {
			require.NotEmpty(t, patches, "no patch breaks %s", row.id)
		}
		for _, name := range patches {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			test := regexp.MustCompile(`(?m)^Red: \S+ (Test\w+)$`).FindStringSubmatch(string(text))
			require.NotNil(t, test, name)
			require.Contains(t, testNames(t), test[1], name)
		}
	}
}
