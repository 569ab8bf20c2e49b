package gui

import (
	_ "embed"

	"fyne.io/fyne/v2"
)

// The icons are small on purpose: a tray gets them as bare pixels over D-Bus.
var (
	//go:embed icons/none.png
	iconNone []byte
	//go:embed icons/ready.png
	iconReady []byte
	//go:embed icons/unlocked.png
	iconUnlocked []byte
	//go:embed icons/attention.png
	iconAttention []byte
)

func icon(s situation) fyne.Resource {
	switch s {
	case ready:
		return fyne.NewStaticResource("kortti-ready.png", iconReady)
	case unlocked:
		return fyne.NewStaticResource("kortti-unlocked.png", iconUnlocked)
	case attention:
		return fyne.NewStaticResource("kortti-attention.png", iconAttention)
	}
	return fyne.NewStaticResource("kortti-none.png", iconNone)
}
