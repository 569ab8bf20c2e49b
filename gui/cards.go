package gui

import (
	"context"
	"fmt"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

// situation is what the tray icon shows, the gravest first.
type situation int

const (
	noAgent situation = iota
	attention
	noReader
	noCard
	ready
	unlocked
)

// cardsPage shows the cards; show draws it at each event.
func (g *GUI) cardsPage() *page {
	return &page{TabItem: container.NewTabItem(g.texts.pages.cards, container.NewVScroll(g.list))}
}

// show draws the cards anew. err is why there is nothing to show.
func (g *GUI) show(cards control.Cards, err error) {
	g.list.RemoveAll()
	g.say("")
	if err != nil {
		g.say(g.texts.Error(err))
	}
	for _, m := range cards.Modules {
		if m.Error != "" {
			g.list.Add(wrapped(fmt.Sprintf("%s: %s. %s", m.Path, m.Error, m.Hint)))
		}
	}
	for _, r := range cards.PCSC.Readers {
		if r.Unrecognized {
			g.list.Add(wrapped(strings.TrimSuffix(r.Name+": "+r.Kind, ": ") + ". " + r.Fix))
		}
	}
	for _, c := range inserted(cards) {
		g.list.Add(g.cardView(c))
	}
	s := situationOf(cards, err)
	if err == nil && len(inserted(cards)) == 0 {
		g.list.Add(wrapped(g.texts.Situation(s)))
	}
	if s == attention && g.before != attention {
		g.app.SendNotification(fyne.NewNotification("Kortti", g.texts.Situation(s)))
	}
	g.before = s
	g.showTray(s, cards)
}

func inserted(cards control.Cards) []control.Card {
	var all []control.Card
	for _, r := range cards.Readers {
		if r.Card != nil {
			all = append(all, *r.Card)
		}
	}
	return all
}

func situationOf(cards control.Cards, err error) situation {
	if err != nil {
		return noAgent
	}
	s := noCard
	if len(cards.Readers) == 0 && len(cards.PCSC.Readers) == 0 {
		s = noReader
	}
	for _, c := range inserted(cards) {
		switch {
		case c.State == control.LockNotConfirmed, c.PIN.Locked:
			return attention
		case c.State == control.Unlocked:
			s = unlocked
		case s != unlocked:
			s = ready
		}
	}
	return s
}

// cardView is one card: who it belongs to, its state, what can be done.
func (g *GUI) cardView(c control.Card) fyne.CanvasObject {
	var body []fyne.CanvasObject
	title := c.Label
	for _, cert := range c.Certificates {
		if !cert.Login {
			continue
		}
		if cert.Name != "" {
			title = cert.Name
		}
		body = append(body, wrapped(g.texts.Certificate(cert)))
	}
	if len(body) == 0 {
		body = append(body, wrapped(g.texts.NoLogin))
	}
	body = append(body, wrapped(g.texts.State(c)))
	sel := control.CardSelection{Card: c.ID}
	if c.State == control.Unlocked {
		body = append(body, widget.NewButton(g.texts.Lock, func() { g.lock(sel) }))
	} else if !c.PIN.Locked {
		body = append(body, widget.NewButton(g.texts.Unlock, func() { g.ask(g.agent.Unlock, sel) }))
	}
	switch {
	case !c.PIN.Locked:
		body = append(body, widget.NewButton(g.texts.ChangePIN, func() { g.ask(g.agent.ChangePIN, sel) }))
	case !c.PIN.PUKLocked:
		body = append(body, widget.NewButton(g.texts.UnblockPIN, func() { g.ask(g.agent.UnblockPIN, sel) }))
	}
	return widget.NewCard(title, c.Label, container.NewVBox(body...))
}

func (g *GUI) lock(sel control.CardSelection) {
	g.do(func(ctx context.Context) error { return g.agent.Lock(ctx, sel) })
}

// ask has the agent raise a prompt; it comes as an event too and opens its window
// once.
func (g *GUI) ask(raise func(context.Context, control.CardSelection) (control.Prompt, error), sel control.CardSelection) {
	g.do(func(ctx context.Context) error {
		p, err := raise(ctx, sel)
		if err == nil {
			g.ui(func() { g.openPrompt(p) })
		}
		return err
	})
}

// showTray sets the icon and the menu, where there is a tray.
func (g *GUI) showTray(s situation, cards control.Cards) {
	if g.tray == nil {
		return
	}
	defer func() {
		// Fyne panics when the desktop's D-Bus has gone, and never looks for it
		// again. The window does without.
		if lost := recover(); lost != nil {
			g.tray = nil
			g.window.SetCloseIntercept(nil)
			g.window.Show()
		}
	}()
	g.tray.SetSystemTrayIcon(icon(s))
	items := []*fyne.MenuItem{{Label: g.texts.Situation(s), Disabled: true}}
	for _, c := range inserted(cards) {
		sel := control.CardSelection{Card: c.ID}
		switch {
		case c.State == control.Unlocked:
			items = append(items, fyne.NewMenuItem(g.texts.Lock+": "+c.Label, func() { g.lock(sel) }))
		case !c.PIN.Locked:
			items = append(items, fyne.NewMenuItem(g.texts.Unlock+": "+c.Label, func() { g.ask(g.agent.Unlock, sel) }))
		}
	}
	quit := fyne.NewMenuItem(g.texts.Quit, g.app.Quit)
	quit.IsQuit = true
	items = append(items, fyne.NewMenuItemSeparator())
	for _, p := range g.all {
		items = append(items, fyne.NewMenuItem(p.Text, func() { g.open(p) }))
	}
	items = append(items, fyne.NewMenuItemSeparator(), quit)
	// One menu for all time: once the tray is there Fyne shows the first one that
	// it was given, also when it has been given others meanwhile.
	g.menu.Items = items
	g.tray.SetSystemTrayMenu(g.menu)
}

func wrapped(text string) *widget.Label {
	l := widget.NewLabel(text)
	l.Wrapping = fyne.TextWrapWord
	return l
}
