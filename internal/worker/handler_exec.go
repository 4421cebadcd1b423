package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/process"
)

const (
	// scriptsDir holds the scripts of running commands, below the root.
	scriptsDir = ".aphex"
	// writeLimit is how long one frame may wait for the client. A sidecar
	// whose log sink is slow needs seconds; one that hangs never ends.
	writeLimit = 5 * time.Minute
)

// errStopped is the cause of a command ended by the client.
var errStopped = errors.New("ended by the sidecar")

// prepared is a command ready to start.
type prepared struct {
	process.Command
	script *script
	env    map[string]string
	dir    string // as asked for
}

// exec runs a command. The reply is a stream of frames; everything that goes
// wrong before the command runs is an ordinary refusal. The exit is sent when
// all is cleaned up, so that the next call finds a worker as before.
func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	var req execRequest
	if !decode(w, r, &req) {
		return
	}
	frames := &frameWriter{w: w, control: http.NewResponseController(w)}
	message, err := s.run(r.Context(), &req, frames)
	s.restoreSocket(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	_ = frames.send(frameExit, mustJSON(message))
}

// run runs a command to its end. An error means that it did not start.
func (s *server) run(ctx context.Context, req *execRequest, frames *frameWriter) (*exitMessage, error) {
	if err := s.awaitAbandoned(ctx); err != nil {
		return nil, err
	}
	client := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := s.register(req.ID, &running{cancel: cancel, abandoned: client.Done(), ended: make(chan struct{})}); err != nil {
		return nil, err
	}
	defer s.unregister(req.ID)
	cmd, err := s.prepare(req)
	if err != nil {
		return nil, err
	}
	if cmd.script != nil {
		defer cmd.script.remove()
	}
	cmd.Output = frames
	// Without its sidecar a command must not live on: it shares the pod's
	// loopback addresses, where the next one is waited for.
	hurry, forget := hungUp(client)
	defer forget()
	cmd.Hurry = hurry
	cmd.Sweep = func() string { return s.family.sweep(req.ID) }
	p, self, err := s.family.start(req.ID, func() (*process.Process, error) { return process.Start(ctx, cmd.Command) })
	if err != nil {
		return nil, startError(cmd, err)
	}
	defer s.family.forget(self)
	stop := frames.beat(s.cfg.Heartbeat)
	exit, err := p.Wait()
	stop()
	s.log.DebugContext(ctx, "command ended", "command", cmd.Name, "code", exit.Code, "duration_ms", exit.Duration.Milliseconds())
	return s.exitMessage(cmd, exit, err), nil
}

// hungUp is closed once the client is gone. When the worker itself is shut down
// it stays open, since commands have their grace then.
func hungUp(client context.Context) (gone <-chan struct{}, forget func() bool) {
	closed := make(chan struct{})
	return closed, context.AfterFunc(client, func() {
		if !errors.Is(context.Cause(client), errShutdown) {
			close(closed)
		}
	})
}

// register makes a command known under its id, for cancel.
func (s *server) register(id string, command *running) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.execs[id]; taken || id == "" || strings.ContainsAny(id, "=\x00") {
		return fault.Newf(fault.System, fault.BadRequest, "start command", "", "id %q is not usable or in use", id)
	}
	if len(s.execs) >= maxExecs {
		return fault.Newf(fault.Transient, fault.BadRequest, "start command", "", "%d commands are running, no more are allowed at once", maxExecs)
	}
	s.execs[id] = command
	return nil
}

func (s *server) unregister(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.execs[id].ended)
	delete(s.execs, id)
}

// awaitAbandoned waits for the end of the commands whose client has hung up. A
// sidecar that was killed begins its stage anew once it is back: what it had
// started must not be at work beside that, in the same folders.
func (s *server) awaitAbandoned(ctx context.Context) error {
	s.mu.Lock()
	var ending []*running
	for _, command := range s.execs {
		select {
		case <-command.abandoned:
			ending = append(ending, command)
		default:
		}
	}
	s.mu.Unlock()
	for _, command := range ending {
		select {
		case <-command.ended:
		case <-ctx.Done():
			return fault.Wrap(fault.Cancelled, fault.Cancellation, "wait for a command of an earlier sidecar", "", context.Cause(ctx))
		}
	}
	return nil
}

// cancel ends a command. The exit is reported to the request that started it.
func (s *server) cancel(w http.ResponseWriter, r *http.Request) {
	var req cancelRequest
	if !decode(w, r, &req) {
		return
	}
	s.mu.Lock()
	command, ok := s.execs[req.ID]
	s.mu.Unlock()
	if !ok {
		refuse(w, fault.Newf(fault.System, fault.BadRequest, "cancel command", "", "no command %q is running", req.ID))
		return
	}
	command.cancel(errStopped)
	reply(w, struct{}{})
}

