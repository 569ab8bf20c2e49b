package gui

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// Texts are the words of one language. docs/glossary.md says which word stands
// for what.
type Texts struct {
	Unlock, Lock, Quit, OK, Cancel, Allow, Deny string
	Remember, FinalTry, PinPad, NoLogin         string
	ChangePIN, UnblockPIN                       string
	OldPIN, PUK, NewPIN, NewPINAgain            string // what is typed into a field
	FinalPUK, PinPadNew                         string

	unlock, consent, choose                   string // titles
	askPIN, askPINFor, askConsent, askChoice  string
	askNewPIN, askPUK, askUnknown             string
	activate                                  string
	unknownProgram, validUntil                string
	locked, unlocked, notConfirmed, pinLocked string
	countLow                                  string
	situations                                [unlocked + 1]string
	errs                                      map[string]string // by code; others come from the agent
	notes                                     map[control.ProgramNote]string
	until                                     string // when a prompt ends
	know                                      string // confirms the final try
	pages                                     pageTexts
}

// TextsFor returns the texts for a locale such as "fi_FI.UTF-8"; English where
// there are none.
func TextsFor(locale string) Texts {
	switch strings.ToLower(locale[:min(2, len(locale))]) {
	case "fi":
		return finnish()
	case "sv":
		return swedish()
	}
	return english()
}

// Situation says in a line how things stand.
func (t Texts) Situation(s situation) string { return t.situations[s] }

// State says how a card stands.
func (t Texts) State(c control.Card) string {
	switch {
	case c.PIN.Locked:
		return t.pinLocked
	case c.State == control.LockNotConfirmed:
		return t.notConfirmed
	case c.State == control.Unlocked:
		return t.unlocked
	case c.PIN.ToBeChanged:
		return t.activate
	case c.PIN.CountLow, c.PIN.FinalTry:
		return t.locked + " " + t.countLow
	}
	return t.locked
}

// Certificate describes a certificate in a line.
func (t Texts) Certificate(c control.Certificate) string {
	return fmt.Sprintf("%s · %s %s", c.Issuer, t.validUntil, c.NotAfter.Local().Format(time.DateOnly))
}

// Candidate describes a certificate among several.
func (t Texts) Candidate(c control.Certificate) string {
	return fmt.Sprintf("%s, %s (%s)", c.Name, t.Certificate(c), c.SHA256[:min(8, len(c.SHA256))])
}

// Title is the title of a prompt's window.
func (t Texts) Title(p control.Prompt) string {
	switch p.Kind {
	case control.PromptConsent:
		return t.consent
	case control.PromptCertificate:
		return t.choose
	case control.PromptPINChange:
		return t.ChangePIN
	case control.PromptPINUnblock:
		return t.UnblockPIN
	}
	return t.unlock
}

// Question is what a prompt asks.
func (t Texts) Question(p control.Prompt) string {
	program := p.Program
	if program == "" {
		program = t.unknownProgram
	}
	who := p.Name
	if who == "" {
		who = p.CardLabel
	}
	switch {
	case p.Kind == control.PromptConsent:
		return fmt.Sprintf(t.askConsent, program, who, p.Host)
	case p.Kind == control.PromptCertificate:
		return fmt.Sprintf(t.askChoice, p.Host)
	case p.Kind == control.PromptPINChange && p.ToBeChanged:
		return t.activate + " " + fmt.Sprintf(t.askNewPIN, who)
	case p.Kind == control.PromptPINChange:
		return fmt.Sprintf(t.askNewPIN, who)
	case p.Kind == control.PromptPINUnblock:
		return fmt.Sprintf(t.askPUK, who)
	case p.Kind != control.PromptPIN:
		return t.askUnknown
	case p.ToBeChanged:
		return t.activate + " " + fmt.Sprintf(t.askPIN, who)
	case p.Host == "":
		return fmt.Sprintf(t.askPIN, who)
	}
	return fmt.Sprintf(t.askPINFor, program, p.Host, who)
}

// Note is what the person should know of the program of a prompt, "" for nothing.
func (t Texts) Note(p control.Prompt) string { return t.notes[p.ProgramNote] }

// Until says when a prompt ends, "" for one that does not.
func (t Texts) Until(p control.Prompt) string {
	if p.Expires.IsZero() {
		return ""
	}
	return fmt.Sprintf(t.until, p.Expires.Local().Format(time.TimeOnly))
}

