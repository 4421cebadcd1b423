package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/store/storetest"
)

func TestDir_IsAStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Target {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "made", "by", "put")
		return storetest.Target{
			Store:      store.NewDir(dir),
			LargeBytes: 6 << 20,
			Overwrite: func(t *testing.T, key string, content []byte) {
				t.Helper()
				require.NoError(t, os.WriteFile(filepath.Join(dir, key), content, 0o600))
			},
		}
	})
}

func TestDir_KeepsFilesAtTheirKeysAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := store.NewDir(dir)
	_, err := s.Put(t.Context(), "runs/1/log", strings.NewReader("text"), store.PutOptions{})
	require.NoError(t, err)
	content, err := os.ReadFile(filepath.Join(dir, "runs/1/log"))
	require.NoError(t, err)
	require.Equal(t, "text", string(content))
	require.Equal(t, "file://"+dir+"/runs/1/log", s.URL("runs/1/log"))
	left, err := os.ReadDir(filepath.Join(dir, ".aphex", "new"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestDir_RefusesObjectsOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "foreign"), []byte("x"), 0o600))
	_, _, err := store.NewDir(dir).Get(t.Context(), "foreign")
	require.ErrorIs(t, err, store.ErrDamaged)
	_, err = store.NewDir(dir).Put(t.Context(), ".aphex/lock", bytes.NewReader(nil), store.PutOptions{})
	require.ErrorContains(t, err, "not usable")
}
