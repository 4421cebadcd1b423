#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZ_TIME (60s), FUZZ_JOBS (2) at a
# time, and prints a line for each. An input that fails is left in the package's
# testdata/fuzz, where `go test` runs it from then on.
#
# `go test -fuzz` would instrument all that a package links, the AWS SDK and the
# Kubernetes client included: minutes of compiling for inputs that exercise
# those. So the test programs are made here, with our own packages (and the
# parser of shell commands) instrumented alone, and are started as `go test`
# does it.
set -uo pipefail
cd "$(dirname "$0")/.."
fuzz_time=${FUZZ_TIME:-60s}
jobs=${FUZZ_JOBS:-2}
only=${FUZZ_ONLY:-.} # a pattern of "<import path> <folder> <target>"
module=$(go list -m)
cache=$(go env GOCACHE)/fuzz
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

instrument=()
for package in "$module/..." mvdan.cc/sh/v3/syntax; do
  instrument+=("-gcflags=$package=-d=libfuzzer")
done

# targets prints "<import path> <folder> <target>" for each target.
targets() {
  go list -f '{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}} {{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}} {{.}}{{"\n"}}{{end}}' ./... |
    while read -r package dir file; do
      [ -n "$package" ] || continue
      sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir/$file" | while read -r target; do echo "$package $dir $target"; done
    done | grep -E -- "$only" | sort
}

# deadline: Go ends a target now and then with this as its only message when its
# time is over (golang/go#75804, mended in Go 1.27). It is no finding.
deadline() { # log
  [ "$(sed -n '/^--- FAIL: /,/^FAIL$/p' "$1" | sed '1d;$d')" = "    context deadline exceeded" ]
}

once() { # package dir target log
  (
    cd "$2" && exec "$work/$(basename "$1").test" -test.run '^$' -test.fuzz "^$3\$" -test.fuzztime "$fuzz_time" -test.parallel 1 \
      -test.fuzzminimizetime 100x -test.fuzzcachedir "$cache/$1" -test.timeout 0
  ) >"$4" 2>&1
}

# run runs a target and leaves its line in a file; a failure's log is printed.
run() { # package dir target
  local name=${1#"$module/"} log="$work/$(echo "$1/$3" | tr / .).log" began=$SECONDS verdict=ok note=
  if ! once "$1" "$2" "$3" "$log"; then
    verdict=FAIL
    if deadline "$log"; then
      note=", again after \"context deadline exceeded\""
      once "$1" "$2" "$3" "$log" && verdict=ok
    fi
  fi
  local input figures
  figures=$(sed -n 's/^fuzz: elapsed: [^,]*, execs: \([0-9]*\) .*new interesting: \([0-9]*\).*/\1 executions, \2 new interesting/p' "$log" | tail -n 1)
  input=$(sed -n 's/^ *Failing input written to //p' "$log" | tail -n 1)
  [ "$verdict" = ok ] || note="$note${input:+, failing input: $name/$input}"
  printf '%s\tfuzz %s %s: %s, %d s%s\n' "$verdict" "$name" "$3" "${figures:-no executions}" $((SECONDS - began)) "$note" | tee "$log.line"
  [ "$verdict" = ok ] || sed 's/^/    /' "$log" | tail -n 60
}

targets >"$work/targets"
[ -s "$work/targets" ] || { echo "no fuzz targets found" >&2; exit 1; }
mapfile -t packages < <(cut -d' ' -f1 "$work/targets" | uniq)
began=$SECONDS
go test -c "${instrument[@]}" -o "$work/" "${packages[@]}" || exit 1
echo "compiled ${#packages[@]} packages in $((SECONDS - began)) s; $(wc -l <"$work/targets") targets, $fuzz_time each, $jobs at a time"
while read -r package dir target; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  run "$package" "$dir" "$target" &
done <"$work/targets"
wait
! grep -hq '^FAIL' "$work"/*.line
