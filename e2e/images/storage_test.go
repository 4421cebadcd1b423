package images

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStorage_RemovesWhatDeadProcessesLeftAndNothingElse(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	inUse, err := newStorage(parent)
	require.NoError(t, err)
	dead := filepath.Join(parent, "storage-dead")
	require.NoError(t, os.MkdirAll(filepath.Join(dead, "root"), 0o755))
	other := filepath.Join(parent, "plugin")
	require.NoError(t, os.Mkdir(other, 0o755))

	second, err := newStorage(parent)
	require.NoError(t, err)
	require.NoDirExists(t, dead)
	require.DirExists(t, inUse.dir)
	require.DirExists(t, other)
	require.NoError(t, second.remove())
	require.NoError(t, inUse.remove())
	require.NoDirExists(t, inUse.dir)
}
