package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

const (
	// connectLimit is how long a worker may take to start: its image is
	// there already when the sidecar runs, but the kubelet starts containers
	// one after the other.
	connectLimit = 30 * time.Second
	// connectPause is the time between two tries.
	connectPause = 100 * time.Millisecond
	// silenceLimit is how long a worker may say nothing: six heartbeats.
	silenceLimit = 30 * time.Second
	// replyLimit is how long an operation on a whole tree may take before its
	// first byte. Removing a large node_modules on a slow disk takes a minute.
	replyLimit = 10 * time.Minute
)

// Client talks to the worker on the other side of a socket. It is safe for
// concurrent use and holds no connection between calls.
//
// Errors of all methods: faults with reason WorkerUnavailable (nobody answers
// within the time for connecting), WorkerLost (it went away meanwhile),
// Cancelled or StageTimeout (the context ended; its cause is wrapped), and
// what the worker refuses.
type Client struct {
	socket  string
	connect time.Duration
	silence time.Duration
	web     *http.Client
}

// Option changes a Client.
type Option func(*Client)

// WithConnectTimeout sets how long a call waits for the worker to start
// listening. Default: 30 s.
func WithConnectTimeout(limit time.Duration) Option { return func(c *Client) { c.connect = limit } }

// WithSilenceTimeout sets how long a worker may be silent during a command or
// a transfer before it is given up. It must exceed the server's heartbeat.
// Default: 30 s.
func WithSilenceTimeout(limit time.Duration) Option { return func(c *Client) { c.silence = limit } }

// NewClient returns a client for the worker that listens on socket. It does
// not connect yet.
func NewClient(socket string, opts ...Option) *Client {
	c := &Client{socket: socket, connect: connectLimit, silence: silenceLimit}
	for _, opt := range opts {
		opt(c)
	}
	c.web = &http.Client{Transport: &http.Transport{
		// One connection per call: a worker that restarted leaves no stale
		// one behind, and a Unix socket costs next to nothing.
		DisableKeepAlives:     true,
		DisableCompression:    true,
		ResponseHeaderTimeout: replyLimit,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			addr, release, err := socketAddr(socket)
			if err != nil {
				return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
			}
			defer release()
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		},
	}}
	return c
}

// Ping asks who answers. It waits for a worker that is still starting.
func (c *Client) Ping(ctx context.Context) (Info, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://worker"+pathPing, nil)
	if err != nil {
		return Info{}, err
	}
	var info Info
	return info, c.receive(req, "ask the worker who it is", &info)
}

// LookPath finds programs as a command with this additional environment would.
// The result has those that exist, with their absolute paths. Names with a
// slash are files, relative to the checkout.
func (c *Client) LookPath(ctx context.Context, names []string, env map[string]string) (map[string]string, error) {
	op := "look for programs in the worker image"
	req, err := post(ctx, pathLook, lookRequest{Names: names, Env: toBytes(env)})
	if err != nil {
		return nil, err
	}
	var found map[string]pathBytes
	if err := c.receive(req, op, &found); err != nil {
		return nil, err
	}
	return toStrings(found), nil
}

// post builds a request with a JSON body.
func post(ctx context.Context, path string, body any) (*http.Request, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return http.NewRequestWithContext(ctx, http.MethodPost, "http://worker"+path, bytes.NewReader(data))
}

// receive does a request and decodes its JSON reply.
func (c *Client) receive(req *http.Request, op string, into any) error {
	resp, err := c.do(req.Context(), req, op)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return c.lost(req.Context(), op, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return c.lost(req.Context(), op, err)
	}
	return nil
}

// do sends a request, again as long as nobody listens and ctx lives, and turns
// a refusal into its fault. The caller closes the body.
func (c *Client) do(ctx context.Context, req *http.Request, op string) (*http.Response, error) {
	deadline := time.NewTimer(c.connect)
	defer deadline.Stop()
	body := req.Body
	for {
		if body != nil { // nothing was read from it if the dial failed
			req.Body = io.NopCloser(body)
		}
		resp, err := c.web.Do(req)
		if err == nil {
			return resp, refusal(resp)
		}
		if ctx.Err() != nil {
			return nil, cancelled(ctx, op)
		}
		opErr, ok := errors.AsType[*net.OpError](err)
		if !ok || opErr.Op != "dial" {
			return nil, c.lost(ctx, op, err)
		}
		if !startable(err) {
			return nil, c.unavailable(op, err)
		}
		select {
		case <-ctx.Done():
			return nil, cancelled(ctx, op)
		case <-deadline.C:
			return nil, c.unavailable(op, err)
		case <-time.After(connectPause):
		}
	}
}

// startable reports whether a failed dial may succeed once the worker is up.
func startable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

// refusal returns the fault of a reply that is none of success.
func refusal(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	var w wireError
	if err != nil || json.Unmarshal(data, &w) != nil || w.Text == "" {
		return fault.Newf(fault.System, fault.Internal, "talk to the worker", "", "unexpected status %s", resp.Status)
	}
	return w.fault()
}

func (c *Client) unavailable(op string, err error) error {
	remedy := "See why the container \"worker\" of the agent pod does not run (kubectl describe pod, kubectl logs -c worker)"
	if errors.Is(err, fs.ErrPermission) {
		remedy = "Set the pod's fsGroup, so that both containers share the socket's group"
	}
	return fault.Newf(fault.Transient, fault.WorkerUnavailable, op, remedy, "no worker answers at %s within %s: %w", c.socket, c.connect, err)
}

// lost explains an error in the middle of a call.
func (c *Client) lost(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return cancelled(ctx, op)
	}
	return fault.Newf(fault.Transient, fault.WorkerLost, op,
		"Look at the last state of the container \"worker\" (kubectl describe pod): after OOMKilled raise worker.resources.limits.memory. Then retry the run",
		"the worker went away: %w", err)
}

// errSilent is the cause of giving up a worker.
var errSilent = errors.New("it has been silent for too long")

// cancelled explains that ctx ended: with the cause's own fault if it has one.
func cancelled(ctx context.Context, op string) error {
	cause := context.Cause(ctx)
	switch _, isFault := errors.AsType[*fault.Fault](cause); {
	case errors.Is(cause, errSilent):
		return fault.Newf(fault.Transient, fault.WorkerLost, op,
			"Look at the container \"worker\" of the agent pod and at its node. Then retry the run", "the worker hangs: %w", cause)
	case isFault:
		return fmt.Errorf("%s: %w", op, cause)
	case errors.Is(cause, context.DeadlineExceeded):
		return &fault.Fault{Class: fault.Cancelled, Reason: fault.StageTimeout, Op: op, Err: cause}
	}
	return &fault.Fault{Class: fault.Cancelled, Reason: fault.Cancellation, Op: op, Err: cause}
}
