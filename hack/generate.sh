#!/usr/bin/env bash
# Writes every generated file of the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
go test ./internal/fault -run TestReasons_AreDocumented -update
go test ./tasks/workflow ./manifests -update
go run ./hack/properties -write
