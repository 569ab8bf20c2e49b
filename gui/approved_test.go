package gui

import (
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"fyne.io/fyne/v2"
)

// approved compares what a person sees with a picture that somebody has looked at,
// in testdata. KORTTI_APPROVE=1 puts new pictures there; look at them before they
// are committed.
func approved(t *testing.T, w fyne.Window, name string) {
	t.Helper()
	path := filepath.Join("testdata", name+".png")
	got := w.Canvas().Capture()
	if os.Getenv("KORTTI_APPROVE") != "" {
		write(t, path, got)
		return
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	// A cursor blinks, and machines round colours differently.
	if share := different(got, want); share > 0.004 {
		seen := filepath.Join(os.TempDir(), "kortti-"+name+".png")
		write(t, seen, got)
		t.Errorf("%s: %.1f %% of the picture is not as in %s; it is in %s", name, 100*share, path, seen)
	}
}

func write(t *testing.T, path string, picture image.Image) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := png.Encode(file, picture); err != nil {
		t.Fatal(err)
	}
}

// different is the share of pixels that are clearly of another colour.
func different(a, b image.Image) float64 {
	if a.Bounds().Size() != b.Bounds().Size() {
		return 1
	}
	size, other := a.Bounds().Size(), 0
	for y := range size.Y {
		for x := range size.X {
			ar, ag, ab, _ := a.At(a.Bounds().Min.X+x, a.Bounds().Min.Y+y).RGBA()
			br, bg, bb, _ := b.At(b.Bounds().Min.X+x, b.Bounds().Min.Y+y).RGBA()
			if far(ar, br) || far(ag, bg) || far(ab, bb) {
				other++
			}
		}
	}
	return float64(other) / float64(size.X*size.Y)
}

// far is a quarter of what a colour can have.
func far(a, b uint32) bool { return max(a, b)-min(a, b) > 0x4000 }
