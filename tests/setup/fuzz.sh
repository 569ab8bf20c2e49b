#!/bin/sh
# Runs every fuzz target of the module for an equal share of some seconds.
#
# Use: fuzz.sh SECONDS
set -eu
total=${1:?use: fuzz.sh SECONDS}
cd "$(dirname "$0")/../.."

targets=$(grep -rhoE --include='*_test.go' --with-filename '^func Fuzz[A-Za-z0-9_]*' . |
  sed -E 's|^\./(.*)/[^/]*_test\.go:func (Fuzz.*)$|\1 \2|' | sort -u)
count=$(printf '%s\n' "$targets" | grep -c .)
[ "$count" -gt 0 ] || { echo "no fuzz target was found" >&2; exit 1; }
share=$((total / count))
[ "$share" -ge 1 ] || share=1
echo "fuzz: $count targets, ${share}s each"
printf '%s\n' "$targets" | while read -r dir name; do
  if ! out=$(go test -run '^$' -fuzz "^$name\$" -fuzztime "${share}s" -fuzzminimizetime 10x "./$dir" 2>&1); then
    # Go's fuzzer now and then reports the end of its own time as a failure;
    # a real one has an input that it writes down, or says something else.
    case "$out" in
      *"Failing input written"*) ;;
      *"context deadline exceeded"*) out=ended ;;
    esac
    [ "$out" != ended ] || { printf 'fuzz: %-24s %s\n' "$dir" "$name"; continue; }
    printf '%s\n' "$out"
    echo "fuzz: $dir $name failed; the input that did it is kept under $dir/testdata/fuzz" >&2
    exit 1
  fi
  printf 'fuzz: %-24s %-28s %s\n' "$dir" "$name" "$(printf '%s\n' "$out" | grep -oE 'execs: [0-9]+' | tail -n 1)"
done
