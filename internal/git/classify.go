package git

import (
	"errors"
	"regexp"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// errUnadvertised is a server that does not serve a commit by its id; other
// ways are tried.
var errUnadvertised = errors.New("the server does not serve commits by their id")

// kind is what a line of git means. Git reports by text alone; every pattern
// has a sample in testdata/messages.
type kind uint8

const (
	other kind = iota
	needsCredentials
	refusedCredentials
	forbidden
	notFound
	unknownCommit
	unadvertised
	unreachable
	stalled
	untrusted
	hostKey
	noSpace
)

type pattern struct {
	kind kind
	text *regexp.Regexp
}

// patterns are tried in order: the first kind that matches any line wins.
//
//nolint:gochecknoglobals // a table
var patterns = []pattern{
	{noSpace, regexp.MustCompile(`(?i)no space left on device|disk quota exceeded`)},
	{hostKey, regexp.MustCompile(`(?i)host key verification failed`)},
	{needsCredentials, regexp.MustCompile(`(?i)could not read (username|password)|terminal prompts disabled`)},
	{refusedCredentials, regexp.MustCompile(`(?i)authentication failed|invalid username or (password|token)|permission denied \(publickey|HTTP Basic: Access denied|returned error: 401`)},
	{forbidden, regexp.MustCompile(`(?i)returned error: 403|access denied|write access to repository not granted|saml sso`)},
	{unknownCommit, regexp.MustCompile(`(?i)not our ref|couldn't find remote ref|no such remote ref`)},
	{unadvertised, regexp.MustCompile(`(?i)server does not allow request for unadvertised object`)},
	{notFound, regexp.MustCompile(`(?i)repository .*not found|repository not found|returned error: 404|does not appear to be a git repository|project you were looking for could not be found`)},
	{untrusted, regexp.MustCompile(`(?i)server certificate verification failed|ssl certificate problem|self[- ]signed certificate|unable to get local issuer`)},
	{stalled, regexp.MustCompile(`(?i)operation too slow|less than \d+ bytes/sec`)},
	{unreachable, regexp.MustCompile(`(?i)could not resolve (host|proxy)|couldn't connect to server|failed to connect|connection (refused|reset|timed out)|` +
		`network is unreachable|no route to host|operation timed out|unexpected disconnect|early eof|the remote end hung up|` +
		`returned error: (429|5\d\d)|rpc failed|empty reply from server|gnutls_handshake|tls connect error|name or service not known|temporary failure in name resolution`)},
}

func kindOf(output string) kind {
	for _, p := range patterns {
		if p.text.MatchString(output) {
			return p.kind
		}
	}
	return other
}

// classify turns what git printed into a fault.
func (c *Client) classify(cmd command, output string) error {
	cause := summary(output)
	f := func(class fault.Class, reason fault.Reason, remedy string) error {
		return fault.Newf(class, reason, cmd.op, remedy, "%s", cause)
	}
	if cmd.remote == nil {
		return f(fault.System, fault.CloneFailed, "")
	}
	switch kindOf(output) {
	case needsCredentials, refusedCredentials, forbidden, notFound, hostKey:
		return c.denied(cmd, kindOf(output), cause)
	case unknownCommit:
		return f(fault.User, fault.CommitUnknown, "Check that the commit was pushed to this repository; a force push removes commits")
	case unadvertised:
		return fault.Newf(fault.User, fault.CommitUnknown, cmd.op, "", "%w", errUnadvertised)
	case untrusted:
		return f(fault.User, fault.RepositoryUnreachable, "Give the certificate authority of the git server to the pipeline's installation")
	case stalled, unreachable:
		return f(fault.Transient, fault.RepositoryUnreachable, "Check that the git server can be reached from the cluster, then retry the run")
	case noSpace:
		return f(fault.System, fault.CloneFailed, "Give the agent pod more ephemeral storage")
	default:
		return f(fault.System, fault.CloneFailed, "")
	}
}

// denied says which Secret to create or to mend.
func (c *Client) denied(cmd command, k kind, cause string) error {
	f := func(remedy, format string, args ...any) error {
		return fault.Newf(fault.User, fault.RepositoryDenied, cmd.op, remedy, format, args...)
	}
	keys := "username and password (or token)"
	if cmd.remote.ssh {
		keys = "ssh-privatekey and known_hosts"
	}
	secret := c.cfg.SecretName
	if secret == "" {
		secret = "the Secret with the pipeline's git credentials"
	} else {
		secret = "Secret " + secret
	}
	have := c.cfg.Credentials != ""
	switch {
	case k == hostKey:
		return f("Put the line of `ssh-keyscan` for the host, checked against the host's published fingerprint, into known_hosts of "+secret,
			"the host key of the server is not known: %s", cause)
	case k == notFound && have:
		return f("Correct the URL, or let the user of "+secret+" read the repository",
			"the repository does not exist or its credentials may not read it: %s", cause)
	case k == notFound:
		return f("Correct the URL, or if the repository is private create "+secret+" with "+keys,
			"the repository does not exist or is private: %s", cause)
	case have:
		return f("Renew "+keys+" in "+secret+", with read access to the repository", "the server refuses the credentials: %s", cause)
	default:
		return f("Create "+secret+" with "+keys, "the server asks for credentials and there are none: %s", cause)
	}
}

// noise are lines that say nothing about the cause.
var noise = regexp.MustCompile(`(?i)^(remote: (enumerating|counting|compressing|total)|receiving objects|resolving deltas|hint:|warning: filtering not recognized|please make sure you have the correct access|and the repository exists)`)

// summary returns the telling lines of git's output as one line: those that
// begin with fatal or error, and what the server said.
func summary(output string) string {
	var lines []string
	for line := range strings.FieldsFuncSeq(output, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimSpace(line)
		if line == "" || noise.MatchString(line) {
			continue
		}
		lower := strings.ToLower(line)
		if strings.HasPrefix(lower, "fatal:") || strings.HasPrefix(lower, "error:") || strings.HasPrefix(lower, "remote:") || strings.HasPrefix(lower, "ssh:") {
			lines = append(lines, strings.TrimSpace(strings.TrimPrefix(line, "fatal:")))
		}
	}
	text := strings.Join(lines, "; ")
	if text == "" {
		text = strings.TrimSpace(output)
	}
	if text == "" {
		return "git failed without a message"
	}
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[:500], "") + "…"
	}
	return text
}
