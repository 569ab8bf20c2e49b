#!/bin/sh
# Checks that Go is here and new enough, and says what to do when it is not.
# go.mod is the one place that names the version.
set -eu
cd "$(dirname "$0")/../.."
need=$(awk '$1 == "go" { split($2, v, "."); print v[1] "." v[2]; exit }' go.mod)
if ! command -v go >/dev/null 2>&1; then
  echo "Kortti needs Go $need or newer, and no 'go' was found." >&2
  echo "Install it from https://go.dev/dl and put its bin folder on PATH." >&2
  exit 1
fi
# GOTOOLCHAIN=local: we ask what is installed, not what could be downloaded; and
# not in this folder, since some versions refuse a newer go.mod before they answer.
have=$(cd / && GOTOOLCHAIN=local go version 2>/dev/null | awk '{ print $3 }')
have=${have#go}
if [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" != "$need" ]; then
  echo "Kortti needs Go $need or newer, and this machine has Go ${have:-of an unknown version} ($(command -v go))." >&2
  echo "Install a newer one from https://go.dev/dl and put its bin folder first on PATH." >&2
  exit 1
fi
