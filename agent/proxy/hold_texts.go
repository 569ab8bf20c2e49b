package proxy

// text is what a page says of a state of things.
type text struct {
	Title  string
	Advice []string
}

// words are the texts of a language. docs/glossary.md says which word stands for
// what.
type words struct {
	from      string // who says all this
	again     string // of the link
	sendAgain string // instead of the link, for forms
	waits     map[Wait]text
	codes     map[string]text // of answers
	other     text
}

// waiting is the text of a holding page.
func (w words) waiting(wait Wait, code string) text {
	if t, ok := w.codes[string(wait)+" "+code]; ok {
		return t
	}
	return w.waits[wait]
}

// of is the text of a page that stays.
func (w words) of(code string) text {
	for _, c := range []string{code, sameAs[code]} {
		if t, ok := w.codes[c]; ok {
			return t
		}
	}
	return w.other
}

// sameAs are codes that a person need not tell apart.
var sameAs = map[string]string{
	"cancelled":          "pin-cancelled",
	"pin-refused-before": "pin-wrong",
	"pin-length":         "pin-wrong",
	"pin-final-try":      "pin-wrong",
	"host-changed":       "ending",
	"not-listed":         "misdirected",
	"module-crashed":     "module",
	"module-hung":        "module",
	"prompt-full":        "prompt-expired",
	"timeout":            "upstream-timeout",
	"withdrawn":          "prompt-expired",
	"mechanism":          "module",
	"unreachable":        "upstream-unreachable",
	"pin-unusable":       "module",
	"no-reader":          "no-card",
	"card-removed":       "no-card",
}

var languages = map[string]words{"en": english, "fi": finnish, "sv": swedish}

var english = words{
	from:      "This page is from Kortti, the program on this computer that uses your card, not from the site.",
	again:     "Try again",
	sendAgain: "What you sent did not reach the site. Go back, and send it again.",
	waits: map[Wait]text{
		WaitPIN: {"Enter your PIN", []string{
			"The site asks for your card. Kortti asks you for its PIN in a window or a terminal of its own.",
			"This page goes on by itself. Never type the PIN of your card into a web page."}},
		WaitConsent: {"May this browser use your card here?", []string{
			"Kortti asks you in a window or a terminal of its own.", "This page goes on by itself when you have answered."}},
		WaitCertificate: {"Which certificate?", []string{
			"Several certificates fit this site. Kortti asks you in a window or a terminal of its own.", "This page goes on by itself when you have chosen."}},
		WaitCard: {"Insert your card", []string{
			"The site asks for your card, and there is none in the reader. This page goes on by itself when you insert it.",
			"If it is in the reader: kortti doctor says why it is not seen."}},
	},
	codes: map[string]text{
		"card no-reader": {"Connect a card reader", []string{
			"The site asks for your card, and no card reader is connected. This page goes on by itself when your card is there."}},
		"card no-certificate": {"The site does not take this card", []string{
			"Insert the card that it takes. This page goes on by itself when you do.",
			"Why it does not take the card in the reader: kortti why, with the name of the site."}},
		"no-card":        {"There is no card in the reader", []string{"Insert your card and try again."}},
		"no-certificate": {"The site does not take this card", []string{"Insert the card that it takes and try again."}},
		"pin-cancelled":  {"You cancelled", []string{"The card was not used."}},
		"no-consent":     {"You did not allow it", []string{"The card was not used for this site. If you try again, you are asked again."}},
		"prompt-paused":  {"You have just said no", []string{"Kortti does not ask again at once. Wait ten seconds, longer after several times, and try again."}},
		"prompt-expired": {"Nobody answered", []string{"Kortti asked, and waited a minute for an answer. The card was not used."}},
		"no-front-end":   {"Nobody can be asked", []string{"Kortti needs your answer, but nothing that could ask you is running. Start the tray app, or run kortti prompt in a terminal, and try again."}},
		"away":           {"The screen was locked", []string{"Kortti stopped asking when the screen was locked. Try again now that you are back."}},
		"pin-wrong":      {"The PIN was not right", []string{"The site was not reached. Try again with the right PIN: too many wrong ones lock the card."}},
		"pin-locked":     {"The PIN of the card is locked", []string{"Too many wrong PINs were entered. Set a new PIN with the PUK: in the tray app, or with kortti pin unblock."}},
		"locked":         {"The card was locked", []string{"Try again to enter the PIN anew."}},
		"ambiguous":      {"Several certificates fit", []string{"Set in Kortti's list of hosts which certificate this site gets."}},
		"ending":         {"Kortti has changed or is ending", []string{"The site was taken off the list, its settings were changed, or the agent ends."}},
		"misdirected":    {"The site is not listed any more", []string{"Open it in a new tab, or list it with kortti hosts add."}},
		"module":         {"The card does not work", []string{"The card's driver has failed. Take the card out, insert it again and try again. kortti doctor says what may be wrong."}},
		"lock-not-confirmed": {"Take the card out of the reader", []string{
			"Another program holds the card, so that it could not be locked for sure. Take it out, insert it again and try again."}},
		"upstream-unreachable": {"The site cannot be reached", []string{"Check the address and the network."}},
		"upstream-timeout":     {"The site does not answer", []string{"Try again in a moment."}},
		"upstream-certificate": {"The site's own certificate is not trusted", []string{
			"What answers may not be the site. The card was not used. If the site has a private CA, set tls_roots for it in Kortti's list of hosts."}},
		"upstream": {"The site has broken off", []string{"The connection to the site failed. Try again; kortti why says what the site wants."}},
	},
	other: text{"This page cannot be shown", []string{"Something went wrong on the way to the site."}},
}

