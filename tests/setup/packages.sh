#!/bin/sh
# Installs the Debian packages that a make target needs; says first what and
# why. Only libraries and harmless tools go onto the machine itself: daemons
# live in the tests' own root file system (rootfs.sh).
#
# Use: packages.sh demo | test
set -eu

case "${1:-}" in
  demo) why="to build the programs (C compiler) and to run the demo (SoftHSM test cards, curl)"
        want="gcc libc6-dev libsofthsm2 curl ca-certificates" ;;
  test) why="to build and test everything (C compiler, X11 and GL headers for the tray, SoftHSM test cards, certutil, pinentry, mmdebstrap for the tests' own root file system)"
        want="gcc libc6-dev libsofthsm2 curl ca-certificates openssl git
              pkg-config libgl-dev libgles-dev libx11-dev libxcursor-dev libxrandr-dev
              libxinerama-dev libxi-dev libxxf86vm-dev libgl1-mesa-dri libegl1
              libpcsclite1 mmdebstrap util-linux iproute2 uidmap libnss3-tools pinentry-curses" ;;
  *) echo "use: packages.sh demo | test" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
  if [ "$1" = demo ] && command -v cc >/dev/null 2>&1 && command -v curl >/dev/null 2>&1; then
    exit 0 # another system that has the tools; a missing SoftHSM is named by the demo itself
  fi
  echo "Packages are needed $why," >&2
  echo "but this machine has no apt-get to install them with. Install what Debian calls:" >&2
  # shellcheck disable=SC2086
  echo " " $want >&2
  exit 1
fi

missing=""
for p in $want; do
  dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

sudo=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "Packages are needed $why," >&2
    echo "but you are not root and there is no sudo. Have them installed:" >&2
    echo "  apt-get install$missing" >&2
    exit 1
  fi
  sudo="sudo"
fi
echo "Installing packages $why:"
echo " $missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 "$@"; }
# A source that cannot be updated need not be the one that the packages are in.
# shellcheck disable=SC2086
if ! { apt update; apt install --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "The packages could not be installed. The lines above say why; then run the same command again." >&2
  exit 1
fi
