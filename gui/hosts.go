package gui

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

// errNotAHost is a pasted address that names no host over https.
var errNotAHost = errors.New("not the https address of a site")

// hostOf is the host, with its port where that is not 443, of an address as a
// person pastes it from a browser, or of a bare name.
func hostOf(text string) (string, error) {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || !strings.Contains(u.Hostname(), ".") {
		return "", errNotAHost
	}
	host := strings.ToLower(u.Hostname())
	if port := u.Port(); port != "" && port != "443" {
		host += ":" + port
	}
	return host, nil
}

// hostsPage lists the sites that are reached with the card.
func (g *GUI) hostsPage() *page {
	t := g.texts.pages
	list := container.NewVBox()
	address := widget.NewEntry()
	address.SetPlaceHolder("https://asiointi.example.fi/")
	p := &page{TabItem: container.NewTabItem(t.hosts, nil), follows: []eventKind{control.EventHost}}
	add := func() {
		host, err := hostOf(address.Text)
		if err != nil {
			g.say(t.notAHost)
			return
		}
		g.do(func(ctx context.Context) error {
			_, err := g.agent.PutHost(ctx, control.Host{Name: host, Card: "auto", Consent: "ask"})
			if err == nil {
				g.ui(func() {
					address.SetText("")
					g.say(t.added)
					g.reload(p)
				})
			}
			return err
		})
	}
	address.OnSubmitted = func(string) { add() }
	p.Content = scrolled(container.NewVBox(wrapped(t.hostsIntro), container.NewBorder(nil, nil, nil, widget.NewButton(t.add, add), address)), list)
	p.load = func(ctx context.Context) (func(), error) {
		hosts, err := g.agent.Hosts(ctx)
		return func() {
			list.RemoveAll()
			if len(hosts) == 0 {
				list.Add(wrapped(t.noHosts))
			}
			for _, h := range hosts {
				list.Add(g.hostRow(p, h))
			}
		}, err
	}
	return p
}

func (g *GUI) hostRow(p *page, h control.Host) fyne.CanvasObject {
	t := g.texts.pages
	why := widget.NewButton(t.why, func() {
		g.do(func(ctx context.Context) error {
			answer, err := g.agent.Why(ctx, h.Name)
			if err == nil {
				g.ui(func() { g.showWhy(answer) })
			}
			return err
		})
	})
	remove := widget.NewButton(t.remove, func() {
		g.do(func(ctx context.Context) error {
			err := g.agent.DeleteHost(ctx, h.Name)
			if err == nil {
				g.ui(func() { g.reload(p) })
			}
			return err
		})
	})
	name := h.Name
	if !h.Managed {
		remove.Disable()
		name += " · " + t.inFile
	}
	return container.NewBorder(nil, nil, nil, container.NewHBox(why, remove), wrapped(name))
}

// showWhy says for each certificate whether it would be sent to a host.
func (g *GUI) showWhy(answer control.Why) {
	t := g.texts.pages
	rows := container.NewVBox()
	if !answer.Asked {
		rows.Add(wrapped(t.notAsked))
	}
	for _, r := range answer.Rows {
		verdict := t.dropped
		if r.Kept {
			verdict = t.kept
		}
		rows.Add(wrapped(verdict + ": " + r.Subject + ". " + r.Rule))
	}
	title := widget.NewLabelWithStyle(answer.Host, fyne.TextAlignLeading, fyne.TextStyle{Bold: true})
	var popUp *widget.PopUp
	closeIt := widget.NewButton(g.texts.OK, func() { popUp.Hide() })
	popUp = widget.NewModalPopUp(container.NewBorder(title, closeIt, nil, nil, container.NewVScroll(rows)), g.window.Canvas())
	popUp.Resize(fyne.NewSize(420, 260))
	popUp.Show()
}
