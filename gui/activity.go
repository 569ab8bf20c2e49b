package gui

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

// shownRecords are how many decisions are shown, the newest first.
const shownRecords = 100

// activityPage lists what has been done with the card.
func (g *GUI) activityPage() *page {
	t := g.texts.pages
	list := container.NewVBox()
	counters := widget.NewLabel("")
	return &page{
		TabItem: container.NewTabItem(t.activity, scrolled(counters, list)),
		follows: []eventKind{control.EventSignature, control.EventLock, control.EventCard, control.EventPromptClosed, control.EventHost},
		load: func(ctx context.Context) (func(), error) {
			status, err := g.agent.Status(ctx)
			if err != nil {
				return nil, err
			}
			records, err := g.agent.Audit(ctx, shownRecords)
			return func() {
				counters.SetText(fmt.Sprintf(t.counters, status.Counters.Signatures, status.Counters.SignaturesAvoided, status.Counters.Requests))
				list.RemoveAll()
				if len(records) == 0 {
					list.Add(wrapped(t.noActivity))
				}
				for _, r := range slices.Backward(records) {
					list.Add(wrapped(r.Time.Local().Format(time.DateTime) + "  " + t.record(r)))
				}
			}, err
		},
	}
}

// record is a decision in plain words; one of a newer agent keeps its own word.
func (t pageTexts) record(r control.AuditRecord) string {
	text, ok := t.decisions[r.Decision]
	if !ok {
		text = r.Decision + " {host} {reason}"
	}
	program := r.Program
	if program == "" {
		program = t.aProgram
	}
	return strings.TrimSpace(strings.NewReplacer("{host}", r.Host, "{program}", program, "{reason}", r.Reason).Replace(text))
}
