package gui

import (
	"context"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
)

// page is one tab of the window.
type page struct {
	*container.TabItem
	// load asks the agent and gives what draws the answer; draw runs on Fyne's
	// call thread.
	load func(ctx context.Context) (draw func(), err error)
	// follows are the events after which the page is loaded again while it is
	// seen.
	follows []eventKind
}

// pages are those of the window, in their order.
func (g *GUI) pages() []*page {
	return []*page{g.cardsPage(), g.hostsPage(), g.activityPage(), g.settingsPage(), g.healthPage()}
}

// open shows the window with one of its pages.
func (g *GUI) open(p *page) {
	g.tabs.Select(p.TabItem)
	g.window.Show()
	g.window.RequestFocus()
}

// seen is the page that the person sees.
func (g *GUI) seen() *page {
	for _, p := range g.all {
		if p.TabItem == g.tabs.Selected() {
			return p
		}
	}
	return nil
}

// reload reads a page's content anew, away from the window's thread.
func (g *GUI) reload(p *page) {
	if p == nil || p.load == nil {
		return
	}
	g.do(func(ctx context.Context) error {
		draw, err := p.load(ctx)
		if err == nil {
			g.ui(draw)
		}
		return err
	})
}

// scrolled is a page that may be longer than its window, with what stays in sight
// above it.
func scrolled(above fyne.CanvasObject, list fyne.CanvasObject) fyne.CanvasObject {
	return container.NewBorder(above, nil, nil, nil, container.NewVScroll(list))
}