// Error says what went wrong and what to do.
func (t Texts) Error(err error) string {
	var ce *control.Error
	if !errors.As(err, &ce) {
		return err.Error()
	}
	if text, ok := t.errs[ce.Code]; ok {
		return text
	}
	return ce.Error()
}

func english() Texts {
	return Texts{
		pages: englishPages(), until: "Answer before %s.", know: "I know, try it",
		Unlock: "Unlock", Lock: "Lock", Quit: "Quit", OK: "OK", Cancel: "Cancel",
		Allow: "Allow", Deny: "Deny", Remember: "Remember this",
		FinalTry:  "This is the last try: a wrong PIN locks the card.",
		PinPad:    "Press OK, then enter the PIN on the card reader.",
		NoLogin:   "No certificate on this card can log in.",
		ChangePIN: "Change the PIN", UnblockPIN: "Unblock the PIN",
		OldPIN: "Old PIN", PUK: "PUK", NewPIN: "New PIN", NewPINAgain: "New PIN again",
		FinalPUK:   "This may be the last try: a wrong PUK makes the card useless.",
		PinPadNew:  "Press OK, then enter the codes on the card reader: the old PIN or the PUK, and the new PIN twice.",
		askNewPIN:  "Choose a new PIN for logging in (PIN1) with the card of %s. The PIN for signatures stays as it is.",
		askPUK:     "Enter the PUK of the card of %s and choose a new PIN for logging in (PIN1).",
		askUnknown: "The agent asks something that this app does not know. Update Kortti.",
		activate:   "The card has not been activated: change its PIN first. The old PIN is the activation PIN of its letter.",
		unlock:     "PIN", consent: "May it use your card?", choose: "Which certificate?",
		askPIN:         "Enter the PIN of the card of %s.",
		askPINFor:      "%s wants to log in to %s. Enter the PIN of the card of %s.",
		askConsent:     "%s wants to use the card of %s to log in to %s.",
		askChoice:      "Which certificate do you use at %s?",
		unknownProgram: "An unknown program", validUntil: "valid until",
		locked: "Locked.", unlocked: "Unlocked: programs can log in with it.",
		notConfirmed: "The card did not confirm that it is locked. Pull it out.",
		pinLocked:    "The PIN is locked. Unblock it with the PUK code.",
		countLow:     "A wrong PIN has been entered; few tries are left.",
		situations: [...]string{noAgent: "The agent is not running.", attention: "The card needs attention.",
			noReader: "No card reader was found.", noCard: "No card in the reader.", ready: "The card is ready.", unlocked: "The card is unlocked."},
		errs: map[string]string{
			control.CodeNotRunning:   "The agent is not running. Start it with: kortti agent",
			control.CodePINWrong:     "Wrong PIN.",
			control.CodePINRepeated:  "That PIN was wrong before. The card was not asked again.",
			control.CodePINCancelled: "Cancelled.",
			control.CodePINLocked:    "The PIN is locked. Unblock it with the PUK code.",
			control.CodePINNew:       "The new PIN cannot be used. Choose another.",
			control.CodePUKWrong:     "Wrong PUK.",
			control.CodePUKLocked:    "The PUK is locked. Order a new card.",
			control.CodeNoCard:       "There is no card in the reader.",
			control.CodeCardRemoved:  "The card was pulled out.",
		},
		notes: map[control.ProgramNote]string{
			control.NoteUnknown:     "Which program it is could not be proved: allow it only if you have just started one.",
			control.NoteInterpreter: "This program runs other programs: any of them may be asking.",
			control.NoteRemote:      "This program passes on what comes from another machine or from a container.",
			control.NoteSandbox:     "This program runs in a sandbox or container, perhaps with other files than yours.",
		},
	}
}

