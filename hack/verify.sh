#!/usr/bin/env bash
# Fails if generated files, module files or formatting are not up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
before=$(git status --porcelain)
hack/generate.sh >/dev/null
go mod tidy -diff
after=$(git status --porcelain)
if [ "$before" != "$after" ]; then
  echo "generated files are not up to date; commit what this changed:"
  git status --short
  exit 1
fi
echo "generated files and go.mod are up to date"
