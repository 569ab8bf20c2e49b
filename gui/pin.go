package gui

import (
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/widget"
)

// maxPIN is the longest PIN that a PKCS#11 module takes, in bytes.
const maxPIN = 255

// pinEntry is a password field that takes no paste, no copy and no spaces, and
// gives up at Escape.
type pinEntry struct {
	widget.Entry
	escape func()
}

func newPINEntry(submit, escape func()) *pinEntry {
	e := &pinEntry{escape: escape}
	e.Password = true
	e.ActionItem = canvas.NewRectangle(color.Transparent) // in place of Fyne's eye, which would show the PIN
	e.OnSubmitted = func(string) { submit() }
	e.ExtendBaseWidget(e)
	return e
}

// TypedRune takes printable ASCII: FINeID PINs are digits, other cards' PINs
// may have letters.
func (e *pinEntry) TypedRune(r rune) {
	if r > ' ' && r < 0x7f && len(e.Text) < maxPIN {
		e.Entry.TypedRune(r)
	}
}

// TypedKey gives up at Escape.
func (e *pinEntry) TypedKey(k *fyne.KeyEvent) {
	if k.Name == fyne.KeyEscape {
		e.escape()
		return
	}
	e.Entry.TypedKey(k)
}

// TypedShortcut ignores copy, cut and paste: a PIN in the clipboard is a PIN
// for every program.
func (e *pinEntry) TypedShortcut(fyne.Shortcut) {}