// prepare finds program, folder and environment of a command.
func (s *server) prepare(req *execRequest) (*prepared, error) {
	cmd := &prepared{dir: string(req.Dir), env: commandEnv(s.base, toStrings(req.Env), req.Exact)}
	if err := checkRequest(req, cmd.env); err != nil {
		return nil, &fault.Fault{Class: fault.System, Reason: fault.BadRequest, Op: "start command", Err: err}
	}
	name, args := "bash", []string(nil)
	if len(req.Script) == 0 {
		argv := fromPaths(req.Argv)
		name, args = argv[0], argv[1:]
	}
	dir := s.dir(cmd.dir)
	path, err := lookPath(name, cmd.env["PATH"], dir)
	if err != nil {
		return nil, toolMissing(name, err)
	}
	if len(req.Script) > 0 {
		cmd.script, err = newScript(filepath.Join(s.cfg.Root, scriptsDir), path, string(req.Script))
		if err != nil {
			return nil, &fault.Fault{
				Class: fault.System, Reason: fault.WorkspaceFailed, Op: "store the command's script", Err: err,
				Remedy: "Check that the workspace volume is writable and not full",
			}
		}
		args = cmd.script.args()
	}
	grace := req.Grace
	if grace <= 0 {
		grace = s.cfg.Grace
	}
	cmd.Command = process.Command{
		Name: filepath.Base(name), Path: path, Args: args, Dir: dir, Env: environList(cmd.env, req.ID, dir), Grace: grace,
	}
	return cmd, nil
}

func checkRequest(req *execRequest, env map[string]string) error {
	if (len(req.Script) == 0) == (len(req.Argv) == 0) {
		return errors.New("exactly one of a script and arguments is needed")
	}
	if strings.Contains(string(req.Script), "\x00") {
		return errors.New("the script holds a NUL byte")
	}
	for _, arg := range append(fromPaths(req.Argv), string(req.Dir)) {
		if strings.Contains(arg, "\x00") {
			return errors.New("an argument or the folder holds a NUL byte")
		}
	}
	if len(req.Argv) > 0 && len(req.Argv[0]) == 0 {
		return errors.New("the program has no name")
	}
	for key, value := range env {
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.Contains(value, "\x00") {
			return fmt.Errorf("environment variable %q has a name or value that cannot be passed on", key)
		}
	}
	return nil
}

// dir makes a command's folder absolute.
func (s *server) dir(dir string) string {
	if filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	return filepath.Join(s.cfg.Root, dir)
}

// relative is dir's opposite.
func (s *server) relative(dir string) string {
	if dir == s.cfg.Root {
		return ""
	}
	if rest, ok := strings.CutPrefix(dir, s.cfg.Root+"/"); ok {
		return rest
	}
	return dir
}

// exitMessage says how a command ended and what the next one takes over.
func (s *server) exitMessage(cmd *prepared, exit process.Exit, err error) *exitMessage {
	m := &exitMessage{Code: exit.Code, Signal: exit.Signal, Duration: exit.Duration, Warning: exit.Warning}
	if _, ok := errors.AsType[*process.ExitError](err); err != nil && !ok && !errors.Is(err, errStopped) {
		if errors.Is(err, errShutdown) {
			err = fault.Newf(fault.Transient, fault.WorkerLost, "run "+cmd.Name, "Retry the run", "%w", errShutdown)
		}
		m.Error = toWire(err)
	}
	if cmd.script == nil {
		return m
	}
	dir, env, ok := cmd.script.state()
	if ok {
		m.Dir, m.Env = pathBytes(s.relative(dir)), toBytes(env)
		return m
	}
	m.Dir, m.Env = pathBytes(cmd.dir), toBytes(cmd.env)
	if exit.Code == 0 && m.Warning == "" {
		m.Warning = "folder and variables at its end are unknown (did it replace its shell with exec?); the next command starts where this one did"
	}
	return m
}

// startError explains why a command could not start.
func startError(cmd *prepared, err error) error {
	switch {
	case errors.Is(err, process.ErrDir):
		where := cmd.dir
		if where == "" {
			where = "."
		}
		return fault.Newf(fault.User, fault.DirectoryMissing, "run "+cmd.Name,
			"Check the path, and whether an earlier command removed it", "the folder %s does not exist in the workspace: %w", where, fs.ErrNotExist)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return toolMissing(cmd.Name, err)
	}
	return &fault.Fault{Class: fault.User, Reason: fault.CommandFailed, Op: "run " + cmd.Name, Err: err}
}

func toolMissing(name string, err error) error {
	remedy := "Use a worker image that has " + name + " in its PATH (worker.image of the configuration)"
	if name == "bash" {
		remedy = "Use a worker image with bash (worker.image of the configuration): every image for commands needs it"
	}
	return fault.Newf(fault.User, fault.ToolMissing, "run "+name, remedy, "the worker image has no program %s: %w", name, err)
}

// lookPath finds a program as execvp does: a name with a slash is a file,
// relative to dir; any other is looked up in path.
func lookPath(name, path, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	for _, folder := range filepath.SplitList(path) {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(dir, folder)
		}
		if file := filepath.Join(folder, name); executable(file) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("not in PATH %s: %w", path, fs.ErrNotExist)
}

func executable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return &fs.PathError{Op: "run", Path: file, Err: fs.ErrPermission}
	}
	return nil
}

// frameWriter sends frames; as an io.Writer, output frames.
type frameWriter struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
	err     error
}

// Write sends p as output.
func (f *frameWriter) Write(p []byte) (int, error) {
	if err := f.send(frameOutput, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *frameWriter) send(kind byte, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	_ = f.control.SetWriteDeadline(time.Now().Add(writeLimit))
	if f.err = writeFrame(f.w, kind, payload); f.err == nil {
		f.err = f.control.Flush()
	}
	return f.err
}

// beat sends heartbeats, the first at once, until stop is called.
func (f *frameWriter) beat(every time.Duration) (stop func()) {
	_ = f.send(frameHeartbeat, nil)
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = f.send(frameHeartbeat, nil)
			}
		}
	})
	return func() { close(done); group.Wait() }
}
