package verify

// Text is what a person should read about a refusal: what is the matter and
// what to do, in Finnish ("fi"), Swedish ("sv") or English (any other). Codes
// that are not of this package get a general text.
func Text(code, language string) string {
	text, ok := texts[code]
	if !ok {
		text = generalText
	}
	switch language {
	case "fi":
		return text.fi
	case "sv":
		return text.sv
	}
	return text.en
}

type languages struct{ fi, sv, en string }

var generalText = languages{
	fi: "Kirjautuminen kortilla ei onnistunut. Ota yhteys palvelun tukeen.",
	sv: "Inloggningen med kortet lyckades inte. Kontakta tjänstens stöd.",
	en: "Logging in with the card did not succeed. Please contact the support of this service.",
}

var texts = map[string]languages{
	CodeNoCertificate: {
		fi: "Korttia ei löytynyt. Aseta kortti lukijaan ja yritä uudelleen.",
		sv: "Inget kort hittades. Sätt kortet i läsaren och försök igen.",
		en: "No card was found. Put the card into the reader and try again.",
	},
	CodeBadCertificate: {
		fi: "Kortin varmennetta ei voitu lukea. Ota yhteys palvelun tukeen.",
		sv: "Certifikatet på kortet kunde inte läsas. Kontakta tjänstens stöd.",
		en: "The certificate on the card could not be read. Please contact the support of this service.",
	},
	CodeNotYetValid: {
		fi: "Kortin varmenne ei ole vielä voimassa. Tarkista kortin alkamispäivä.",
		sv: "Certifikatet på kortet gäller inte ännu. Kontrollera kortets startdatum.",
		en: "The certificate on the card is not valid yet. Check the first day of validity of the card.",
	},
	CodeExpired: {
		fi: "Kortin varmenne on vanhentunut. Tarvitset uuden kortin.",
		sv: "Certifikatet på kortet har gått ut. Du behöver ett nytt kort.",
		en: "The certificate on the card has expired. You need a new card.",
	},
	CodeWrongPurpose: {
		fi: "Tätä varmennetta ei voi käyttää kirjautumiseen. Valitse kortin tunnistautumisvarmenne (perustunnusluku, PIN1).",
		sv: "Detta certifikat kan inte användas för inloggning. Välj kortets autentiseringscertifikat (bas-PIN, PIN1).",
		en: "This certificate is not for logging in. Choose the authentication certificate of the card (basic PIN, PIN1).",
	},
	CodeUntrustedIssuer: {
		fi: "Tämä palvelu ei hyväksy kortin myöntäjää.",
		sv: "Den här tjänsten godkänner inte kortets utfärdare.",
		en: "This service does not accept cards of this issuer.",
	},
	CodeWeakKey: {
		fi: "Kortti on liian vanha: sen salaus ei enää ole turvallinen. Tarvitset uuden kortin.",
		sv: "Kortet är för gammalt: dess kryptering är inte längre säker. Du behöver ett nytt kort.",
		en: "The card is too old: its cryptography is no longer safe. You need a new card.",
	},
	CodePolicy: {
		fi: "Tämä palvelu ei hyväksy tämäntyyppistä korttia.",
		sv: "Den här tjänsten godkänner inte kort av den här typen.",
		en: "This service does not accept cards of this kind.",
	},
	CodeBadIdentity: {
		fi: "Kortin varmenteesta ei selviä, kenen se on. Ota yhteys palvelun tukeen.",
		sv: "Av kortets certifikat framgår inte vems det är. Kontakta tjänstens stöd.",
		en: "The certificate on the card does not say clearly whose it is. Please contact the support of this service.",
	},
	CodeRevoked: {
		fi: "Kortin varmenne on peruttu, joten sillä ei voi kirjautua. Jos et ole itse ilmoittanut korttia kadonneeksi, ota yhteys kortin myöntäjään.",
		sv: "Certifikatet på kortet har spärrats, så det kan inte användas för inloggning. Om du inte själv har anmält kortet som förlorat, kontakta kortets utfärdare.",
		en: "The certificate on the card has been revoked, so it cannot be used to log in. If you have not reported the card lost, contact the card's issuer.",
	},
	CodeRevocationUnknown: {
		fi: "Kortin voimassaoloa ei juuri nyt voitu tarkistaa. Kortissasi ei ole vikaa: yritä hetken kuluttua uudelleen.",
		sv: "Just nu gick det inte att kontrollera om kortet gäller. Det är inget fel på ditt kort: försök igen om en stund.",
		en: "It could not be checked just now whether the card is still valid. Nothing is wrong with your card: try again in a while.",
	},
}
