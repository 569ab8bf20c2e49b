package gui

import (
	"context"
	"errors"
	"slices"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

// promptWindow is one open question of the agent.
type promptWindow struct {
	gui    *GUI
	prompt control.Prompt
	window fyne.Window
	pin    *pinEntry // the PIN, the old one, or the PUK; nil for other kinds
	fresh  *pinEntry // the new PIN; nil for other kinds
	again  *pinEntry // once more
	final  *widget.Check
	choice *widget.RadioGroup // nil for other kinds
	ok     *widget.Button
	sent   bool // an answer is under way; a second one is never sent
}

// openPrompt opens a window for a prompt, once.
func (g *GUI) openPrompt(p control.Prompt) {
	if _, open := g.prompts[p.ID]; open {
		return
	}
	w := &promptWindow{gui: g, prompt: p, window: g.app.NewWindow(g.texts.Title(p))}
	g.prompts[p.ID] = w
	content := w.content()
	w.window.SetContent(content)
	w.window.SetCloseIntercept(w.cancel)
	// Where no field has the keys. Enter answers no question: a window that comes
	// up while somebody types must not take what was meant for another.
	w.window.Canvas().SetOnTypedKey(func(k *fyne.KeyEvent) {
		if k.Name == fyne.KeyEscape {
			w.cancel()
		}
	})
	w.window.Resize(fyne.NewSize(420, 160)) // so wide that the text knows its lines,
	content.Refresh()                       // and what is below it its place
	w.window.Resize(fyne.NewSize(420, max(160, content.MinSize().Height)))
	w.window.CenterOnScreen()
	if d, ok := w.window.(desktop.Window); ok {
		d.RequestAlwaysOnTop()
	}
	w.window.Show()
	w.window.RequestFocus()
	if w.pin != nil {
		w.window.Canvas().Focus(w.pin)
	}
}

// closePrompt closes the window of a prompt that was answered elsewhere, has
// expired, or lost its card.
func (g *GUI) closePrompt(id string) {
	w, open := g.prompts[id]
	if !open {
		return
	}
	delete(g.prompts, id)
	w.clear()
	w.window.SetCloseIntercept(nil)
	w.window.Close()
}

func (g *GUI) closePrompts() {
	for id := range g.prompts {
		g.closePrompt(id)
	}
}

func (w *promptWindow) content() fyne.CanvasObject {
	t := w.gui.texts
	rows := []fyne.CanvasObject{wrapped(t.Question(w.prompt))}
	if note := t.Note(w.prompt); note != "" {
		rows = append(rows, wrapped(note))
	}
	if w.prompt.Message != "" {
		m := wrapped(w.prompt.Message)
		m.Importance = widget.DangerImportance
		rows = append([]fyne.CanvasObject{m}, rows...)
	}
	if w.prompt.CountLow && !w.prompt.FinalTry {
		low := wrapped(t.countLow)
		low.Importance = widget.WarningImportance
		rows = append(rows, low)
	}
	cancel := widget.NewButton(t.Cancel, w.cancel)
	w.ok = widget.NewButton(t.OK, nil)
	w.ok.Importance = widget.HighImportance
	switch w.prompt.Kind {
	case control.PromptPIN:
		rows = append(rows, w.pinRows()...)
	case control.PromptPINChange, control.PromptPINUnblock:
		rows = append(rows, w.newPINRows()...)
	case control.PromptConsent:
		rows = append(rows, w.consentRows()...)
		cancel.SetText(t.Deny)
		cancel.OnTapped = func() { w.allow(false, false) }
	case control.PromptCertificate:
		rows = append(rows, w.certificateRows()...)
	default:
		w.ok.Disable()
	}
	buttons := container.NewHBox(cancel, w.ok)
	until := widget.NewLabel(t.Until(w.prompt))
	return container.NewPadded(container.NewVBox(append(rows, container.NewBorder(nil, nil, until, buttons))...))
}

func (w *promptWindow) pinRows() (rows []fyne.CanvasObject) {
	rows = w.finalRows(w.gui.texts.FinalTry)
	if w.prompt.PinPad {
		return append(rows, w.pad(w.gui.texts.PinPad))
	}
	w.pin = w.entry()
	w.ok.OnTapped = w.submitPIN
	w.enable()
	return append(rows, w.pin)
}

// newPINRows ask for the old PIN or the PUK, and twice for the new PIN.
func (w *promptWindow) newPINRows() (rows []fyne.CanvasObject) {
	t, given, final := w.gui.texts, w.gui.texts.OldPIN, w.gui.texts.FinalTry
	if w.prompt.Kind == control.PromptPINUnblock {
		given, final = t.PUK, t.FinalPUK
	}
	rows = w.finalRows(final)
	if w.prompt.PinPad {
		return append(rows, w.pad(t.PinPadNew))
	}
	w.pin, w.fresh, w.again = w.entry(), w.entry(), w.entry()
	w.ok.OnTapped = w.submitPIN
	w.enable()
	return append(rows, widget.NewForm(
		widget.NewFormItem(given, w.pin), widget.NewFormItem(t.NewPIN, w.fresh), widget.NewFormItem(t.NewPINAgain, w.again)))
}

func (w *promptWindow) finalRows(text string) []fyne.CanvasObject {
	if !w.prompt.FinalTry {
		return nil
	}
	warning := wrapped(text)
	warning.Importance = widget.DangerImportance
	w.final = widget.NewCheck(w.gui.texts.know, func(bool) { w.enable() }) // one that cannot be wrapped
	return []fyne.CanvasObject{warning, w.final}
}

// pad lets the person say that they are ready to type on the reader.
func (w *promptWindow) pad(text string) fyne.CanvasObject {
	w.ok.OnTapped = func() { w.allow(true, false) }
	w.enable()
	return wrapped(text)
}

func (w *promptWindow) entry() *pinEntry {
	e := newPINEntry(w.submitPIN, w.cancel)
	e.OnChanged = func(string) { w.enable() }
	return e
}

// clear empties the fields.
func (w *promptWindow) clear() {
	for _, e := range []*pinEntry{w.pin, w.fresh, w.again} {
		if e != nil {
			e.SetText("")
		}
	}
}

// enable lets the answer be sent when the PINs are long enough, a new one has
// been typed the same way twice, and a final try has been confirmed.
func (w *promptWindow) enable() {
	least := max(1, w.prompt.MinPIN)
	enough := w.pin == nil || len(w.pin.Text) >= least || w.prompt.Kind == control.PromptPINUnblock && w.pin.Text != ""
	if w.fresh != nil {
		enough = enough && len(w.fresh.Text) >= least && w.fresh.Text == w.again.Text
	}
	confirmed := w.final == nil || w.final.Checked
	if enough && confirmed && !w.sent {
		w.ok.Enable()
	} else {
		w.ok.Disable()
	}
}

func (w *promptWindow) submitPIN() {
	w.enable()
	if w.ok.Disabled() {
		return
	}
	// Fyne keeps what is typed as a string: the one place where a PIN cannot
	// be wiped. It is in this process alone, which holds no key and no socket
	// that listens.
	a := control.Answer{PIN: control.Secret(w.pin.Text), ConfirmFinal: w.final != nil}
	if w.fresh != nil {
		a.NewPIN = control.Secret(w.fresh.Text)
	}
	if w.prompt.Kind == control.PromptPINUnblock {
		a.PIN, a.PUK = nil, a.PIN
	}
	w.clear()
	w.send(a)
}

func (w *promptWindow) consentRows() []fyne.CanvasObject {
	remember := widget.NewCheck(w.gui.texts.Remember, nil)
	w.ok.SetText(w.gui.texts.Allow)
	w.ok.OnTapped = func() { w.allow(true, remember.Checked) }
	return []fyne.CanvasObject{remember}
}

func (w *promptWindow) allow(yes, remember bool) {
	w.send(control.Answer{Allow: &yes, Remember: remember, ConfirmFinal: w.final != nil && w.final.Checked})
}

func (w *promptWindow) certificateRows() []fyne.CanvasObject {
	var names []string
	for _, c := range w.prompt.Candidates {
		names = append(names, w.gui.texts.Candidate(c))
	}
	w.choice = widget.NewRadioGroup(names, func(string) { w.ok.Enable() })
	w.choice.Required = true
	w.ok.Disable()
	w.ok.OnTapped = func() {
		if i := slices.Index(names, w.choice.Selected); i >= 0 {
			w.send(control.Answer{Certificate: w.prompt.Candidates[i].SHA256, Remember: true})
		}
	}
	return []fyne.CanvasObject{w.choice}
}

func (w *promptWindow) cancel() { w.send(control.Answer{Cancel: true}) }

// send takes the lease and sends one answer. The window closes when the agent
// says that the prompt is closed, and at once when it has been cancelled.
func (w *promptWindow) send(a control.Answer) {
	if w.sent {
		return
	}
	w.sent = true
	w.ok.Disable()
	g, id := w.gui, w.prompt.ID
	g.do(func(ctx context.Context) error {
		defer g.ui(func() { g.closePrompt(id) })
		lease, err := g.agent.Lease(ctx, id)
		if err != nil {
			a.Wipe()
			return err
		}
		a.LeaseToken = lease
		_, err = g.agent.Answer(ctx, id, a)
		if a.Cancel && errors.Is(err, &control.Error{Code: control.CodePINCancelled}) {
			return nil
		}
		return err
	})
}
