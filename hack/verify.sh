#!/usr/bin/env bash
# Fails if generated files, the module files or the stored mutants are not up to
# date.
set -euo pipefail
cd "$(dirname "$0")/.."
state() {
  git ls-files -z --cached --others --exclude-standard -- docs/reasons.md docs/spec/properties.md manifests tasks/workflow | xargs -0 sha256sum
}
before=$(state)
hack/generate.sh >/dev/null
after=$(state)
if [ "$before" != "$after" ]; then
  echo "generated files were not up to date; commit what has changed now:"
  diff <(echo "$before") <(echo "$after") | awk '/^>/ {print "  " $3}'
  exit 1
fi
go mod tidy -diff
go run ./hack/mutants -check >/dev/null
echo "generated files, go.mod and mutants are up to date"
