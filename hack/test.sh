#!/usr/bin/env bash
# Runs every test: first those that need nothing, then the end-to-end ones on a
# real cluster. Prints the time of each phase, then the runners' closing lines.
set -uo pipefail
cd "$(dirname "$0")/.."
lines=$(mktemp)
times=$(mktemp)
details=$(mktemp)
trap 'rm -f "$lines" "$times" "$details"' EXIT
status=0

phase() { # name command...
  local name=$1 began=$SECONDS out
  shift
  out=$(mktemp)
  echo "== $name"
  "$@" 2>&1 | tee "$out"
  [ "${PIPESTATUS[0]}" -eq 0 ] || { status=1; echo "== $name FAILED"; }
  # Compiling runs no test, so its lines are none of the closing ones.
  [ "$name" = compile ] || grep -E '^(ok|FAIL|---|panic:)|^ +--- FAIL' "$out" >>"$lines"
  # What an assertion said; in a long log it is far from the name of its test.
  grep -E -A 16 '^\s+Error Trace:' "$out" | cut -c 1-500 | head -n 200 >>"$details"
  rm -f "$out"
  printf '%-12s %5d s\n' "$name" $((SECONDS - began)) >>"$times"
}

unit=(./cmd/... ./internal/... ./plugin/... ./tasks/... ./manifests/... ./hack/... ./e2e/conformance)
phase compile go test -race -run '^$' -exec true "${unit[@]}"
phase unit go test -race -shuffle=on "${unit[@]}"
phase mutants go run ./hack/mutants -some 3
phase fuzz hack/fuzz.sh
if [ "$status" -eq 0 ]; then
  export APHEX_REQUIRE=cluster,emulator,images
  phase e2e-parts go test -count=1 -p 1 -timeout 40m $(go list ./e2e/... | grep -v -e '/e2e$' -e '/e2e/conformance$')
  phase e2e go test -count=1 -parallel 3 -timeout 75m -v ./e2e/
fi

if [ -s "$details" ]; then
  echo
  echo "what failed:"
  cat "$details"
fi
echo
echo "time per phase:"
cat "$times"
echo
cat "$lines"
exit "$status"
