package revision

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
)

// apiServer keeps ConfigMaps with the API server's rules for conditional
// writes. before, if set, runs once ahead of the next write: another writer.
type apiServer struct {
	mu      sync.Mutex
	version int
	maps    map[string]*kube.ConfigMap
	before  func()
	deny    error
}

func (a *apiServer) interfere() {
	if f := a.before; f != nil {
		a.before = nil
		f()
	}
}

func (a *apiServer) ConfigMap(_ context.Context, _, name string) (*kube.ConfigMap, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deny != nil {
		return nil, a.deny
	}
	cm, ok := a.maps[name]
	if !ok {
		return nil, kube.ErrNotFound
	}
	return clone(cm), nil
}

func (a *apiServer) CreateConfigMap(_ context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error) {
	a.interfere()
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.maps[cm.Name]; ok {
		return nil, kube.ErrExists
	}
	return a.store(cm), nil
}

func (a *apiServer) UpdateConfigMap(_ context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error) {
	a.interfere()
	a.mu.Lock()
	defer a.mu.Unlock()
	old, ok := a.maps[cm.Name]
	if !ok {
		return nil, kube.ErrNotFound
	}
	if old.ResourceVersion != cm.ResourceVersion {
		return nil, kube.ErrConflict
	}
	return a.store(cm), nil
}

func (a *apiServer) store(cm *kube.ConfigMap) *kube.ConfigMap {
	a.version++
	stored := clone(cm)
	stored.ResourceVersion = strconv.Itoa(a.version)
	a.maps[cm.Name] = stored
	return clone(stored)
}

func clone(cm *kube.ConfigMap) *kube.ConfigMap {
	c := *cm
	c.Data = maps.Clone(cm.Data)
	return &c
}

// graph maps each commit to its parent; a commit not in it is unknown.
type graph map[string]string

func (g graph) IsAncestor(_ context.Context, ancestor, descendant string) (bool, error) {
	for _, c := range []string{ancestor, descendant} {
		if _, ok := g[c]; !ok {
			return false, fault.Newf(fault.User, fault.CommitUnknown, "look up commit", "", "no commit %s", c)
		}
	}
	for c := descendant; c != ""; c = g[c] {
		if c == ancestor {
			return true, nil
		}
	}
	return false, nil
}

func newGuard() (*Guard, *apiServer) {
	api := &apiServer{maps: map[string]*kube.ConfigMap{}}
	return New(api, "shop", "shop"), api
}

func TestGuard_PassesOverAnOlderCommit(t *testing.T) {
	t.Parallel()
	git := graph{"a": "", "b": "a", "c": "b", "side": "a"}
	tests := map[string]struct {
		deployed, commit string
		allowOlder       bool
		superseded, note bool
	}{
		"nothing deployed yet":      {commit: "a"},
		"newer":                     {deployed: "a", commit: "c"},
		"the same again":            {deployed: "b", commit: "b"},
		"older":                     {deployed: "c", commit: "a", superseded: true},
		"older on purpose":          {deployed: "c", commit: "a", allowOlder: true, note: true},
		"another branch":            {deployed: "c", commit: "side"},
		"deployed one was erased":   {deployed: "gone", commit: "a", note: true},
		"newer although allowOlder": {deployed: "a", commit: "b", allowOlder: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := newGuard()
			if tt.deployed != "" {
				require.NoError(t, g.Enter(t.Context(), "dev", State{}, State{Commit: tt.deployed, Run: "r0", RunUID: "u0", Phase: Deployed}))
			}
			d, err := g.Check(t.Context(), git, "dev", tt.commit, tt.allowOlder)
			require.NoError(t, err)
			require.Equal(t, tt.superseded, d.Superseded)
			require.Equal(t, tt.deployed, d.Previous.Commit)
			require.Equal(t, tt.note, d.Note != "")
		})
	}
}

func TestGuard_KeepsEnvironmentsApart(t *testing.T) {
	t.Parallel()
	g, _ := newGuard()
	require.NoError(t, g.Enter(t.Context(), "dev", State{}, State{Commit: "b", RunUID: "u1", Phase: Deployed}))
	require.NoError(t, g.Enter(t.Context(), "prod", State{}, State{Commit: "a", RunUID: "u1", Phase: Deploying}))
	dev, err := g.State(t.Context(), "dev")
	require.NoError(t, err)
	prod, err := g.State(t.Context(), "prod")
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a"}, []string{dev.Commit, prod.Commit})
	require.False(t, dev.At.IsZero())
}

func TestGuard_AnotherEnvironmentWrittenMeanwhileIsKept(t *testing.T) {
	t.Parallel()
	g, api := newGuard()
	api.before = func() {
		require.NoError(t, g.Enter(t.Context(), "prod", State{}, State{Commit: "p", RunUID: "u2", Phase: Deployed}))
	}
	require.NoError(t, g.Enter(t.Context(), "dev", State{}, State{Commit: "d", RunUID: "u1", Phase: Deployed}))
	prod, err := g.State(t.Context(), "prod")
	require.NoError(t, err)
	require.Equal(t, "p", prod.Commit)
}

func TestGuard_RefusesADecisionThatIsOutOfDate(t *testing.T) {
	t.Parallel()
	g, api := newGuard()
	api.before = func() {
		require.NoError(t, g.Enter(t.Context(), "dev", State{}, State{Commit: "newer", Run: "other", RunUID: "u2", Phase: Deploying}))
	}
	err := g.Enter(t.Context(), "dev", State{}, State{Commit: "mine", RunUID: "u1", Phase: Deploying})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackBusy})
	require.ErrorContains(t, err, "run other")
	s, err := g.State(t.Context(), "dev")
	require.NoError(t, err)
	require.Equal(t, "newer", s.Commit)
}

func TestGuard_SaysWhichRightIsMissing(t *testing.T) {
	t.Parallel()
	g, api := newGuard()
	api.deny = kube.ErrForbidden
	_, err := g.State(t.Context(), "dev")
	require.ErrorIs(t, err, kube.ErrForbidden)
	require.Contains(t, fault.Message(err), "needs get, create and update on configmaps")
}

// Law: whatever the order of runs, an environment never goes from a commit to
// one of its proper ancestors unless that was asked for.
func TestGuard_NeverGoesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		git := graph{"c0": ""}
		for i := range rapid.IntRange(1, 8).Draw(t, "commits") {
			git["c"+strconv.Itoa(i+1)] = "c" + strconv.Itoa(rapid.IntRange(0, i).Draw(t, "parent"))
		}
		g, _ := newGuard()
		ctx := t.Context()
		deployed := ""
		for run := range rapid.IntRange(1, 12).Draw(t, "runs") {
			commit := "c" + strconv.Itoa(rapid.IntRange(0, len(git)-1).Draw(t, "commit"))
			d, err := g.Check(ctx, git, "dev", commit, false)
			require.NoError(t, err)
			if d.Superseded {
				older, err := git.IsAncestor(ctx, commit, deployed)
				require.NoError(t, err)
				require.True(t, older && commit != deployed)
				continue
			}
			if deployed != "" && commit != deployed {
				older, err := git.IsAncestor(ctx, commit, deployed)
				require.NoError(t, err)
				require.False(t, older)
			}
			require.NoError(t, g.Enter(ctx, "dev", d.Previous, State{Commit: commit, RunUID: "u" + strconv.Itoa(run), Phase: Deployed}))
			deployed = commit
		}
	})
}
