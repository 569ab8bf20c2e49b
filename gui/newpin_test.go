package gui

import (
	"testing"

	"fyne.io/fyne/v2/test"

	"github.com/kortti-id/kortti/agent/control"
)

func TestChangePIN(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("fi"))
	h.until("the card is shown", h.showing("Lukittu."))
	test.Tap(button(t, h.window.Content(), "Vaihda tunnusluku"))
	w := h.prompted()
	approved(t, w.window, "pin-change-fi")
	test.Type(w.pin, goodPIN)
	test.Type(w.fresh, "567890")
	test.Type(w.again, "567899")
	if !w.ok.Disabled() {
		t.Error("two different new PINs can be sent")
	}
	w.again.OnSubmitted("")
	w.again.SetText("")
	test.Type(w.again, "567890")
	test.Tap(w.ok)
	h.until("the window is closed", func() bool { return len(h.prompts) == 0 })
	got := agent.answered()
	if len(got) != 1 || got[0]["pin"] != goodPIN || got[0]["new_pin"] != "567890" || got[0]["puk"] != nil {
		t.Errorf("the agent got %v", got)
	}
	if w.pin.Text+w.fresh.Text+w.again.Text != "" {
		t.Error("PINs stay in the fields")
	}
}

func TestUnblockPIN(t *testing.T) {
	agent, client := newFakeAgent(t)
	agent.cards.Readers[0].Card.PIN.Locked = true
	h := run(t, client, TextsFor("sv"))
	h.until("the card is shown", h.showing("PIN-koden är låst."))
	test.Tap(button(t, h.window.Content(), "Lås upp PIN-koden"))
	w := h.prompted()
	approved(t, w.window, "pin-unblock-sv")
	test.Type(w.pin, "12345678")
	test.Type(w.fresh, "567890")
	test.Type(w.again, "567890")
	if !w.ok.Disabled() {
		t.Error("what may be the last try can be sent without confirmation")
	}
	w.final.SetChecked(true)
	test.Tap(w.ok)
	h.until("the window is closed", func() bool { return len(h.prompts) == 0 })
	got := agent.answered()
	if len(got) != 1 || got[0]["puk"] != "12345678" || got[0]["new_pin"] != "567890" || got[0]["pin"] != nil || got[0]["confirm_final"] != true {
		t.Errorf("the agent got %v", got)
	}
}

func TestNewPINOnThePad(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	agent.raise(control.Prompt{ID: "p1", Kind: control.PromptPINChange, CardLabel: "HENKILOKORTTI", PinPad: true})
	w := h.prompted()
	if w.pin != nil {
		t.Error("a PIN is asked for here")
	}
	test.Tap(w.ok)
	h.until("the answer is there", func() bool { return len(agent.answered()) == 1 })
	if agent.answered()[0]["allow"] != true {
		t.Errorf("%v", agent.answered())
	}
}

// A question of a newer agent can be declined, and is not taken for another.
func TestUnknownPromptIsToldOf(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	agent.raise(control.Prompt{ID: "p1", Kind: "new-kind", CardLabel: "HENKILOKORTTI"})
	w := h.prompted()
	if text := shown(w.window.Content()); text[0] != h.texts.askUnknown || !w.ok.Disabled() {
		t.Errorf("%q, OK disabled: %v", text, w.ok.Disabled())
	}
	test.Tap(button(t, w.window.Content(), "Cancel"))
	h.until("the answer is there", func() bool { return len(agent.answered()) == 1 })
	if agent.answered()[0]["cancel"] != true {
		t.Errorf("%v", agent.answered())
	}
}

// A card that nobody has activated is not shown as one that is ready.
func TestActivationIsToldOf(t *testing.T) {
	agent, client := newFakeAgent(t)
	agent.cards.Readers[0].Card.PIN.ToBeChanged = true
	h := run(t, client, TextsFor("fi"))
	h.until("the card is shown", h.showing("Korttia ei ole aktivoitu"))
}
