package gui

// pageTexts are the words of the window's pages.
type pageTexts struct {
	cards, hosts, activity, settings, health string // the pages

	hostsIntro, noHosts, add, remove, why, inFile string
	notAHost, added, notAsked, kept, dropped      string

	counters, noActivity, aProgram string
	decisions                      map[string]string // by AuditRecord.Decision

	idleLock, proxyIs, fileIs                     string
	idleLocks                                     [4]string // as the variable idleLocks
	trustIntro, install, uninstall, restart, done string
	trustsAll, trustsNone, trustsSome             string

	healthIntro, again, looking, healthy string
}

func englishPages() pageTexts {
	return pageTexts{
		cards: "Cards", hosts: "Sites", activity: "Activity", settings: "Settings", health: "Problems",
		hostsIntro: "Sites that you log in to with the card. Paste the address of the login page.",
		noHosts:    "No sites yet.", add: "Add", remove: "Remove", why: "Why?", inFile: "set in kortti.toml",
		notAHost: "That is not the address of a site. It looks like https://asiointi.example.fi/",
		added:    "Added. Let the browsers trust it under Settings, then start them again.",
		notAsked: "The site did not ask for a certificate.", kept: "Would be sent", dropped: "Not sent",
		counters: "Signatures: %d · avoided: %d · requests: %d", noActivity: "Nothing has happened yet.", aProgram: "A program",
		decisions: map[string]string{
			"consent": "{program} may use the card at {host}.", "consent-denied": "{program} may not use the card at {host}.", "consent-ended": "A consent was taken back.",
			"unlock": "The card was unlocked.", "unlock-refused": "The card was not unlocked. {reason}", "lock": "The card was locked. {reason}",
			"pin-changed": "The PIN was changed.", "pin-unblocked": "The PIN was unblocked.", "pin-kept": "The PIN stayed as it was. {reason}",
			"removed": "The card was pulled out.", "chosen": "A certificate was chosen for {host}.", "signature": "Logged in to {host}.",
			"host-listed": "{host} was added.", "host-dropped": "{host} was removed.", "settings": "Settings: {reason}",
		},
		idleLock: "Lock the card when it has not been used for", idleLocks: [4]string{"5 minutes", "15 minutes", "1 hour", "never lock"},
		proxyIs: "The proxy for programs: %s", fileIs: "Settings file: %s",
		trustIntro: "Browsers must trust the certificates that Kortti shows them for the listed sites.",
		install:    "Trust in all browsers", uninstall: "Remove from all browsers", restart: "Start again: %s.", done: "Done.",
		trustsAll: "trusts all sites", trustsNone: "nothing to trust yet", trustsSome: "trusts %d of %d sites",
		healthIntro: "What keeps the card from working, and what to do.", again: "Look again", looking: "Looking at readers, cards and settings …", healthy: "Everything is well.",
	}
}

