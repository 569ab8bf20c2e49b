package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/pinentry"
)

// fakePinentry answers its questions, one program each, with the lines of replies
// in turn, and returns the person who looks at it and what was shown.
func fakePinentry(t *testing.T, replies ...string) (who *pinentryPerson, shown func() string) {
	t.Helper()
	dir := t.TempDir()
	log, answers := filepath.Join(dir, "shown"), filepath.Join(dir, "answers")
	script := fmt.Sprintf(`#!/bin/sh
echo OK hello
while read -r word rest; do
	echo "$word $rest" >>%[1]s
	case $word in
	GETPIN|CONFIRM) head -n 1 %[2]s | sed 's/;/\n/g'; sed -i 1d %[2]s ;;
	BYE) echo OK; exit ;;
	*) echo OK ;;
	esac
done
`, log, answers)
	path := filepath.Join(dir, "pinentry")
	for name, text := range map[string]string{path: script, answers: strings.Join(replies, "\n") + "\n", log: ""} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &pinentryPerson{config: pinentry.Config{Path: path}}, func() string {
		raw, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
}

// The questions as pinentry puts them, and what becomes of the answers.
func TestAskByPinentry(t *testing.T) {
	const yes, no, cancel = "OK", "ERR 83886194 not confirmed", "ERR 83886179 cancelled"
	two := []control.Certificate{{Name: "LIISA", SHA256: strings.Repeat("a", 64)}, {Name: "MATTI", SHA256: strings.Repeat("b", 64)}}
	for _, c := range []struct {
		name    string
		prompt  control.Prompt
		replies []string
		want    func(control.Answer) bool
		err     error
		shown   []string
	}{
		{"PIN", control.Prompt{Kind: control.PromptPIN, CardLabel: "kortti", Host: "a.fi", Program: "/usr/bin/python3", ProgramNote: control.NoteInterpreter, Message: "wrong PIN"}, []string{"D 1234;OK"},
			func(a control.Answer) bool { return string(a.PIN) == "1234" && !a.ConfirmFinal }, nil,
			[]string{"SETTIMEOUT 600", "SETTITLE Kortti", "SETDESC wrong PIN%0A%0ALogin to a.fi for /usr/bin/python3%0A%0AThis program runs other programs: any of them may be asking.%0A%0APIN of kortti", "GETPIN"}},
		{"no PIN", control.Prompt{Kind: control.PromptPIN}, []string{"OK"}, nil, errPINCancelled, nil},
		{"PIN cancelled", control.Prompt{Kind: control.PromptPIN}, []string{cancel}, nil, errPINCancelled, nil},
		{"last try", control.Prompt{Kind: control.PromptPIN, FinalTry: true}, []string{yes, "D 1234;OK"},
			func(a control.Answer) bool { return string(a.PIN) == "1234" && a.ConfirmFinal }, nil, []string{"SETDESC This is the LAST try", "CONFIRM"}},
		{"last try, better not", control.Prompt{Kind: control.PromptPIN, FinalTry: true}, []string{cancel}, nil, errPINCancelled, nil},
		{"PIN pad", control.Prompt{Kind: control.PromptPIN, PinPad: true}, []string{yes},
			func(a control.Answer) bool { return *a.Allow && a.PIN == nil }, nil, []string{"SETDESC Enter the PIN on the reader now.", "CONFIRM"}},
		{"PIN pad, better not", control.Prompt{Kind: control.PromptPINChange, PinPad: true}, []string{no}, nil, errPINCancelled, nil},
		{"new PIN", control.Prompt{Kind: control.PromptPINChange}, []string{"D 1111;OK", "D 2222;OK", "D 3333;OK", "D 2222;OK", "D 2222;OK"},
			func(a control.Answer) bool { return string(a.PIN) == "1111" && string(a.NewPIN) == "2222" }, nil, []string{"These are two different PINs"}},
		{"allowed", control.Prompt{Kind: control.PromptConsent, Program: "/usr/bin/curl", Host: "a.fi", Candidates: two}, []string{yes},
			func(a control.Answer) bool { return *a.Allow && a.Remember }, nil, []string{"SETDESC May /usr/bin/curl use the card of LIISA or MATTI at a.fi?", "SETOK Yes", "SETCANCEL No"}},
		{"not allowed", control.Prompt{Kind: control.PromptConsent}, []string{no}, func(a control.Answer) bool { return !*a.Allow }, nil, nil},
		{"window closed", control.Prompt{Kind: control.PromptConsent}, []string{cancel}, func(a control.Answer) bool { return !*a.Allow }, nil, nil},
		{"second certificate", control.Prompt{Kind: control.PromptCertificate, Candidates: two}, []string{no, yes},
			func(a control.Answer) bool { return a.Certificate == two[1].SHA256 }, nil, []string{"1 of 2: LIISA", "2 of 2: MATTI", "SETNOTOK The next"}},
		{"no certificate", control.Prompt{Kind: control.PromptCertificate, Candidates: two}, []string{no, no}, nil, errPINCancelled, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			who, shown := fakePinentry(t, c.replies...)
			a, err := ask(t.Context(), who, c.prompt)
			if !errors.Is(err, c.err) || c.want != nil && (err != nil || !c.want(a)) {
				t.Errorf("%+v %v", a, err)
			}
			if err != nil && a.PIN != nil {
				t.Error("a PIN is left")
			}
			for _, text := range c.shown {
				if !strings.Contains(shown(), text) {
					t.Errorf("%q was not shown:\n%s", text, shown())
				}
			}
		})
	}
}
