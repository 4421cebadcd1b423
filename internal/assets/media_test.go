package assets

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What `mime.getType` of the command line says of these names.
func TestContentType(t *testing.T) {
	t.Parallel()
	require.Greater(t, len(typesByExtension()), 1000)
	for name, want := range map[string]string{
		"asset.0a.json": "application/json", "a.JSON": "application/json", "asset.0a.ts": "video/mp2t", "a/b.js": "application/javascript",
		"a.xml": "application/xml", "a.sql": "application/x-sql", "a.tar.gz": "application/gzip", "a.wasm": "application/wasm",
		"a.py": "application/octet-stream", "json": "application/octet-stream", "a.b/json": "application/octet-stream",
		".json": "application/octet-stream", "a.": "application/octet-stream", "": "application/octet-stream",
	} {
		require.Equal(t, want, contentType(name), name)
	}
}
