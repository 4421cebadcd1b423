package server_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/server"
)

const token = "s3cret-of-the-agent"

// executor answers as it is told.
type executor struct{ execute func() []byte }

func (e executor) Execute(context.Context, argo.Call) []byte { return e.execute() }

func (e executor) Reject(_ context.Context, _ argo.Call, err error) []byte {
	return argo.Final(argo.Failed, err.Error(), nil).Encode()
}

const ours = `{"workflow":{"metadata":{"name":"w","namespace":"n","uid":"u"}},"template":{"plugin":{"aphex":
	{"stage":"build","pipeline":"p","node":"w.build","topology":"t","config":"c","repo":"","commit":"","branch":""}}}}`

func send(t *testing.T, s http.Handler, tok, body string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.ExecutePath, strings.NewReader(body))
	if tok != "" {
		req.Header.Set("Authorization", tok)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, req)
	return w
}

func TestServer_Answers(t *testing.T) {
	t.Parallel()
	quiet := func() []byte { return argo.Quiet(time.Second).Encode() }
	tests := map[string]struct {
		token   string
		body    string
		execute func() []byte
		status  int
		answer  string
	}{
		"ours":              {"Bearer " + token, ours, quiet, 200, `{"node":{},"requeue":"1s"}`},
		"no token":          {"", ours, quiet, 403, `{"message":"wrong or missing bearer token"}`},
		"another scheme":    {"Basic " + token, ours, quiet, 403, `{"message":"wrong or missing bearer token"}`},
		"empty token":       {"Bearer ", ours, quiet, 403, `{"message":"wrong or missing bearer token"}`},
		"too large":         {"Bearer " + token, ours + strings.Repeat(" ", 5<<20), quiet, 413, `{"message":"the request is too large: at most 4194304 bytes are read"}`},
		"nested too deeply": {"Bearer " + token, strings.Replace(ours, `{"stage"`, `{"x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`,"stage"`, 1), quiet, 200, `{"node":{"phase":"Failed","message":"read the step's plugin body: the request cannot be read: it is nested more than 64 levels deep (at byte 161)"}}`},

		"not JSON":           {"Bearer " + token, "<html>", quiet, 200, `{}`},
		"cannot be read":     {"Bearer " + token, strings.Replace(ours, `"w.build"`, "1", 1), quiet, 200, ""},
		"the engine panics":  {"Bearer " + token, ours, func() []byte { panic(errors.New("boom")) }, 200, ""},
		"the engine is mute": {"Bearer " + token, ours, func() []byte { return nil }, 200, `{}`},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			s := server.New(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			require.Equal(t, 503, send(t, s, c.token, c.body).Code, "while it starts")
			s.Start(executor{c.execute}, token)
			w := send(t, s, c.token, c.body)
			require.Equal(t, c.status, w.Code)
			require.True(t, strings.HasPrefix(w.Header().Get("Content-Type"), "application/json"))
			if c.answer != "" {
				require.Equal(t, c.answer, w.Body.String())
			}
			require.NotContains(t, log.String(), token)
		})
	}
}

func TestServer_PanicIsAFinalErrorWithoutDetails(t *testing.T) {
	t.Parallel()
	s := server.New(slog.New(slog.DiscardHandler))
	s.Start(executor{func() []byte { panic("secret detail") }}, token)
	w := send(t, s, "Bearer "+token, ours)
	require.Contains(t, w.Body.String(), `"phase":"Error"`)
	require.Contains(t, w.Body.String(), "[Internal]")
	require.NotContains(t, w.Body.String(), "secret detail")
}

func TestReadToken(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "token")
	got := make(chan string, 1)
	go func() {
		tok, err := server.ReadToken(t.Context(), path, logger)
		if err != nil {
			tok = err.Error()
		}
		got <- tok
	}()
	require.NoError(t, os.WriteFile(path, nil, 0o600)) // written in two steps
	require.NoError(t, os.WriteFile(path, []byte(token+"\n"), 0o600))
	require.Equal(t, token, <-got)

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	_, err := server.ReadToken(ctx, path+"-none", logger)
	require.ErrorIs(t, err, cause)
	_, err = server.ReadToken(t.Context(), t.TempDir(), logger)
	require.ErrorContains(t, err, "uid 8737", "what cannot be read stays so")
}

func TestListen_BothLoopbacks(t *testing.T) {
	t.Parallel()
	listeners, err := server.Listen(t.Context(), 0)
	require.NoError(t, err)
	for _, l := range listeners {
		host := l.Addr().String()
		require.True(t, strings.HasPrefix(host, "127.0.0.1:") || strings.HasPrefix(host, "[::1]:"), host)
		require.NoError(t, l.Close())
	}
}

// Somebody else on one of the addresses would be sent the agent's token.
func TestListen_BothOrNone(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		taken, err := net.Listen("tcp", address)
		if err != nil && strings.HasPrefix(address, "[::1]") {
			require.ErrorIs(t, err, syscall.EADDRNOTAVAIL, "a machine without IPv6")
			continue
		}
		require.NoError(t, err)
		defer func() { require.NoError(t, taken.Close()) }()
		port := taken.Addr().(*net.TCPAddr).Port
		_, err = server.Listen(t.Context(), port)
		require.ErrorIs(t, err, syscall.EADDRINUSE, address)
		require.ErrorContains(t, err, strconv.Itoa(port))
	}
}
