package parity

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

// Every recorded app is deployed along one chain of states, and every state is
// met by some app; `make conformance` has the whole matrix.
func TestParity_AppsLeaveWhatTheCommandLineLeaves(t *testing.T) {
	t.Parallel()
	need.Require(t, need.Emulator)
	all, stale, err := Recorded()
	require.NoError(t, err)
	require.Empty(t, stale, "what the command line does with these apps is not known any more: make conformance ARGS='-record -apps %s'", strings.Join(stale, ","))
	cells := sample(all)
	for _, state := range States() {
		require.True(t, slices.ContainsFunc(cells, func(c Cell) bool { return c.State == state }), "no app begins with %s", state)
	}
	for _, cell := range all {
		require.True(t, slices.ContainsFunc(cells, func(c Cell) bool { return c.App == cell.App }), "app %s is not deployed", cell.App)
	}
	began := time.Now()
	report, err := Run(t.Context(), Config{Cells: cells, Log: t.Output()})
	require.NoError(t, err)
	require.Len(t, report.Results, len(cells))
	var table strings.Builder
	require.NoError(t, report.Write(&table))
	require.Zero(t, report.Different(), table.String())
	t.Logf("%d cells in %s", len(cells), time.Since(began).Round(time.Second))
}

// sample takes the cells of one chain from each app, in turn.
func sample(cells []Cell) []Cell {
	var apps []string
	for _, c := range cells {
		if !slices.Contains(apps, c.App) {
			apps = append(apps, c.App)
		}
	}
	turn := 0
	var out []Cell
	for _, app := range apps {
		for range chains() {
			chain := chains()[turn%len(chains())]
			turn++
			taken := len(out)
			for _, c := range cells {
				if c.App == app && slices.ContainsFunc(chain, func(m move) bool { return m.state == c.State }) {
					out = append(out, c)
				}
			}
			if len(out) > taken {
				break
			}
		}
	}
	return out
}

func TestChains_EveryStateIsComparedOnce(t *testing.T) {
	t.Parallel()
	var states []State
	for _, chain := range chains() {
		for _, m := range chain {
			if m.state != "" {
				require.False(t, m.fails, "what is compared ends well where both can")
				states = append(states, m.state)
			}
		}
	}
	require.ElementsMatch(t, States(), states)
}

func TestReport_Markdown(t *testing.T) {
	t.Parallel()
	r := Report{Results: []Result{
		{Cell: Cell{"shop", Absent}},
		{Cell: Cell{"shop", Review}, Differences: []Difference{{Path: "a"}, {Path: "b", Allowed: "meant"}}},
		{Cell: Cell{"plain", Absent}, Err: io.EOF},
	}}
	var out strings.Builder
	require.NoError(t, r.Markdown(&out))
	require.Equal(t, `| app | absent | same | changed | failed create | failed update | leftover review | protected |
| --- | --- | --- | --- | --- | --- | --- | --- |
| plain | not compared | – | – | – | – | – | – |
| shop | equal | – | – | – | – | 1 different | – |
| compared | 2 | 0 | 0 | 0 | 0 | 1 | 0 |

2 apps: 3 compared, 2 different
`, out.String())
}

func TestDifferences(t *testing.T) {
	t.Parallel()
	allowed := []Allowed{
		{Path: "sent/*/CreateChangeSet */ClientToken", Reason: "random"},
		{Path: "stacks/*/tags/*", App: "shop", State: Same, Reason: "for a test"},
		{Path: "objects/*", Missing: true, Reason: "for a test"},
	}
	cdk := Snapshot{"stacks/a/status": "X", "sent/a/CreateChangeSet 1/ClientToken": "1", "stacks/a/tags/t": "1", "only/cdk": "", "objects/a/content": "absent", "objects/b/content": "1"}
	aphex := Snapshot{"stacks/a/status": "Y", "sent/a/CreateChangeSet 1/ClientToken": "2", "stacks/a/tags/t": "2", "only/aphex": "v", "objects/a/content": "2", "objects/a/type": "t", "objects/b/content": "2"}
	paths := func(app string, state State) (open []string) {
		for _, d := range differences(app, state, cdk, aphex, allowed) {
			if d.Allowed == "" {
				open = append(open, d.Path)
			}
		}
		return open
	}
	require.Equal(t, []string{"objects/b/content", "only/aphex", "only/cdk", "stacks/a/status"}, paths("shop", Same), "a value that only one has is a difference, an empty one too")
	require.Equal(t, []string{"objects/b/content", "only/aphex", "only/cdk", "stacks/a/status", "stacks/a/tags/t"}, paths("shop", Changed))
	require.Empty(t, differences("shop", Same, cdk, cdk, nil))
}

func TestAllowList_NamesAppsAndStatesThatExist(t *testing.T) {
	t.Parallel()
	apps, err := Apps()
	require.NoError(t, err)
	list, err := AllowList()
	require.NoError(t, err)
	require.NotEmpty(t, list)
	for _, a := range list {
		require.True(t, a.App == "" || slices.Contains(apps, a.App), "%+v", a)
		require.True(t, a.State == "" || slices.Contains(States(), a.State), "%+v", a)
		require.Greater(t, len(a.Reason), 20, "%+v", a)
	}
}

func TestStable_ReplacesWhatIsRandomInNames(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"nested-A-b4d10d7f-73e":                             "nested-A-RANDOM",
		"nested-A-b4d10d7f-73e-B-00aa11bb-0c4/Deep":         "nested-A-RANDOM-B-RANDOM/Deep",
		"nested-A-b4d10d7f-7314FA6AED47D08 a digit":         "nested-A-RANDOM a digit",
		"nested-A-b4d10d7f-73D4FA6AED47D08 a letter":        "nested-A-RANDOM a letter",
		"api-AllowEvent7F910E582A61F69B-0b79cfed is a name": "api-AllowEvent7F910E582A61F69B-RANDOM is a name",
		"stack/0e9f2b0c-3a51-4c3e-8f0f-9f6a1be5c0de":        "stack/UUID",
		"http://127.0.0.1:40123/222222222222/shop-Orders1":  "ENDPOINT/222222222222/shop-Orders1",
	} {
		require.Equal(t, want, stable(given))
	}
}
