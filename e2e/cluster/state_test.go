package cluster

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestState_IsReadAsWritten(t *testing.T) {
	t.Parallel()
	c, err := Config{Dir: t.TempDir(), Provider: ProviderExisting}.withDefaults()
	require.NoError(t, err)
	s, err := newState(c)
	require.NoError(t, err)
	s.Existing = &existingState{Installed: true, LoadCommand: "x"}
	require.NoError(t, s.save())
	got, err := readState(filepath.Join(c.Dir, stateFile))
	require.NoError(t, err)
	require.Equal(t, s, got)
	require.True(t, got.Owner.alive())
	require.False(t, got.orphaned())

	attached, err := Attach(c.Dir, nil)
	require.NoError(t, err)
	require.Equal(t, ProviderExisting, attached.Provider())
	require.Equal(t, filepath.Join(c.Dir, "log"), attached.Logs())

	require.NoError(t, s.forget())
	_, err = Attach(c.Dir, nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestState_OrphanedOnlyIfTheOwnerIsGone(t *testing.T) {
	t.Parallel()
	self, err := identify("test", os.Getpid())
	require.NoError(t, err)
	gone := process{Name: "gone", PID: self.PID, Start: self.Start - 1}
	boot, err := bootID()
	require.NoError(t, err)
	require.False(t, (&state{BootID: boot, Owner: self}).orphaned())
	require.True(t, (&state{BootID: boot, Owner: gone}).orphaned())
	require.False(t, (&state{BootID: boot, Owner: gone, Keep: true}).orphaned())
	require.True(t, (&state{BootID: "another", Owner: self, Keep: true}).orphaned())
}

func TestReadState_DamagedFileSaysWhatToDo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), stateFile)
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err := readState(path)
	require.ErrorContains(t, err, "remove the file if no cluster of it is left")
}

func TestLockDir_SecondHolderIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := lockDir(dir)
	require.NoError(t, err)
	_, err = lockDir(dir)
	require.ErrorContains(t, err, "is in use")
	unlock()
	unlock, err = lockDir(dir)
	require.NoError(t, err)
	unlock()
}

func TestClusterID_DependsOnTheDirectoryAlone(t *testing.T) {
	t.Parallel()
	require.Equal(t, clusterID("/a"), clusterID("/a"))
	require.NotEqual(t, clusterID("/a"), clusterID("/b"))
	// The link's name must fit the kernel's 15 bytes.
	require.LessOrEqual(t, len("aphex"+clusterID("/a")), 15)
}

func TestUnescape(t *testing.T) {
	t.Parallel()
	require.Equal(t, `/a b\c`, unescape(`/a\040b\134c`))
	require.Equal(t, `/a\04`, unescape(`/a\04`))
}
