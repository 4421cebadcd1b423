#!/usr/bin/env bash
# Runs govulncheck. Its database lives on the internet: where that cannot be
# reached the check says so and does not fail, everywhere else findings do.
# Usage: vuln.sh GOVULNCHECK
set -euo pipefail
out=$(mktemp)
trap 'rm -f "$out"' EXIT
if "$1" ./... >"$out" 2>&1; then
  tail -n 3 "$out"
  exit 0
fi
if grep -qE 'fetching vulnerabilities|dial tcp|no such host|vuln\.go\.dev' "$out"; then
  echo "govulncheck: NOT CHECKED, the vulnerability database cannot be reached from here"
  exit 0
fi
cat "$out"
exit 1
