package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/process"
)

// A transfer without a byte per second for two minutes is dead. Servers that
// compute send progress or at least five bytes every five seconds, so only the
// silent ones are meant. There is no limit on the whole, since repositories
// have any size.
const (
	stallBytes = 1
	stallTime  = 2 * time.Minute
)

// defaultPath is where programs are looked for, in our image and elsewhere.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// outputLimit bounds what is kept of git's short answers.
const outputLimit = 4 << 20

// Config says how git is run. Home is required.
type Config struct {
	// Home is a private directory; git gets it as HOME. It is created.
	Home string
	// Credentials is the directory of a mounted Secret. With files username
	// and password they are used for http and https, with ssh-privatekey and
	// known_hosts for ssh. Files are read when git asks, so a rotated Secret
	// takes effect. Empty means anonymous access.
	Credentials string
	// SecretName is what messages call the Secret; empty means a description.
	SecretName string
	// Path is PATH for git and what it starts; empty means the usual places.
	Path string
	// AllowFile permits file:// URLs, for tests and local use.
	AllowFile bool
	// StallTime ends a transfer that is silent for so long; zero means two
	// minutes.
	StallTime time.Duration
	// CACertificate is a file of additional certificate authorities for https;
	// empty means the system's.
	CACertificate string
	// Grace is the time git gets to end after SIGTERM; zero means the default
	// of internal/process.
	Grace time.Duration
}

// Client runs git. It is safe for concurrent use on different directories.
type Client struct {
	cfg     Config
	program string
	schemes []string
}

// New returns a Client, once git was found and Home exists.
func New(cfg Config) (*Client, error) {
	if cfg.Path == "" {
		cfg.Path = defaultPath
	}
	if cfg.StallTime == 0 {
		cfg.StallTime = stallTime
	}
	program, err := lookPath("git", cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Home, 0o700); err != nil {
		return nil, fmt.Errorf("make a home for git: %w", err)
	}
	schemes := []string{"https", "http", "ssh"}
	if cfg.AllowFile {
		schemes = append(schemes, "file")
	}
	return &Client{cfg: cfg, program: program, schemes: schemes}, nil
}

func lookPath(name, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return found, nil
		}
	}
	return "", fault.Newf(fault.System, fault.CloneFailed, "start git",
		"Use the plugin image as it is published; it contains git", "no program %s in %s", name, path)
}

// command is one run of git.
type command struct {
	op     string // for messages
	dir    string // working directory
	args   []string
	env    []string
	remote *remote  // set if it may talk to the server
	stdin  *os.File // nil: empty
	stdout io.Writer
}

// run runs git and classifies its failure.
func (c *Client) run(ctx context.Context, cmd command) error {
	exit, err := process.Run(ctx, process.Command{
		Name: "git", Path: c.program, Args: cmd.args, Dir: cmd.dir,
		Env: slices.Concat(c.environment(cmd.remote), cmd.env), Stdin: cmd.stdin, Stdout: cmd.stdout, Grace: c.cfg.Grace,
	})
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return awserr.Ended(ctx, cmd.op)
	}
	if _, ok := errors.AsType[*process.ExitError](err); !ok {
		return fault.Wrap(fault.System, fault.CloneFailed, cmd.op, "", err)
	}
	return c.classify(cmd, string(exit.Tail))
}

// output runs git and returns its standard output.
func (c *Client) output(ctx context.Context, cmd command) (string, error) {
	var out bytes.Buffer
	cmd.stdout = &limitedWriter{w: &out, left: outputLimit}
	if err := c.run(ctx, cmd); err != nil {
		return "", err
	}
	return out.String(), nil
}

type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("git wrote more than expected")
	}
	return l.w.Write(p)
}

// environment is everything git gets from us; nothing is inherited.
func (c *Client) environment(r *remote) []string {
	env := []string{
		"PATH=" + c.cfg.Path,
		"HOME=" + c.cfg.Home,
		"XDG_CONFIG_HOME=" + filepath.Join(c.cfg.Home, "none"),
		"LANG=C", "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0",
		"GIT_LITERAL_PATHSPECS=1",
		"GIT_OPTIONAL_LOCKS=0",
		"GIT_ADVICE=0",
	}
	settings := [][2]string{
		{"core.hooksPath", "/dev/null"},
		{"core.fsmonitor", "false"},
		{"core.askPass", ""},
		{"credential.helper", ""},
		{"gc.auto", "0"},
		{"maintenance.auto", "false"},
		{"protocol.version", "2"},
		{"safe.bareRepository", "all"},
		{"advice.detachedHead", "false"},
		{"fetch.writeCommitGraph", "false"},
		{"transfer.credentialsInUrl", "die"},
		{"http.lowSpeedLimit", strconv.Itoa(stallBytes)},
		{"http.lowSpeedTime", strconv.Itoa(max(1, int(c.cfg.StallTime.Seconds())))},
	}
	if c.cfg.CACertificate != "" {
		settings = append(settings, [2]string{"http.sslCAInfo", c.cfg.CACertificate})
	}
	// Commands that have no business with the server must not fetch a missing
	// object from it on the sly.
	protocols := "none"
	if r != nil {
		protocols = strings.Join(c.schemes, ":")
		more, extra := c.access(*r)
		settings = append(settings, more...)
		env = append(env, extra...)
	}
	env = append(env, "GIT_ALLOW_PROTOCOL="+protocols)
	env = append(env, "GIT_CONFIG_COUNT="+strconv.Itoa(len(settings)))
	for i, setting := range settings {
		n := strconv.Itoa(i)
		env = append(env, "GIT_CONFIG_KEY_"+n+"="+setting[0], "GIT_CONFIG_VALUE_"+n+"="+setting[1])
	}
	return env
}

// helper is a credential helper that prints the mounted Secret. Git runs it
// through the shell; the values go from the file through a pipe to git and
// appear nowhere else. What a server asks to have stored or erased is ignored.
const helper = `!f() { [ "$1" = get ] || exit 0; ` +
	`printf 'username=%s\n' "$(tr -d '\r\n' < "$APHEX_GIT_CREDENTIALS/username")"; ` +
	`printf 'password=%s\n' "$(tr -d '\r\n' < "$APHEX_GIT_CREDENTIALS/password")"; }; f`

// access returns what lets git in at the remote's host, and there only: after
// a redirection to another host git asks for that one's credentials and
// finds none.
func (c *Client) access(r remote) (settings [][2]string, env []string) {
	dir := c.cfg.Credentials
	if r.ssh {
		return nil, []string{"GIT_SSH_VARIANT=ssh", "GIT_SSH_COMMAND=" + sshCommand(dir)}
	}
	if dir == "" || !strings.HasPrefix(r.scope, "http") {
		return nil, nil
	}
	return [][2]string{{"credential." + r.scope + ".helper", helper}}, []string{"APHEX_GIT_CREDENTIALS=" + dir}
}

func sshCommand(dir string) string {
	options := "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes" +
		" -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -o ForwardAgent=no"
	if dir == "" {
		return options
	}
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	return options + " -i " + quote(filepath.Join(dir, "ssh-privatekey")) +
		" -o " + quote("UserKnownHostsFile="+filepath.Join(dir, "known_hosts"))
}
