package main

import (
	"strings"
	"testing"
)

// PINs are asked for without echo, in kortti pin itself and by kortti prompt.
func TestNewPINOnATerminal(t *testing.T) {
	r := startAgent(t, "")
	s := onTerminal(t, r.command("pin", "change", "--socket", r.socket))
	for _, step := range [][2]string{
		{"Old PIN of kortti test card (LIISA SPECIMEN-KORTTI): ", "1234\r"},
		{"New PIN (4 to 12 characters): ", "567890\r"},
		{"New PIN again: ", "567891\r"},
		{"once more.\r\nNew PIN (4 to 12 characters): ", "567890\r"},
	} {
		s.waitFor(step[0])
		if s.echoes() {
			t.Error("the terminal would show the PIN")
		}
		s.enter(step[1])
	}
	s.waitFor("once more.\r\nNew PIN (4 to 12 characters): \r\nNew PIN again: ")
	s.enter("567890\r")
	s.end(exitDone, "The card has the new PIN. It is locked.")
	if text := s.text(); strings.Contains(text, "56789") || strings.Contains(strings.ReplaceAll(text, "SPECIMEN", ""), "1234") {
		t.Errorf("a PIN is on the screen:\n%s", text)
	}

	s = onTerminal(t, r.command("pin", "change", "--socket", r.socket))
	s.waitFor("Old PIN of ")
	s.enter("567890\r")
	s.waitFor("New PIN (")
	s.enter("\x03")
	s.end(exitPIN, "kortti pin: cancelled; the card was not asked")

	s = onTerminal(t, r.command("pin", "unblock", "--socket", r.socket))
	s.waitFor("PUK of ")
	if err := r.card.Pull(); err != nil {
		t.Fatal(err)
	}
	s.end(exitNoCard, "kortti pin: the question is not open any more: the card was removed")
	counts, err := r.card.Counts()
	if err != nil || counts["C_SetPIN"] != 1 || counts["C_InitPIN"] != 0 {
		t.Errorf("the card was asked %d and %d times, %v", counts["C_SetPIN"], counts["C_InitPIN"], err)
	}
}