func finnish() Texts {
	return Texts{
		pages: finnishPages(), until: "Vastaa ennen kello %s.", know: "Tiedän, yritä silti",
		Unlock: "Avaa", Lock: "Lukitse", Quit: "Lopeta", OK: "OK", Cancel: "Peruuta",
		Allow: "Salli", Deny: "Estä", Remember: "Muista tämä",
		FinalTry:  "Tämä on viimeinen yritys: väärä tunnusluku lukitsee kortin.",
		PinPad:    "Paina OK ja anna tunnusluku kortinlukijalla.",
		NoLogin:   "Tämän kortin varmenteilla ei voi kirjautua.",
		ChangePIN: "Vaihda tunnusluku", UnblockPIN: "Avaa lukittu tunnusluku",
		OldPIN: "Vanha tunnusluku", PUK: "PUK-tunnusluku", NewPIN: "Uusi tunnusluku", NewPINAgain: "Uusi tunnusluku uudelleen",
		FinalPUK:   "Tämä voi olla viimeinen yritys: väärä PUK-tunnusluku tekee kortista käyttökelvottoman.",
		PinPadNew:  "Paina OK ja anna tunnusluvut kortinlukijalla: vanha tunnusluku tai PUK-tunnusluku ja kahdesti uusi tunnusluku.",
		askNewPIN:  "Valitse kirjautumiseen uusi tunnusluku (perustunnusluku, PIN1). Kortti: %s. Allekirjoitustunnusluku ei muutu.",
		askPUK:     "Anna kortin PUK-tunnusluku ja valitse kirjautumiseen uusi tunnusluku (perustunnusluku, PIN1). Kortti: %s.",
		askUnknown: "Agentti kysyy jotakin, mitä tämä sovellus ei tunne. Päivitä Kortti.",
		activate:   "Korttia ei ole aktivoitu: vaihda ensin sen tunnusluku. Vanha tunnusluku on kirjeessä tullut aktivointitunnusluku.",
		unlock:     "Tunnusluku", consent: "Saako korttia käyttää?", choose: "Mikä varmenne?",
		askPIN:         "Anna kortin tunnusluku. Kortti: %s.",
		askPINFor:      "%s haluaa kirjautua palveluun %s. Anna kortin tunnusluku. Kortti: %s.",
		askConsent:     "%s haluaa käyttää korttia (%s) palveluun %s kirjautumiseen.",
		askChoice:      "Mitä varmennetta käytät palvelussa %s?",
		unknownProgram: "Tuntematon ohjelma", validUntil: "voimassa",
		locked: "Lukittu.", unlocked: "Avattu: ohjelmat voivat kirjautua kortilla.",
		notConfirmed: "Kortti ei vahvistanut lukitusta. Ota kortti pois lukijasta.",
		pinLocked:    "Tunnusluku on lukittu. Avaa se PUK-tunnusluvulla.",
		countLow:     "Tunnusluku on annettu väärin; yrityksiä on vähän jäljellä.",
		situations: [...]string{noAgent: "Agentti ei ole käynnissä.", attention: "Kortti vaatii huomiota.",
			noReader: "Kortinlukijaa ei löydy.", noCard: "Lukijassa ei ole korttia.", ready: "Kortti on valmis.", unlocked: "Kortti on avattu."},
		errs: map[string]string{
			control.CodeNotRunning:   "Agentti ei ole käynnissä. Käynnistä se: kortti agent",
			control.CodePINWrong:     "Väärä tunnusluku.",
			control.CodePINRepeated:  "Sama tunnusluku oli jo väärä. Korttia ei käytetty uudelleen.",
			control.CodePINCancelled: "Peruutettu.",
			control.CodePINLocked:    "Tunnusluku on lukittu. Avaa se PUK-tunnusluvulla.",
			control.CodePINNew:       "Uutta tunnuslukua ei voi käyttää. Valitse toinen.",
			control.CodePUKWrong:     "Väärä PUK-tunnusluku.",
			control.CodePUKLocked:    "PUK-tunnusluku on lukittu. Tilaa uusi kortti.",
			control.CodeNoCard:       "Lukijassa ei ole korttia.",
			control.CodeCardRemoved:  "Kortti otettiin pois lukijasta.",
		},
		notes: map[control.ProgramNote]string{
			control.NoteUnknown:     "Ei voitu osoittaa, mikä ohjelma se on: salli se vain, jos olet juuri käynnistänyt jonkin.",
			control.NoteInterpreter: "Tämä ohjelma ajaa muita ohjelmia: kysyjä voi olla mikä tahansa niistä.",
			control.NoteRemote:      "Tämä ohjelma välittää sen, mitä tulee toiselta koneelta tai säiliöstä.",
			control.NoteSandbox:     "Tämä ohjelma toimii hiekkalaatikossa tai säiliössä, ehkä muilla tiedostoilla kuin sinun.",
		},
	}
}

func swedish() Texts {
	return Texts{
		pages: swedishPages(), until: "Svara före kl. %s.", know: "Jag vet, försök ändå",
		Unlock: "Lås upp", Lock: "Lås", Quit: "Avsluta", OK: "OK", Cancel: "Avbryt",
		Allow: "Tillåt", Deny: "Neka", Remember: "Kom ihåg detta",
		FinalTry:  "Detta är sista försöket: fel PIN-kod låser kortet.",
		PinPad:    "Tryck på OK och ange PIN-koden på kortläsaren.",
		NoLogin:   "Inget certifikat på kortet kan användas för inloggning.",
		ChangePIN: "Byt PIN-kod", UnblockPIN: "Lås upp PIN-koden",
		OldPIN: "Gammal PIN-kod", PUK: "PUK-kod", NewPIN: "Ny PIN-kod", NewPINAgain: "Ny PIN-kod igen",
		FinalPUK:   "Detta kan vara sista försöket: fel PUK-kod gör kortet oanvändbart.",
		PinPadNew:  "Tryck på OK och ange koderna på kortläsaren: den gamla PIN-koden eller PUK-koden, och den nya PIN-koden två gånger.",
		askNewPIN:  "Välj en ny PIN-kod för inloggning (PIN1). Kort: %s. PIN-koden för underskrift ändras inte.",
		askPUK:     "Ange kortets PUK-kod och välj en ny PIN-kod för inloggning (PIN1). Kort: %s.",
		askUnknown: "Agenten frågar något som den här appen inte känner till. Uppdatera Kortti.",
		activate:   "Kortet har inte aktiverats: byt först dess PIN-kod. Den gamla PIN-koden är aktiveringskoden i brevet.",
		unlock:     "PIN-kod", consent: "Får kortet användas?", choose: "Vilket certifikat?",
		askPIN:         "Ange kortets PIN-kod. Kort: %s.",
		askPINFor:      "%s vill logga in på %s. Ange kortets PIN-kod. Kort: %s.",
		askConsent:     "%s vill använda kortet (%s) för att logga in på %s.",
		askChoice:      "Vilket certifikat använder du på %s?",
		unknownProgram: "Ett okänt program", validUntil: "giltigt till",
		locked: "Låst.", unlocked: "Upplåst: program kan logga in med kortet.",
		notConfirmed: "Kortet bekräftade inte låsningen. Ta ut kortet.",
		pinLocked:    "PIN-koden är låst. Lås upp den med PUK-koden.",
		countLow:     "Fel PIN-kod har angetts; få försök återstår.",
		situations: [...]string{noAgent: "Agenten är inte igång.", attention: "Kortet kräver uppmärksamhet.",
			noReader: "Ingen kortläsare hittades.", noCard: "Inget kort i läsaren.", ready: "Kortet är klart.", unlocked: "Kortet är upplåst."},
		errs: map[string]string{
			control.CodeNotRunning:   "Agenten är inte igång. Starta den: kortti agent",
			control.CodePINWrong:     "Fel PIN-kod.",
			control.CodePINRepeated:  "Samma PIN-kod var fel förut. Kortet användes inte igen.",
			control.CodePINCancelled: "Avbrutet.",
			control.CodePINLocked:    "PIN-koden är låst. Lås upp den med PUK-koden.",
			control.CodePINNew:       "Den nya PIN-koden kan inte användas. Välj en annan.",
			control.CodePUKWrong:     "Fel PUK-kod.",
			control.CodePUKLocked:    "PUK-koden är låst. Beställ ett nytt kort.",
			control.CodeNoCard:       "Det finns inget kort i läsaren.",
			control.CodeCardRemoved:  "Kortet togs ut.",
		},
		notes: map[control.ProgramNote]string{
			control.NoteUnknown:     "Det kunde inte bevisas vilket program det är: tillåt det bara om du nyss har startat ett.",
			control.NoteInterpreter: "Det här programmet kör andra program: vilket som helst av dem kan fråga.",
			control.NoteRemote:      "Det här programmet förmedlar det som kommer från en annan dator eller från en container.",
			control.NoteSandbox:     "Det här programmet körs i en sandlåda eller container, kanske med andra filer än dina.",
		},
	}
}
