package gui

import (
	"context"

	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

// healthPage shows what keeps cards from working, and what to do about it.
func (g *GUI) healthPage() *page {
	t := g.texts.pages
	list := container.NewVBox()
	p := &page{TabItem: container.NewTabItem(t.health, nil)}
	again := widget.NewButton(t.again, nil)
	again.OnTapped = func() { g.reload(p) }
	p.Content = scrolled(container.NewBorder(nil, nil, nil, again, wrapped(t.healthIntro)), list)
	p.load = func(ctx context.Context) (func(), error) {
		g.ui(func() { // reading the modules takes a while
			list.RemoveAll()
			list.Add(wrapped(t.looking))
		})
		report, err := g.agent.Doctor(ctx)
		return func() {
			list.RemoveAll()
			good := 0
			for _, f := range report.Findings {
				if f.Severity == control.SeverityOK {
					good++
					continue
				}
				list.Add(findingView(f))
			}
			if good == len(report.Findings) {
				list.Add(wrapped(t.healthy))
			}
		}, err
	}
	return p
}

func findingView(f control.Finding) *widget.Card {
	var body []string
	for _, text := range []string{f.Detail, f.Fix} {
		if text != "" {
			body = append(body, text)
		}
	}
	rows := container.NewVBox()
	title := wrapped(f.Title)
	title.TextStyle.Bold = true
	switch f.Severity {
	case control.SeverityError:
		title.Importance = widget.DangerImportance
	case control.SeverityWarning:
		title.Importance = widget.WarningImportance
	}
	rows.Add(title)
	for _, text := range body {
		rows.Add(wrapped(text))
	}
	return widget.NewCard("", "", rows)
}
