#!/bin/sh
# Builds a root file system of the tests' own once and keeps it in the user's
# cache; prints its path. Daemons (nginx, pcscd, an X server) live there and
# never on the machine itself, where apt would start and enable them.
#
# Use: rootfs.sh bookworm | sid
#   bookworm has all daemons and browsers, and OpenSC 0.23, as Debian 12 has it
#   sid      has OpenSC 0.27 or later, which knows the current Finnish cards, and
#            Node 24, which knows of proxies
#
# The folder's name is a hash of the suite's package list, so a changed list
# makes a new one; older ones are removed.
set -eu
suite="${1:-}"
case "$suite" in
  bookworm) include="nginx-light apache2 haproxy caddy chromium firefox-esr git libnss3-tools ca-certificates python3 libsofthsm2 pinentry-tty pcscd vsmartcard-vpcd opensc opensc-pkcs11 pcsc-tools curl libengine-pkcs11-openssl xvfb openbox xdotool x11-utils x11-apps xfce4-panel dbus dbus-x11 imagemagick libgl1-mesa-dri fonts-dejavu-core procps iproute2 util-linux" ;;
  sid) include="nodejs ca-certificates libsofthsm2 pcscd vsmartcard-vpcd opensc opensc-pkcs11 pcsc-tools procps util-linux" ;;
  *) echo "use: rootfs.sh bookworm | sid" >&2; exit 2 ;;
esac

cache="${XDG_CACHE_HOME:-$HOME/.cache}/kortti"
root="$cache/rootfs-$suite-$(echo "$include" | sha256sum | cut -c1-12)"
if [ ! -e "$root/.complete" ]; then
  if ! command -v mmdebstrap >/dev/null 2>&1; then
    echo "mmdebstrap is missing; 'make test' installs it, or: apt-get install mmdebstrap" >&2
    exit 1
  fi
  mkdir -p "$cache"
  exec 9>"$cache/rootfs-$suite.lock"
  flock 9
  if [ ! -e "$root/.complete" ]; then
    echo "Building the tests' root file system of Debian $suite (once, about a minute): $root" >&2
    for old in "$cache"/rootfs-"$suite"-*; do
      [ ! -d "$old" ] || rm -rf "$old" 2>/dev/null || unshare --map-auto --map-root-user rm -rf "$old"
    done
    log="$cache/rootfs-$suite.log"
    # A mirror that is a copy of some day may be older than its files' validity.
    if ! mmdebstrap --variant=minbase --include="$(echo "$include" | tr ' ' ',')" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
        "$suite" "$root" >"$log" 2>&1 </dev/null; then
      tail -n 20 "$log" >&2
      echo "The root file system could not be built; the whole log is $log" >&2
      exit 1
    fi
    if [ "$(id -u)" -eq 0 ]; then touch "$root/.complete"; else unshare --map-auto --map-root-user touch "$root/.complete"; fi
  fi
fi
echo "$root"
