// Package gui is the tray app: it shows the cards and asks for the PIN. It is a
// client of the agent's control API and nothing more: it knows no card, no
// PKCS#11 module and no TLS.
//
// It draws with Fyne's widgets only and never opens a driver itself, so that
// its tests run without a display. The command passes the fyne.App in:
//
//	a := app.NewWithID(gui.ID)
//	gui.New(a, control.New(socket), nil, gui.TextsFor("fi")).Run(ctx)
package gui

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

// ID is the application's ID for desktop environments.
const ID = "id.kortti.tray"

// Agent is what the tray needs of the control API; *control.Client has it.
type Agent interface {
	Cards(ctx context.Context) (control.Cards, error)
	Events(ctx context.Context, prompts bool) (*control.Stream, error)
	Unlock(ctx context.Context, sel control.CardSelection) (control.Prompt, error)
	ChangePIN(ctx context.Context, sel control.CardSelection) (control.Prompt, error)
	UnblockPIN(ctx context.Context, sel control.CardSelection) (control.Prompt, error)
	Lock(ctx context.Context, sel control.CardSelection) error
	Status(ctx context.Context) (control.Status, error)
	Hosts(ctx context.Context) ([]control.Host, error)
	PutHost(ctx context.Context, h control.Host) (control.Host, error)
	DeleteHost(ctx context.Context, name string) error
	Why(ctx context.Context, host string) (control.Why, error)
	Audit(ctx context.Context, limit int) ([]control.AuditRecord, error)
	Settings(ctx context.Context) (control.Settings, error)
	PutSettings(ctx context.Context, change control.SettingsChange) (control.Settings, error)
	TrustStatus(ctx context.Context) (control.TrustStatus, error)
	ChangeTrust(ctx context.Context, r control.TrustRequest) (control.TrustResult, error)
	Doctor(ctx context.Context) (control.Doctor, error)
	Lease(ctx context.Context, prompt string) (string, error)
	Answer(ctx context.Context, prompt string, a control.Answer) (control.AnswerResult, error)
}

type eventKind = control.EventKind

// GUI is the running tray app: a window with the cards, a tray icon where the
// desktop has a tray, and a window for each prompt.
type GUI struct {
	app        fyne.App
	agent      Agent
	startAgent func() error
	texts      Texts

	ctx  context.Context // ends the calls to the agent
	work sync.WaitGroup  // those calls, which must not block the window
	ui   func(func())    // runs a function on Fyne's call thread

	// What follows is touched on Fyne's call thread only.
	window  fyne.Window
	all     []*page
	tabs    *container.AppTabs
	list    *fyne.Container // the cards
	before  situation
	content *fyne.Container
	notice  *widget.Label
	tray    desktop.App // nil where the driver has none
	menu    *fyne.Menu  // its
	prompts map[string]*promptWindow
}

// New builds the window and the tray. It starts nothing; Run does. startAgent, if
// it is not nil, is called when no agent runs, once each time that one has gone.
func New(a fyne.App, agent Agent, startAgent func() error, texts Texts) *GUI {
	g := &GUI{
		app: a, agent: agent, startAgent: startAgent, texts: texts,
		ctx:     context.Background(),
		ui:      fyne.Do,
		list:    container.NewVBox(),
		notice:  widget.NewLabel(""),
		prompts: map[string]*promptWindow{},
		menu:    fyne.NewMenu("Kortti"),
	}
	a.SetIcon(icon(ready)) // of the windows
	g.notice.Wrapping = fyne.TextWrapWord
	g.notice.Importance = widget.HighImportance
	g.window = a.NewWindow("Kortti")
	g.all = g.pages()
	g.tabs = container.NewAppTabs()
	for _, p := range g.all {
		g.tabs.Append(p.TabItem)
	}
	g.tabs.OnSelected = func(*container.TabItem) {
		g.say("")
		g.reload(g.seen())
	}
	g.content = container.NewBorder(g.notice, nil, nil, nil, g.tabs)
	g.window.SetContent(g.content)
	g.window.Resize(fyne.NewSize(560, 420))
	if d, ok := a.(desktop.App); ok {
		g.tray = d
		g.window.SetCloseIntercept(g.window.Hide)
	}
	g.show(control.Cards{}, nil)
	return g
}

// Window returns the window with the cards.
func (g *GUI) Window() fyne.Window { return g.window }

// Run shows the window, follows the agent and returns when the person quits or
// ctx ends. It must be called on the program's main goroutine, as Fyne demands.
func (g *GUI) Run(ctx context.Context) {
	stop := g.start(ctx)
	g.window.Show()
	g.app.Run()
	stop()
}

// start begins to follow the agent; stop ends that and waits for it.
func (g *GUI) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	g.ctx = ctx
	g.work.Go(func() { g.follow(ctx) })
	g.work.Go(func() {
		<-ctx.Done()
		g.ui(g.app.Quit)
	})
	return func() {
		cancel()
		g.work.Wait()
	}
}

// retry is how long the tray waits before it looks for the agent again.
const retry = time.Second

// follow keeps the window true: it reads the agent's events, and looks for the
// agent again when it has gone.
func (g *GUI) follow(ctx context.Context) {
	started := false // since an agent was last heard
	for ctx.Err() == nil {
		heard, err := g.followOnce(ctx)
		started = started && !heard
		if g.startAgent != nil && !started && ctx.Err() == nil && errors.Is(err, control.ErrNotRunning) {
			started = true
			if failed := g.startAgent(); failed != nil {
				err = failed
			}
		}
		if ctx.Err() != nil {
			return // nothing is left to draw on
		}
		g.ui(func() {
			g.closePrompts()
			g.show(control.Cards{}, err)
		})
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// followOnce follows the agent until it has gone; heard tells that there was one.
func (g *GUI) followOnce(ctx context.Context) (heard bool, err error) {
	stream, err := g.agent.Events(ctx, true)
	if err != nil {
		return false, err
	}
	defer stream.Close()
	if err := g.refresh(ctx); err != nil {
		return true, err
	}
	g.ui(func() { g.reload(g.seen()) })
	for {
		ev, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return true, control.ErrNotRunning
		}
		if err != nil {
			return true, err
		}
		switch ev.Kind {
		case control.EventPrompt:
			if ev.Prompt != nil && !ev.Prompt.Leased {
				g.ui(func() { g.openPrompt(*ev.Prompt) })
			}
		case control.EventPromptClosed:
			if ev.Prompt != nil {
				g.ui(func() { g.closePrompt(ev.Prompt.ID) })
			}
		case control.EventCard, control.EventLock:
			if err := g.refresh(ctx); err != nil {
				return true, err
			}
		}
		g.ui(func() {
			if p := g.seen(); p != nil && slices.Contains(p.follows, ev.Kind) {
				g.reload(p)
			}
		})
	}
}

func (g *GUI) refresh(ctx context.Context) error {
	cards, err := g.agent.Cards(ctx)
	if err == nil {
		g.ui(func() { g.show(cards, nil) })
	}
	return err
}

// do calls the agent away from the window's thread and shows what went wrong.
func (g *GUI) do(call func(ctx context.Context) error) {
	g.work.Go(func() {
		err := call(g.ctx)
		if err == nil || g.ctx.Err() != nil {
			return
		}
		g.ui(func() { g.say(g.texts.Error(err)) })
	})
}

// say puts a message above the cards; "" takes it away.
func (g *GUI) say(message string) {
	g.notice.SetText(message)
	if message == "" {
		g.notice.Hide()
	} else {
		g.notice.Show()
	}
	if g.content != nil { // the first time comes before the window has one
		g.content.Refresh() // its place comes and goes
	}
}
