package git

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// remote is a checked repository URL.
type remote struct {
	// url is what git gets: no password in it.
	url string
	// shown is what people see.
	shown string
	// scope is scheme://host[:port], what credentials are limited to.
	scope string
	ssh   bool
}

// scpLike is git's short form of an ssh URL, such as git@host:path.
var scpLike = regexp.MustCompile(`^([A-Za-z0-9._-]+@)?([A-Za-z0-9.-]+):([^/@][^@]*)$`)

// remote checks the URL of a repository. URLs come from outside (a webhook, a
// form), so everything that git could take for something else is refused.
func (c *Client) remote(raw string) (remote, error) {
	if err := checkText(raw); err != nil {
		return remote{}, err
	}
	if m := scpLike.FindStringSubmatch(raw); m != nil && !strings.Contains(raw, "://") {
		raw = "ssh://" + m[1] + m[2] + "/" + m[3]
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return remote{}, invalidURL("%q is not a URL", hidePassword(raw))
	}
	if !slices.Contains(c.schemes, u.Scheme) {
		return remote{}, invalidURL("%q has the scheme %q; allowed are %s", hidePassword(raw), u.Scheme, strings.Join(c.schemes, ", "))
	}
	if err := checkParts(u, hidePassword(raw)); err != nil {
		return remote{}, err
	}
	// Git reads the URL anew: it must be the one that was checked.
	if again, err := url.Parse(u.String()); err != nil || again.String() != u.String() || again.Host != u.Host {
		return remote{}, invalidURL("%q is not a URL", hidePassword(raw))
	}
	return remote{url: u.String(), shown: u.String(), scope: u.Scheme + "://" + u.Host, ssh: u.Scheme == "ssh"}, nil
}

const opURL = "check the repository URL"

func invalidURL(format string, args ...any) error {
	return fault.Newf(fault.User, fault.RepositoryInvalid, opURL,
		"Give it as https://host/path or ssh://git@host/path, without credentials", format, args...)
}

// checkText refuses what need not even be parsed.
func checkText(raw string) error {
	switch {
	case raw == "":
		return invalidURL("it is empty")
	case strings.Contains(raw, "{{"):
		return fault.Newf(fault.User, fault.RepositoryInvalid, opURL,
			"Argo Events does not fill in such tags; pass repo-url with a trigger parameter (dataKey: body.repository.clone_url)",
			"%q is a template tag that nothing has filled in", hidePassword(raw))
	case strings.ContainsFunc(raw, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		return invalidURL("%q contains white space or control characters", hidePassword(raw))
	case strings.HasPrefix(raw, "-"):
		return invalidURL("%q begins with a hyphen", hidePassword(raw))
	case transportHelper.MatchString(raw):
		return invalidURL("%q names a transport helper, which is not allowed", hidePassword(raw))
	}
	return nil
}

// checkParts checks user, host and path of a URL; shown is what messages may
// show of it.
func checkParts(u *url.URL, shown string) error {
	if _, has := u.User.Password(); has || u.User != nil && u.Scheme != "ssh" {
		return fault.Newf(fault.User, fault.RepositoryInvalid, opURL,
			"Remove them and create a Secret with username and password for the pipeline instead; treat these as leaked",
			"%q contains credentials", shown)
	}
	if u.Scheme != "file" && (u.Hostname() == "" || strings.HasPrefix(u.Host, "-") || strings.Contains(u.Host, "%")) || strings.HasPrefix(u.User.Username(), "-") {
		return invalidURL("%q has no usable host", shown)
	}
	if strings.Trim(u.Path, "/") == "" || strings.HasPrefix(u.Path, "/-") && u.Scheme == "ssh" {
		return invalidURL("%q names no repository", shown)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return invalidURL("%q has a query or a fragment", shown)
	}
	return nil
}

// hidePassword cuts everything that may be a credential out of text that need
// not be a URL.
func hidePassword(raw string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		scheme, rest = "", raw
	}
	authority, path, slash := strings.Cut(rest, "/")
	if at := strings.LastIndex(authority, "@"); at >= 0 && strings.Contains(authority[:at], ":") || found && scheme != "ssh" && strings.Contains(authority, "@") {
		authority = "[REDACTED]" + authority[strings.LastIndex(authority, "@"):]
	}
	path, _, _ = strings.Cut(path, "?")
	if found {
		authority = scheme + "://" + authority
	}
	if slash {
		authority += "/" + path
	}
	return authority
}

// transportHelper is git's syntax for running a program as a transport.
var transportHelper = regexp.MustCompile(`^[A-Za-z0-9_-]*::`)

var commitID = regexp.MustCompile(`^[0-9a-f]{40}$`)

// CheckCommit returns an error unless commit is a full commit id: 40
// hexadecimal digits in lower case.
//
// Errors: CommitInvalid.
func CheckCommit(commit string) error {
	if commitID.MatchString(commit) && strings.Trim(commit, "0") != "" {
		return nil
	}
	remedy := "Give the full id, 40 hexadecimal digits in lower case, as `git rev-parse HEAD` prints it"
	switch {
	case strings.Contains(commit, "{{"):
		remedy = "Argo Events does not fill in such tags; pass commit-sha with a trigger parameter (dataKey: body.after), " +
			"as in the Sensor that aphex generates"
	case commit != "" && strings.Trim(commit, "0") == "" && len(commit) == 40:
		remedy = "GitHub sends it when a branch is deleted; filter such events in the Sensor, as the one that aphex generates does"
	}
	if len(commit) > 80 {
		commit = commit[:80] + "…"
	}
	return fault.Newf(fault.User, fault.CommitInvalid, "check the commit", remedy, "%q is not a commit id", commit)
}

// branchName is the safe part of what git allows.
var branchName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+@#=-]*$`)

// validBranch reports whether name can be used as a branch. Git's own further
// rules are checked too: no "..", "@{", "//", no part ending in ".lock" or
// beginning with a dot, no end in "." or "/".
func validBranch(name string) bool {
	if len(name) > 200 || !branchName.MatchString(name) || strings.Contains(name, "..") || strings.HasSuffix(name, ".") {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return name != "@"
}
