#!/bin/sh
# Builds the tests' own root file system once and keeps it in the user's cache;
# prints its path. Daemons (nginx, pcscd, an X server) live there and never on
# the machine itself, where apt would start and enable them.
#
# The folder's name is a hash of this file, so a changed package list makes a
# new one; older ones are removed.
set -eu
include="nginx-light pcscd vsmartcard-vpcd opensc-pkcs11 xvfb openbox xdotool x11-utils x11-apps xfce4-panel dbus dbus-x11 imagemagick libgl1-mesa-dri fonts-dejavu-core procps iproute2 util-linux"
suite=bookworm

self="$0"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/kortti"
root="$cache/rootfs-$suite-$(sha256sum "$self" | cut -c1-12)"
if [ ! -e "$root/.complete" ]; then
  if ! command -v mmdebstrap >/dev/null 2>&1; then
    echo "mmdebstrap is missing; 'make test' installs it, or: apt-get install mmdebstrap" >&2
    exit 1
  fi
  mkdir -p "$cache"
  exec 9>"$cache/rootfs.lock"
  flock 9
  if [ ! -e "$root/.complete" ]; then
    echo "Building the tests' root file system (once, about a minute): $root" >&2
    for old in "$cache"/rootfs-"$suite"-*; do
      [ ! -d "$old" ] || rm -rf "$old" 2>/dev/null || unshare --map-auto --map-root-user rm -rf "$old"
    done
    log="$cache/rootfs.log"
    if ! mmdebstrap --variant=minbase --include="$(echo "$include" | tr ' ' ',')" \
        --aptopt='APT::Install-Recommends "false"' "$suite" "$root" >"$log" 2>&1 </dev/null; then
      tail -n 20 "$log" >&2
      echo "The root file system could not be built; the whole log is $log" >&2
      exit 1
    fi
    if [ "$(id -u)" -eq 0 ]; then touch "$root/.complete"; else unshare --map-auto --map-root-user touch "$root/.complete"; fi
  fi
fi
echo "$root"
