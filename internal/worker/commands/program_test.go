package commands_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
	"github.com/aphex-pipeline/aphex/internal/worker/commands"
)

// Feature: aphex-pipeline, Property 22: Build tool validation
func TestFirstProgram(t *testing.T) {
	t.Parallel()
	tests := []struct{ command, want string }{
		{"npm ci", "npm"},
		{"  npm ci\nyarn build", "npm"},
		{"# comment\nset -eu\nnpm ci", "npm"},
		{"NODE_ENV=production A=b npm ci", "npm"},
		{"cd app && npm ci", "npm"},
		{"npm ci | tee log", "npm"},
		{"(cd app; go test ./...)", "go"},
		{"{ mvn package; }", "mvn"},
		{"time make", "make"},
		{"make &\nwait", "make"},
		{"exec node main.js", "node"},
		{"command go build", "go"},
		{"\"python3\" -m build", "python3"},
		{"'pnpm' i", "pnpm"},
		{"export A=b; cargo build", "cargo"},
		{"[ -f x ]; [[ -f y ]]; ((1)); printf '%s' x; bazel build //...", "bazel"},
		{"/usr/bin/env FOO=1 x", "/usr/bin/env"},
		{"env FOO=1 x", "env"},
		{"f() { npm x; }; gcc y", "gcc"},

		{"set -e && npm ci", "npm"},
		{"export X=1 && npm ci", "npm"},
		{"export X=$(uname) && npm ci", "npm"},
		{"X=1 && npm ci", "npm"},
		{"cd app && export X=1 && npm ci; make", "npm"},
		{"(cd app && : && npm ci)", "npm"},
		{"echo 'registry=x' > .npmrc && npm ci", "npm"},
		{"echo 'registry=x' > ~/.npmrc && npm ci", "npm"},
		{"echo hello >/dev/null 2>&1 && npm ci", "npm"},
		{"umask 022 && shopt -s globstar && npm ci", "npm"},
		{"export X=1 && npm ci || yarn", ""},
		{"! [ -f x ]; npm ci", "npm"},
		{"echo a | read x | npm ci", "npm"},
		{"[ -f x ] | npm ci", "npm"},

		{"", ""},
		{"echo x | time yarn", ""},
		{"echo hello", ""},
		{"command -v yarn >/dev/null && yarn install || npm ci", ""},
		{"[ -f yarn.lock ] && yarn install; npm ci", ""},
		{"[[ -f yarn.lock ]] && yarn", ""},
		{"((CI)) && yarn", ""},
		{"test -f yarn.lock && yarn", ""},
		{"type yarn && yarn", ""},
		{"let X && yarn", ""},
		{"false && yarn; npm ci", ""},
		{"! true && yarn", ""},
		{"! cd app && yarn", ""},
		{"X=$(type -p yarn) && yarn", ""},
		{"X=a Y=\"b$(type -p yarn)\" && yarn", ""},
		{"declare -F yarn && yarn", ""},
		{"shopt -q globstar && yarn", ""},
		{"{ [ -f yarn.lock ]; } && yarn", ""},
		{"([ -f yarn.lock ]) && yarn", ""},
		{"time [ -f yarn.lock ] && yarn", ""},
		{"cd app && [ -f yarn.lock ] && yarn", ""},
		{"cd app && npm ci || yarn", ""},
		{"(cd app && npm ci) || yarn", ""},
		{"if cd app && npm ci; then echo; fi", ""},
		{"while cd app && npm ci; do :; done", ""},
		{"! (cd app && npm ci)", ""},
		{"! grep -q x y", ""},
		{"! grep -q x y; npm ci", ""},
		{"yarn --version || npm i -g yarn", ""},
		{"corepack enable || true", ""},
		{"echo a && npm ci || yarn", ""},
		{"if pytest; then echo ok; fi", ""},
		{"if ! uv --version; then pip install uv; fi", ""},
		{"if echo a && pytest; then echo ok; fi", ""},
		{"while curl x; do sleep 1; done", ""},
		{": < yarn.lock && yarn", ""},
		{": > /dev/tcp/db/5432 && yarn", ""},
		{": > /dev/tcp/$DB/5432 && yarn", ""},
		{"./gradlew build", ""},
		{"node_modules/.bin/tsc", ""},
		{"$TOOL build", ""},
		{"\"$TOOL\" build", ""},
		{"~/bin/x", ""},
		{"export PATH=$HOME/bin:$PATH; mytool", ""},
		{"export \"PATH=$HOME/bin:$PATH\"; mytool", ""},
		{"export A=b 'PATH=/opt/x/bin'\nmytool", ""},
		{"export PATH+=:/opt/x/bin; mytool", ""},
		{"export \"GOPATH=$HOME/go\"; go build", "go"},
		{"PATH=x mytool", ""},
		{". ./env.sh; mytool", ""},
		{"source nvm.sh\nnvm use\nnode x", ""},
		{"eval \"$(direnv hook)\"; x", ""},
		{"f() { npm x; }; f", ""},
		{"command -v pnpm || npm i -g pnpm", ""},
		{"[ -f x ] || npm i", ""},
		{"if [ -f x ]; then npm ci; fi; make", ""},
		{"for i in a b; do npm ci; done", ""},
		{"case x in x) npm;; esac", ""},
		{"exit 0; npm ci", ""},
		{"npm 'unclosed", ""},
		{"if true; then", ""},
	}
	for _, test := range tests {
		t.Run(test.command, func(t *testing.T) {
			t.Parallel()
			got, ok := commands.FirstProgram(test.command)
			require.Equal(t, test.want, got)
			require.Equal(t, test.want != "", ok)
		})
	}
}

// Whatever the text, there is an answer.
func FuzzFirstProgram(f *testing.F) {
	for _, seed := range []string{"[ a ] && b || c", "a > $b && c <<< d", "export -f a && b", "a && b", "f() { x; }; f", "if a; then b; fi", "$(a) `b` ${c}", "x=(1 2); [[ a =~ b ]]", "coproc x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, command string) {
		bounded.Here(t)
		name, ok := commands.FirstProgram(command)
		require.Equal(t, ok, name != "")
	})
}
