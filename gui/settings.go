package gui

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

// idleLocks are the choices of how long an unlocked card may go unused, as the
// agent writes durations; those of texts are in the same order.
var idleLocks = []string{"5m0s", "15m0s", "1h0m0s", "0s"}

// settingsPage changes settings, and which browsers trust the local roots.
func (g *GUI) settingsPage() *page {
	t := g.texts.pages
	body := container.NewVBox()
	p := &page{TabItem: container.NewTabItem(t.settings, scrolled(nil, body)), follows: []eventKind{control.EventHost}}
	p.load = func(ctx context.Context) (func(), error) {
		settings, err := g.agent.Settings(ctx)
		if err != nil {
			return nil, err
		}
		status, err := g.agent.Status(ctx)
		if err != nil {
			return nil, err
		}
		trust, err := g.agent.TrustStatus(ctx)
		return func() {
			body.RemoveAll()
			body.Add(g.idleLock(p, settings))
			body.Add(widget.NewSeparator())
			body.Add(g.trust(p, trust))
			body.Add(widget.NewSeparator())
			body.Add(wrapped(fmt.Sprintf(t.proxyIs, status.Proxy)))
			body.Add(wrapped(fmt.Sprintf(t.fileIs, settings.ConfigFile)))
		}, err
	}
	return p
}

func (g *GUI) idleLock(p *page, now control.Settings) fyne.CanvasObject {
	t := g.texts.pages
	names := t.idleLocks[:]
	i := slices.Index(idleLocks, now.IdleLock)
	if i < 0 { // another one, from a file
		names = append(slices.Clone(names), now.IdleLock)
		i = len(names) - 1
	}
	choice := widget.NewSelect(names, nil)
	choice.SetSelectedIndex(i)
	choice.OnChanged = func(name string) {
		i := slices.Index(t.idleLocks[:], name)
		if i < 0 {
			return
		}
		g.do(func(ctx context.Context) error {
			_, err := g.agent.PutSettings(ctx, control.SettingsChange{IdleLock: &idleLocks[i]})
			g.ui(func() { g.reload(p) }) // what is shown is what is in force
			return err
		})
	}
	if slices.Contains(now.Fixed, control.SettingIdleLock) {
		choice.Disable()
	}
	return widget.NewForm(widget.NewFormItem(t.idleLock, choice))
}

// trust shows each browser's store, and puts the local roots in or takes them out.
func (g *GUI) trust(p *page, status control.TrustStatus) fyne.CanvasObject {
	t := g.texts.pages
	box := container.NewVBox(wrapped(t.trustIntro))
	for _, s := range status.Stores {
		if s.Kind == "system" || !s.Present && s.Error == "" {
			continue
		}
		box.Add(wrapped(s.Owner + ": " + t.store(s)))
	}
	change := func(action string) func() {
		return func() {
			g.do(func(ctx context.Context) error {
				result, err := g.agent.ChangeTrust(ctx, control.TrustRequest{Action: action, All: true})
				if err == nil {
					g.ui(func() {
						g.say(t.changed(result))
						g.reload(p)
					})
				}
				return err
			})
		}
	}
	install, uninstall := widget.NewButton(t.install, change(control.TrustInstall)), widget.NewButton(t.uninstall, change(control.TrustUninstall))
	if len(status.Roots) == 0 {
		install.Disable()
	}
	box.Add(container.NewHBox(install, uninstall))
	return box
}

// store says what a browser trusts.
func (t pageTexts) store(s control.TrustStore) string {
	if s.Error != "" {
		return s.Error + ". " + s.Hint
	}
	trusted, wanted := 0, 0
	for _, r := range s.Roots {
		switch r.State {
		case control.TrustTrusted, control.TrustDuplicate:
			trusted, wanted = trusted+1, wanted+1
		case control.TrustMissing, control.TrustUntrusted:
			wanted++
		}
	}
	switch {
	case wanted == 0:
		return t.trustsNone
	case trusted == wanted:
		return t.trustsAll
	}
	return fmt.Sprintf(t.trustsSome, trusted, wanted)
}

// changed says what a person has to do after a change of the stores.
func (t pageTexts) changed(r control.TrustResult) string {
	var failed []string
	for _, c := range r.Changes {
		if c.Change == control.TrustFailed {
			failed = append(failed, c.Owner+": "+c.Error+". "+c.Hint)
		}
	}
	if len(failed) > 0 {
		return strings.Join(failed, "\n")
	}
	if len(r.Restart) > 0 {
		return fmt.Sprintf(t.restart, strings.Join(r.Restart, ", "))
	}
	return t.done
}
