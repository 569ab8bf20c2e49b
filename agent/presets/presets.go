// Package presets is a list of Finnish services that take cards, with the hosts
// that ask for the certificate: those are rarely the hosts that a person knows.
//
// The list is made of public reports, each named with its date; the project has
// had no real card to try them with, and the list says so. A host is in it only
// where a source names that very host. The package asks nobody and changes
// nothing.
package presets

import "slices"

// Preset is one service.
type Preset struct {
	Name  string `json:"name"`  // for `kortti hosts add --preset`
	Title string `json:"title"` // for people
	// Hosts ask for the certificate.
	Hosts []string `json:"hosts"`
	// Via are hosts on the way of the login that ask for none: a person chooses
	// the card there, so a probe ends before it gets to Hosts.
	Via []string `json:"via,omitempty"`
	// Start is where a login begins, "" where only each service knows.
	Start  string `json:"start,omitempty"`
	Note   string `json:"note,omitempty"`
	Source string `json:"source"` // who says so
	Date   string `json:"date"`   // of the source, YYYY-MM-DD or YYYY-MM
	// Tried tells that the project itself has logged in there with a card.
	Tried bool `json:"tried"`
}

// All returns the presets, those that most people need first.
func All() []Preset {
	return []Preset{
		{
			Name: "suomi.fi", Title: "Suomi.fi e-Identification: Suomi.fi, Kela, Vero, OmaKanta and most public services",
			Hosts: []string{"kortti.tunnistautuminen.suomi.fi"}, Via: []string{"tunnistautuminen.suomi.fi"},
			Start:  "https://www.suomi.fi/",
			Note:   "Choose the certificate card (varmennekortti, certifikatkort) on the login page. TLS 1.2, asked in the first handshake. The host's own certificate was seen to come from Telia Root CA v2.",
			Source: "notes of the RefineID project on card logins; a public browser extension of Carecode names the host as Suomi.fi's card host", Date: "2026-08-17",
		},
		{
			Name: "dvv-test", Title: "DVV's test page for the certificates on cards",
			Hosts: []string{"dvv.fineid.fi"}, Start: "https://dvv.fineid.fi/en/authentication",
			Note:   "TLS 1.2.",
			Source: "dvv.fi names the page; notes of the RefineID project and of Mikaela Suomalainen", Date: "2026-07",
		},
		{
			Name: "iki", Title: "Internet-käyttäjät ikuisesti (IKI): the members' own settings",
			Hosts: []string{"admin.iki.fi"}, Start: "https://admin.iki.fi/",
			Note:   "Asks only after the request, by renegotiation in TLS 1.2.",
			Source: "notes of the RefineID project on card logins", Date: "2026-07-27",
		},
		{
			Name: "refineid-test", Title: "RefineID's test page for cards",
			Hosts: []string{"card.refineid.fi"}, Start: "https://card.refineid.fi/",
			Note:   "TLS 1.3; the page opens without a card too.",
			Source: "notes of the RefineID project on card logins", Date: "2026-09-05",
		},
	}
}

// Find returns the preset of a name.
func Find(name string) (Preset, bool) {
	all := All()
	i := slices.IndexFunc(all, func(p Preset) bool { return p.Name == name })
	if i < 0 {
		return Preset{}, false
	}
	return all[i], true
}

// Behind returns the preset whose login goes over a host on which a person
// chooses the card.
func Behind(host string) (Preset, bool) {
	all := All()
	i := slices.IndexFunc(all, func(p Preset) bool { return slices.Contains(p.Via, host) })
	if i < 0 {
		return Preset{}, false
	}
	return all[i], true
}
