package npmproxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProxy_AsksTheRegistryOnce(t *testing.T) {
	var asked atomic.Int32
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, "content of "+r.URL.EscapedPath())
	}))
	t.Cleanup(registry.Close)
	npmrc := filepath.Join(t.TempDir(), "npmrc")
	require.NoError(t, os.WriteFile(npmrc, []byte("registry="+registry.URL+"/\n"), 0o600))
	t.Setenv("NPM_CONFIG_USERCONFIG", npmrc)

	proxy, err := Start(t.Context(), "127.0.0.1", t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	get := func(path string) (int, string) {
		res, err := http.Get("http://" + proxy.listener.Addr().String() + path)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, string(body)
	}

	for range 2 {
		code, body := get("/@types%2fnode")
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, "content of /@types%2fnode", body)
	}
	require.EqualValues(t, 1, asked.Load())

	code, body := get("/missing")
	require.Equal(t, http.StatusBadGateway, code)
	require.Contains(t, body, "404")

	res, err := http.Post("http://"+proxy.listener.Addr().String()+"/x", "text/plain", nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusMethodNotAllowed, res.StatusCode)
}
