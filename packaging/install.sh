#!/bin/sh
# Puts what `make install` has built where a desktop looks for it, or takes it away
# again: install.sh install|uninstall. PREFIX is where the programs go (default
# ~/.local), AUTOSTART the folder of what starts with the desktop, DESTDIR a root to
# put all below.
set -eu
prefix=${PREFIX:-$HOME/.local}
autostart=${AUTOSTART:-${XDG_CONFIG_HOME:-$HOME/.config}/autostart}
here=$(dirname "$0")
bin=$here/../bin

# each calls its argument with mode, source and place of every file.
each() {
	for name in kortti kortti-tray kortti-server; do "$1" 755 "$bin/$name" "$prefix/bin/$name"; done
	"$1" 644 "$bin/man/kortti.1" "$prefix/share/man/man1/kortti.1"
	"$1" 644 "$bin/man/kortti.toml.5" "$prefix/share/man/man5/kortti.toml.5"
	"$1" 644 "$bin/completion/bash" "$prefix/share/bash-completion/completions/kortti"
	"$1" 644 "$bin/completion/zsh" "$prefix/share/zsh/site-functions/_kortti"
	"$1" 644 "$bin/completion/fish" "$prefix/share/fish/vendor_completions.d/kortti.fish"
	"$1" 644 "$here/../gui/icons/ready.png" "$prefix/share/icons/hicolor/64x64/apps/id.kortti.tray.png"
	"$1" 644 "$bin/id.kortti.tray.desktop" "$prefix/share/applications/id.kortti.tray.desktop"
	"$1" 644 "$bin/id.kortti.tray.desktop" "$autostart/id.kortti.tray.desktop"
}
put() { install -D -m "$1" "$2" "${DESTDIR:-}$3"; }
take() { rm -f "${DESTDIR:-}$3"; }

case ${1:-} in
install)
	mkdir -p "$bin/completion"
	for shell in bash zsh fish; do "$bin/kortti" completion $shell >"$bin/completion/$shell"; done
	# The desktop's PATH may not have the folder.
	sed "s|^Exec=.*|Exec=$prefix/bin/kortti-tray|" "$here/id.kortti.tray.desktop" >"$bin/id.kortti.tray.desktop"
	each put
	echo "Installed below ${DESTDIR:-}$prefix. The tray starts with the desktop; start it now with: $prefix/bin/kortti-tray"
	;;
uninstall)
	each take
	echo "Removed. Settings and consents stay: ~/.config/kortti, ~/.local/state/kortti"
	;;
*)
	echo "use: install.sh install|uninstall" >&2
	exit 2
	;;
esac