func finnishPages() pageTexts {
	return pageTexts{
		cards: "Kortit", hosts: "Palvelut", activity: "Tapahtumat", settings: "Asetukset", health: "Ongelmat",
		hostsIntro: "Palvelut, joihin kirjaudut kortilla. Liitä kirjautumissivun osoite.",
		noHosts:    "Ei vielä palveluja.", add: "Lisää", remove: "Poista", why: "Miksi?", inFile: "asetettu tiedostossa kortti.toml",
		notAHost: "Tämä ei ole palvelun osoite. Osoite on muotoa https://asiointi.example.fi/",
		added:    "Lisätty. Anna selainten luottaa siihen Asetuksissa ja käynnistä selaimet uudelleen.",
		notAsked: "Palvelu ei pyytänyt varmennetta.", kept: "Lähetettäisiin", dropped: "Ei lähetetä",
		counters: "Allekirjoituksia: %d · vältetty: %d · pyyntöjä: %d", noActivity: "Mitään ei ole vielä tapahtunut.", aProgram: "Ohjelma",
		decisions: map[string]string{
			"consent": "{program} saa käyttää korttia palvelussa {host}.", "consent-denied": "{program} ei saa käyttää korttia palvelussa {host}.", "consent-ended": "Lupa peruttiin.",
			"unlock": "Kortti avattiin.", "unlock-refused": "Korttia ei avattu. {reason}", "lock": "Kortti lukittiin. {reason}",
			"pin-changed": "Tunnusluku vaihdettiin.", "pin-unblocked": "Lukittu tunnusluku avattiin.", "pin-kept": "Tunnusluku jäi ennalleen. {reason}",
			"removed": "Kortti otettiin pois.", "chosen": "Palvelulle {host} valittiin varmenne.", "signature": "Kirjauduttiin palveluun {host}.",
			"host-listed": "{host} lisättiin.", "host-dropped": "{host} poistettiin.", "settings": "Asetukset: {reason}",
		},
		idleLock: "Lukitse kortti, kun sitä ei ole käytetty", idleLocks: [4]string{"5 minuuttiin", "15 minuuttiin", "tuntiin", "älä lukitse"},
		proxyIs: "Välityspalvelin ohjelmille: %s", fileIs: "Asetustiedosto: %s",
		trustIntro: "Selainten pitää luottaa varmenteisiin, jotka Kortti näyttää niille luettelon palveluista.",
		install:    "Luota kaikissa selaimissa", uninstall: "Poista kaikista selaimista", restart: "Käynnistä uudelleen: %s.", done: "Valmis.",
		trustsAll: "luottaa kaikkiin palveluihin", trustsNone: "ei vielä mitään luotettavaa", trustsSome: "luottaa palveluihin %d/%d",
		healthIntro: "Mikä estää korttia toimimasta ja mitä tehdä.", again: "Tarkista uudelleen", looking: "Tarkistetaan lukijoita, kortteja ja asetuksia …", healthy: "Kaikki on kunnossa.",
	}
}

func swedishPages() pageTexts {
	return pageTexts{
		cards: "Kort", hosts: "Tjänster", activity: "Händelser", settings: "Inställningar", health: "Problem",
		hostsIntro: "Tjänster som du loggar in på med kortet. Klistra in inloggningssidans adress.",
		noHosts:    "Inga tjänster än.", add: "Lägg till", remove: "Ta bort", why: "Varför?", inFile: "anges i kortti.toml",
		notAHost: "Det är inte en tjänsts adress. Den ser ut som https://asiointi.example.fi/",
		added:    "Tillagd. Låt webbläsarna lita på den under Inställningar och starta om dem.",
		notAsked: "Tjänsten bad inte om något certifikat.", kept: "Skulle skickas", dropped: "Skickas inte",
		counters: "Underskrifter: %d · undvikna: %d · förfrågningar: %d", noActivity: "Ingenting har hänt än.", aProgram: "Ett program",
		decisions: map[string]string{
			"consent": "{program} får använda kortet på {host}.", "consent-denied": "{program} får inte använda kortet på {host}.", "consent-ended": "Ett tillstånd togs tillbaka.",
			"unlock": "Kortet låstes upp.", "unlock-refused": "Kortet låstes inte upp. {reason}", "lock": "Kortet låstes. {reason}",
			"pin-changed": "PIN-koden byttes.", "pin-unblocked": "PIN-koden låstes upp.", "pin-kept": "PIN-koden är som förut. {reason}",
			"removed": "Kortet togs ut.", "chosen": "Ett certifikat valdes för {host}.", "signature": "Loggade in på {host}.",
			"host-listed": "{host} lades till.", "host-dropped": "{host} togs bort.", "settings": "Inställningar: {reason}",
		},
		idleLock: "Lås kortet när det inte har använts på", idleLocks: [4]string{"5 minuter", "15 minuter", "1 timme", "lås inte"},
		proxyIs: "Proxyn för program: %s", fileIs: "Inställningsfil: %s",
		trustIntro: "Webbläsarna måste lita på de certifikat som Kortti visar dem för tjänsterna i listan.",
		install:    "Lita i alla webbläsare", uninstall: "Ta bort ur alla webbläsare", restart: "Starta om: %s.", done: "Klart.",
		trustsAll: "litar på alla tjänster", trustsNone: "inget att lita på än", trustsSome: "litar på %d av %d tjänster",
		healthIntro: "Vad som hindrar kortet från att fungera, och vad man gör.", again: "Kontrollera igen", looking: "Tittar på läsare, kort och inställningar …", healthy: "Allt är bra.",
	}
}