var finnish = words{
	from:      "Tämän sivun näyttää Kortti, tämän tietokoneen ohjelma, joka käyttää korttiasi. Se ei tule palvelusta.",
	again:     "Yritä uudelleen",
	sendAgain: "Lähettämäsi tiedot eivät menneet palveluun. Palaa takaisin ja lähetä ne uudelleen.",
	waits: map[Wait]text{
		WaitPIN: {"Anna tunnusluku", []string{
			"Palvelu pyytää korttiasi. Kortti kysyy tunnuslukua omassa ikkunassaan tai päätteessä.",
			"Tämä sivu jatkuu itsestään. Älä koskaan kirjoita korttisi tunnuslukua verkkosivulle."}},
		WaitConsent: {"Saako tämä selain käyttää korttiasi täällä?", []string{
			"Kortti kysyy sitä omassa ikkunassaan tai päätteessä.", "Tämä sivu jatkuu itsestään, kun olet vastannut."}},
		WaitCertificate: {"Mikä varmenne?", []string{
			"Tähän palveluun sopii useampi varmenne. Kortti kysyy, mikä niistä, omassa ikkunassaan tai päätteessä.", "Tämä sivu jatkuu itsestään, kun olet valinnut."}},
		WaitCard: {"Aseta kortti lukijaan", []string{
			"Palvelu pyytää korttiasi, eikä lukijassa ole korttia. Tämä sivu jatkuu itsestään, kun asetat sen.",
			"Jos kortti on jo lukijassa: kortti doctor kertoo, miksi sitä ei nähdä."}},
	},
	codes: map[string]text{
		"card no-reader": {"Liitä kortinlukija", []string{
			"Palvelu pyytää korttiasi, eikä kortinlukijaa ole. Tämä sivu jatkuu itsestään, kun kortti on paikallaan."}},
		"card no-certificate": {"Palvelu ei hyväksy tätä korttia", []string{
			"Aseta lukijaan kortti, jonka palvelu hyväksyy. Tämä sivu jatkuu silloin itsestään.",
			"Miksi lukijassa oleva kortti ei kelpaa: kortti why ja palvelun nimi."}},
		"no-card":        {"Lukijassa ei ole korttia", []string{"Aseta kortti ja yritä uudelleen."}},
		"no-certificate": {"Palvelu ei hyväksy tätä korttia", []string{"Aseta kortti, jonka palvelu hyväksyy, ja yritä uudelleen."}},
		"pin-cancelled":  {"Peruutit", []string{"Korttia ei käytetty."}},
		"no-consent":     {"Et sallinut sitä", []string{"Korttia ei käytetty tässä palvelussa. Jos yrität uudelleen, sinulta kysytään uudelleen."}},
		"prompt-paused":  {"Vastasit juuri ei", []string{"Kortti ei kysy heti uudelleen. Odota kymmenen sekuntia, usean kerran jälkeen pidempään, ja yritä uudelleen."}},
		"prompt-expired": {"Kukaan ei vastannut", []string{"Kortti kysyi ja odotti vastausta minuutin. Korttia ei käytetty."}},
		"no-front-end":   {"Keneltäkään ei voi kysyä", []string{"Kortti tarvitsee vastauksesi, mutta mikään kysyvä ohjelma ei ole käynnissä. Käynnistä ilmoitusalueen sovellus tai suorita päätteessä kortti prompt, ja yritä uudelleen."}},
		"away":           {"Näyttö lukittiin", []string{"Kortti lakkasi kysymästä, kun näyttö lukittiin. Yritä nyt uudelleen."}},
		"pin-wrong":      {"Tunnusluku ei ollut oikein", []string{"Palveluun ei päästy. Yritä uudelleen oikealla tunnusluvulla: liian monta väärää lukitsee kortin."}},
		"pin-locked":     {"Kortin tunnusluku on lukittu", []string{"Väärä tunnusluku on annettu liian monta kertaa. Avaa se PUK-tunnusluvulla ilmoitusalueen sovelluksessa tai komennolla kortti pin unblock."}},
		"locked":         {"Kortti lukittiin", []string{"Yritä uudelleen ja anna tunnusluku."}},
		"ambiguous":      {"Useampi varmenne sopii", []string{"Määritä Kortin palveluluettelossa, minkä varmenteen tämä palvelu saa."}},
		"ending":         {"Kortin asetukset muuttuivat tai se päättyy", []string{"Palvelu poistettiin luettelosta, sen asetuksia muutettiin tai agentti päättyy."}},
		"misdirected":    {"Palvelu ei ole enää luettelossa", []string{"Avaa se uudessa välilehdessä tai lisää se komennolla kortti hosts add."}},
		"module":         {"Kortti ei toimi", []string{"Kortin ajuri epäonnistui. Ota kortti pois, aseta se takaisin ja yritä uudelleen. Komento kortti doctor kertoo, mikä voi olla vikana."}},
		"lock-not-confirmed": {"Ota kortti pois lukijasta", []string{
			"Toinen ohjelma pitää korttia varattuna, joten sen lukitseminen ei ole varmaa. Ota se pois, aseta takaisin ja yritä uudelleen."}},
		"upstream-unreachable": {"Palveluun ei saada yhteyttä", []string{"Tarkista osoite ja verkkoyhteys."}},
		"upstream-timeout":     {"Palvelu ei vastaa", []string{"Yritä hetken kuluttua uudelleen."}},
		"upstream-certificate": {"Palvelun omaan varmenteeseen ei luoteta", []string{
			"Vastaaja ei ehkä ole oikea palvelu. Korttia ei käytetty. Jos palvelulla on yksityinen varmentaja, määritä sille tls_roots Kortin palveluluettelossa."}},
		"upstream": {"Yhteys palveluun katkesi", []string{"Yritä uudelleen. Komento kortti why kertoo, mitä palvelu haluaa."}},
	},
	other: text{"Sivua ei voi näyttää", []string{"Matkalla palveluun tapahtui virhe."}},
}

