package worker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// wrapper surrounds the user's text. The text itself is read from a file and
// never becomes part of it; the three words filled in are paths of our own,
// quoted. Everything before eval stands on one line, so that bash counts the
// user's lines from 1.
//
// The state is written once, at whichever end comes first: after the text, in
// the exit function (a trap on EXIT set by the user replaces ours), or in the
// trap (a bare `set -e` end). A second bash does it, since /proc shows exactly
// what is exported, functions included, whatever the values contain.
// Its -p keeps BASH_ENV from being read. In POSIX mode exit cannot be a
// function; there only the combination of exit and an own trap is missed.
// Tracing is switched off where it would show our lines.
const wrapper = `__aphex_end() { { builtin pwd && builtin printf '\0' && %[1]s -p -c 'while IFS= read -r -d "" v; do printf "%%s\0" "$v"; done </proc/self/environ'; } >|%[2]s 2>/dev/null || :; __aphex_end() { :; }; }; ` +
	`[[ -o posix ]] || exit() { { builtin set -- "${1-$?}"; builtin set +x; } 2>/dev/null; [[ $BASHPID != "$$" ]] || __aphex_end; builtin exit "$1"; }; ` +
	`trap '{ set +x; } 2>/dev/null; __aphex_end' EXIT; eval "$(<%[3]s)"
{ builtin set -- "$?"; builtin set +x; } 2>/dev/null; __aphex_end; builtin exit "$1"
`

// script is a Script on disk: a private folder with the text and the state.
type script struct {
	dir  string
	bash string
}

// newScript stores text below folder, in a folder of its own.
func newScript(folder, bash, text string) (*script, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(folder, "command-")
	if err != nil {
		return nil, err
	}
	s := &script{dir: dir, bash: bash}
	if err := os.WriteFile(s.file("text"), []byte(text), 0o600); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *script) file(name string) string { return filepath.Join(s.dir, name) }

func (s *script) remove() { _ = os.RemoveAll(s.dir) }

// args are bash's arguments.
func (s *script) args() []string {
	text := fmt.Sprintf(wrapper, quote(s.bash), quote(s.file("state")), quote(s.file("text")))
	return []string{"-eo", "pipefail", "-c", text, "bash"}
}

// state returns where the script ended and what it had exported. ok is false
// if it did not get to say.
func (s *script) state() (dir string, env map[string]string, ok bool) {
	data, err := os.ReadFile(s.file("state"))
	if err != nil {
		return "", nil, false
	}
	where, block, ok := bytes.Cut(data, []byte("\n\x00"))
	if !ok || len(block) == 0 {
		return "", nil, false
	}
	return string(where), carried(strings.Split(strings.TrimSuffix(string(block), "\x00"), "\x00")), true
}

// quote makes one shell word of a path.
func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }
