package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/argo"
)

const (
	// ExecutePath is what the agent calls.
	ExecutePath = "/api/v1/template.execute"
	// HealthPath answers 200 while the process lives.
	HealthPath = "/healthz"
	// ReadyPath answers 200 once calls are executed, 503 before.
	ReadyPath = "/readyz"

	// maxBody bounds a request. A template is part of an object in etcd, which
	// holds at most 1.5 MiB.
	maxBody = 4 << 20
)

// Executor answers calls. Its answers are complete JSON bodies.
type Executor interface {
	// Execute answers a call that could be read, within the agent's patience.
	Execute(ctx context.Context, call argo.Call) []byte
	// Reject is the final answer to one that could not.
	Reject(ctx context.Context, call argo.Call, err error) []byte
}

// Server is the handler. The zero value is not usable; see New.
type Server struct {
	logger *slog.Logger
	engine *gin.Engine
	// ready is nil until the plugin has started.
	ready atomic.Pointer[backend]
}

// backend is what a started server answers with.
type backend struct {
	executor Executor
	token    [sha256.Size]byte
}

// New returns a Server that answers 503 until Start is called.
func New(logger *slog.Logger) *Server {
	s := &Server{logger: logger}
	// The mode is a global of gin's; its other values only add prints.
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.RedirectTrailingSlash, g.RedirectFixedPath, g.HandleMethodNotAllowed = false, false, false
	g.Use(s.logging, s.rendering, s.recovery, s.authentication)
	g.POST(ExecutePath, s.execute)
	g.GET(HealthPath, func(c *gin.Context) { answer(c, http.StatusOK, []byte(`{"status":"alive"}`)) })
	g.GET(ReadyPath, s.readiness)
	g.NoRoute(func(c *gin.Context) { answer(c, http.StatusOK, argo.NotMine().Encode()) })
	s.engine = g
	return s
}

// Start makes the server answer calls with executor that bear token.
func (s *Server) Start(executor Executor, token string) {
	s.ready.Store(&backend{executor: executor, token: sha256.Sum256([]byte(token))})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.engine.ServeHTTP(w, r) }

// The keys under which handlers leave their answer in the context.
const (
	keyStatus = "status"
	keyBody   = "body"
	keyCall   = "call"
)

// answer leaves the answer for rendering to write.
func answer(c *gin.Context, status int, body []byte) {
	c.Set(keyStatus, status)
	c.Set(keyBody, body)
}

// logging writes one line per request, at a level that fits its outcome: the
// many quiet polls are only for debugging.
func (s *Server) logging(c *gin.Context) {
	start := time.Now()
	c.Next()
	level := slog.LevelDebug
	if status := c.Writer.Status(); status == http.StatusForbidden || len(c.Errors) > 0 {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("method", c.Request.Method), slog.String("path", c.Request.URL.Path),
		slog.Int("status", c.Writer.Status()), slog.Int64("duration_ms", time.Since(start).Milliseconds()),
	}
	if call, ok := callOf(c); ok {
		attrs = append(attrs, slog.String("workflow_uid", call.Request.Run.UID), slog.String("stage", call.Request.Stage),
			slog.String("environment", call.Request.Environment))
	}
	if len(c.Errors) > 0 {
		attrs = append(attrs, slog.String("err", c.Errors.String()))
	}
	s.logger.LogAttrs(c.Request.Context(), level, "request answered", attrs...)
}

// rendering writes the answer that was left behind. Nothing left behind is
// "not mine", never an empty body: that would fail the stage.
func (s *Server) rendering(c *gin.Context) {
	c.Next()
	status, body := c.GetInt(keyStatus), argo.NotMine().Encode()
	if status == 0 {
		status = http.StatusOK
	}
	if left, ok := c.Get(keyBody); ok {
		if b, ok := left.([]byte); ok && len(b) > 0 {
			body = b
		}
	}
	c.Data(status, "application/json; charset=utf-8", body)
}

// recovery turns a panic into an answer: a final Error if the call was ours,
// "not mine" if that is not known.
func (s *Server) recovery(c *gin.Context) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		c.Abort()
		_ = c.Error(fmt.Errorf("handler panicked: %v", cause))
		body := argo.NotMine().Encode()
		if _, ok := callOf(c); ok {
			body = argo.Final(argo.Error, fault.Message(fault.Newf(fault.System, fault.Internal, "answer the agent",
				"Report this as a defect of aphex, with the plugin's log", "the plugin panicked")), nil).Encode()
		}
		answer(c, http.StatusOK, body)
	}()
	c.Next()
}

// authentication lets only the agent of this pod through: its token is in a
// file that no other container of the pod can read. Health is open.
func (s *Server) authentication(c *gin.Context) {
	if c.Request.URL.Path == HealthPath || c.Request.URL.Path == ReadyPath {
		return
	}
	back := s.ready.Load()
	if back == nil {
		c.Abort()
		answer(c, http.StatusServiceUnavailable, []byte(`{"message":"the plugin is starting"}`))
		return
	}
	given, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(given)) // of one length, so that the comparison tells nothing
	if !ok || subtle.ConstantTimeCompare(sum[:], back.token[:]) != 1 {
		c.Abort()
		_ = c.Error(errors.New("wrong or missing bearer token"))
		answer(c, http.StatusForbidden, []byte(`{"message":"wrong or missing bearer token"}`))
	}
}

func (s *Server) readiness(c *gin.Context) {
	if s.ready.Load() == nil {
		answer(c, http.StatusServiceUnavailable, []byte(`{"status":"starting"}`))
		return
	}
	answer(c, http.StatusOK, []byte(`{"status":"ready"}`))
}

func (s *Server) execute(c *gin.Context) {
	back := s.ready.Load()
	call, ours, err := argo.Decode(http.MaxBytesReader(c.Writer, c.Request.Body, maxBody))
	if !ours {
		refuseOrPass(c, err)
		return
	}
	c.Set(keyCall, &call)
	if err != nil {
		answer(c, http.StatusOK, back.executor.Reject(c.Request.Context(), call, err))
		return
	}
	answer(c, http.StatusOK, back.executor.Execute(c.Request.Context(), call))
}

// refuseOrPass answers a request that is not known to be ours. One beyond
// maxBody is refused: it is nobody's, since no template is that large, and "not
// mine" would make the agent say that no plugin takes the step.
func refuseOrPass(c *gin.Context, err error) {
	if err != nil {
		_ = c.Error(err)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		answer(c, http.StatusRequestEntityTooLarge, fmt.Appendf(nil, `{"message":"the request is too large: at most %d bytes are read"}`, maxBody))
		return
	}
	answer(c, http.StatusOK, argo.NotMine().Encode())
}

func callOf(c *gin.Context) (*argo.Call, bool) {
	v, _ := c.Get(keyCall)
	call, ok := v.(*argo.Call)
	return call, ok
}