var swedish = words{
	from:      "Den här sidan kommer från Kortti, programmet på den här datorn som använder ditt kort, och inte från tjänsten.",
	again:     "Försök igen",
	sendAgain: "Det som du skickade nådde inte tjänsten. Gå tillbaka och skicka det igen.",
	waits: map[Wait]text{
		WaitPIN: {"Ange PIN-koden", []string{
			"Tjänsten ber om ditt kort. Kortti frågar efter PIN-koden i ett eget fönster eller i en terminal.",
			"Sidan fortsätter av sig själv. Skriv aldrig kortets PIN-kod på en webbsida."}},
		WaitConsent: {"Får den här webbläsaren använda ditt kort här?", []string{
			"Kortti frågar i ett eget fönster eller i en terminal.", "Sidan fortsätter av sig själv när du har svarat."}},
		WaitCertificate: {"Vilket certifikat?", []string{
			"Flera certifikat passar tjänsten. Kortti frågar vilket i ett eget fönster eller i en terminal.", "Sidan fortsätter av sig själv när du har valt."}},
		WaitCard: {"Sätt i kortet", []string{
			"Tjänsten ber om ditt kort, och det finns inget i läsaren. Sidan fortsätter av sig själv när du sätter i det.",
			"Om kortet redan är i läsaren: kortti doctor säger varför det inte syns."}},
	},
	codes: map[string]text{
		"card no-reader": {"Anslut en kortläsare", []string{
			"Tjänsten ber om ditt kort, och ingen kortläsare är ansluten. Sidan fortsätter av sig själv när kortet finns där."}},
		"card no-certificate": {"Tjänsten godtar inte det här kortet", []string{
			"Sätt i det kort som tjänsten godtar. Då fortsätter sidan av sig själv.",
			"Varför kortet i läsaren inte duger: kortti why med tjänstens namn."}},
		"no-card":        {"Det finns inget kort i läsaren", []string{"Sätt i kortet och försök igen."}},
		"no-certificate": {"Tjänsten godtar inte det här kortet", []string{"Sätt i det kort som tjänsten godtar och försök igen."}},
		"pin-cancelled":  {"Du avbröt", []string{"Kortet användes inte."}},
		"no-consent":     {"Du tillät det inte", []string{"Kortet användes inte för den här tjänsten. Om du försöker igen blir du tillfrågad igen."}},
		"prompt-paused":  {"Du svarade nyss nej", []string{"Kortti frågar inte genast igen. Vänta tio sekunder, längre efter flera gånger, och försök igen."}},
		"prompt-expired": {"Ingen svarade", []string{"Kortti frågade och väntade en minut på svar. Kortet användes inte."}},
		"no-front-end":   {"Ingen kan tillfrågas", []string{"Kortti behöver ditt svar, men inget program som kan fråga är i gång. Starta programmet i meddelandefältet, eller kör kortti prompt i en terminal, och försök igen."}},
		"away":           {"Skärmen låstes", []string{"Kortti slutade fråga när skärmen låstes. Försök igen nu."}},
		"pin-wrong":      {"PIN-koden var inte rätt", []string{"Tjänsten nåddes inte. Försök igen med rätt PIN-kod: för många felaktiga låser kortet."}},
		"pin-locked":     {"Kortets PIN-kod är låst", []string{"Fel PIN-kod har angetts för många gånger. Lås upp den med PUK-koden i programmet i meddelandefältet eller med kortti pin unblock."}},
		"locked":         {"Kortet låstes", []string{"Försök igen och ange PIN-koden på nytt."}},
		"ambiguous":      {"Flera certifikat passar", []string{"Ange i Korttis lista vilket certifikat tjänsten får."}},
		"ending":         {"Kortti har ändrats eller avslutas", []string{"Tjänsten togs bort från listan, dess inställningar ändrades eller så avslutas agenten."}},
		"misdirected":    {"Tjänsten finns inte längre i listan", []string{"Öppna den i en ny flik, eller lägg till den med kortti hosts add."}},
		"module":         {"Kortet fungerar inte", []string{"Kortets drivrutin misslyckades. Ta ut kortet, sätt i det igen och försök på nytt. kortti doctor säger vad som kan vara fel."}},
		"lock-not-confirmed": {"Ta ut kortet ur läsaren", []string{
			"Ett annat program håller kortet, så det är inte säkert att det låstes. Ta ut det, sätt i det igen och försök på nytt."}},
		"upstream-unreachable": {"Tjänsten kan inte nås", []string{"Kontrollera adressen och nätverket."}},
		"upstream-timeout":     {"Tjänsten svarar inte", []string{"Försök igen om en stund."}},
		"upstream-certificate": {"Tjänstens eget certifikat är inte betrott", []string{
			"Den som svarar är kanske inte tjänsten. Kortet användes inte. Om tjänsten har en privat certifikatutfärdare, ange tls_roots för den i Korttis lista."}},
		"upstream": {"Förbindelsen till tjänsten bröts", []string{"Försök igen. kortti why säger vad tjänsten vill ha."}},
	},
	other: text{"Sidan kan inte visas", []string{"Något gick fel på vägen till tjänsten."}},
}
