package door

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kortti-id/kortti/server/verify"
)

// Lang is a language of the pages.
type Lang string

// languages are those of the pages; the first one is for those who want none of
// them.
var languages = []Lang{"en", "fi", "sv"}

// text is one sentence of the pages in every language.
type text struct{ fi, sv, en string }

func (t text) in(l Lang) string {
	switch l {
	case "fi":
		return t.fi
	case "sv":
		return t.sv
	}
	return t.en
}

// texts are all words of the pages. Keys that begin with "code." explain the
// reason codes of this package; package verify explains its own.
var texts = map[string]text{
	"login.title":    {"Kirjautuminen kortilla", "Inloggning med kort", "Log in with your card"},
	"login.question": {"Oletko tämä sinä?", "Är det här du?", "Is this you?"},
	"login.button":   {"Kyllä, kirjaudu sisään", "Ja, logga in", "Yes, log in"},
	"login.other":    {"Jos et, ota kortti pois lukijasta ja vaihda se omaasi.", "Om inte, ta ut kortet ur läsaren och byt till ditt eget.", "If not, take the card out of the reader and use your own."},
	"login.new":      {"Sinulla ei ole vielä tiliä täällä. Kirjautuminen luo sen, ja ylläpitäjä hyväksyy sen ennen kuin pääset sisään.", "Du har inget konto här än. Inloggningen skapar ett, och en administratör godkänner det innan du kommer in.", "You have no account here yet. Logging in makes one, and an administrator has to approve it before you can get in."},
	"login.goodbye":  {"Olet kirjautunut ulos. Kortti on yhä lukijassa: ota se pois, kun lähdet.", "Du är utloggad. Kortet sitter kvar i läsaren: ta ut det när du går.", "You are logged out. Your card is still in the reader: take it out when you leave."},

	"inactive.title": {"Tilisi odottaa hyväksyntää", "Ditt konto väntar på godkännande", "Your account waits for approval"},
	"inactive.text":  {"Korttisi tunnistettiin, mutta tilisi ei ole vielä aktiivinen. Ylläpitäjän on hyväksyttävä se ennen kuin pääset sisään.", "Ditt kort kändes igen, men ditt konto är inte aktivt. En administratör måste godkänna det innan du kommer in.", "Your card was recognised, but your account is inactive. An administrator has to approve it before you can get in."},
	"inactive.user":  {"Kerro ylläpitäjälle tämä käyttäjätunnus:", "Ge administratören det här användarnamnet:", "Give the administrator this user name:"},
	"inactive.again": {"Yritä uudelleen", "Försök igen", "Try again"},

	"account.title":   {"Oma tili", "Mitt konto", "Your account"},
	"account.session": {"Istunto päättyy viimeistään", "Sessionen slutar senast", "Session ends at the latest"},
	"account.logout":  {"Kirjaudu ulos", "Logga ut", "Log out"},

	"field.name":        {"Nimi", "Namn", "Name"},
	"field.username":    {"Käyttäjätunnus", "Användarnamn", "User name"},
	"field.email":       {"Sähköposti", "E-post", "E-mail"},
	"field.roles":       {"Roolit", "Roller", "Roles"},
	"field.certificate": {"Varmenne", "Certifikat", "Certificate"},
	"field.issuer":      {"Varmenteen myöntäjä", "Certifikatets utfärdare", "Certificate issued by"},
	"field.serial":      {"Varmenteen sarjanumero", "Certifikatets serienummer", "Certificate serial number"},
	"field.notafter":    {"Varmenne voimassa", "Certifikatet gäller till", "Certificate valid until"},
	"field.sha256":      {"Varmenteen SHA-256", "Certifikatets SHA-256", "Certificate SHA-256"},

	"refused.title": {"Et pääse sisään", "Du kommer inte in", "You cannot get in"},
	"refused.code":  {"Syykoodi", "Orsakskod", "Reason code"},
	"refused.ref":   {"Viitenumero tukea varten", "Referens för stödet", "Reference for the support"},
	"refused.again": {"Yritä uudelleen", "Försök igen", "Try again"},

	"code.unknown-user":      {"Sinulla ei ole tiliä tässä palvelussa. Pyydä tiliä palvelun ylläpitäjältä.", "Du har inget konto i den här tjänsten. Be tjänstens administratör om ett konto.", "You have no account in this service. Ask the administrator of this service for one."},
	"code.inactive":          {"Tilisi odottaa hyväksyntää. Kerro ylläpitäjälle käyttäjätunnuksesi.", "Ditt konto väntar på godkännande. Ge administratören ditt användarnamn.", "Your account waits for approval. Give the administrator your user name."},
	"code.no-session":        {"Et ole kirjautunut sisään. Kirjaudu sisään.", "Du är inte inloggad. Logga in.", "You are not logged in. Log in."},
	"code.cross-origin":      {"Toinen verkkosivusto lähetti tämän pyynnön, joten sitä ei suoritettu. Jos halusit kirjautua, aloita tämän palvelun omalta sivulta.", "En annan webbplats skickade den här begäran, så den utfördes inte. Om du ville logga in, börja på den här tjänstens egen sida.", "Another web site sent this request, so it was not carried out. If you wanted to log in, start from a page of this service."},
	"code.bad-evidence":      {"Pyynnössä oli otsake, jonka vain luotettu välityspalvelin saa lähettää. Palvelun ylläpitäjä löytää syyn lokista.", "Begäran hade ett huvud som bara en betrodd proxy får skicka. Tjänstens administratör hittar orsaken i loggen.", "The request had a header that only a trusted proxy may send. The administrator of this service finds the reason in the log."},
	"code.too-many-requests": {"Tästä verkosta on tullut liian monta hylättyä yritystä. Odota hetki ja yritä uudelleen.", "Från det här nätet har det kommit för många avvisade försök. Vänta en stund och försök igen.", "Too many attempts from this network were refused. Wait a moment and try again."},
	"code.internal":          {"Palvelussa on vika. Vika ei ole kortissasi. Yritä hetken kuluttua uudelleen.", "Det är fel på tjänsten. Felet är inte i ditt kort. Försök igen om en stund.", "Something is wrong in this service. Nothing is wrong with your card. Try again in a while."},
}

// explain says what a reason code means and what the person can do about it.
func explain(l Lang, code string) string {
	if t, own := texts["code."+code]; own {
		return t.in(l)
	}
	return verify.Text(code, string(l))
}

// moment writes a time as is usual in the language, in UTC.
func moment(l Lang, t time.Time) string {
	layout := text{"2.1.2006 15.04", "2006-01-02 15:04", "2 January 2006, 15:04"}.in(l)
	return fmt.Sprintf("%s UTC", t.UTC().Format(layout))
}

// chooseLang takes the language that was asked for by name, else the one that
// the browser's Accept-Language header (RFC 9110 section 12.5.4) likes best.
func chooseLang(asked, acceptLanguage string) Lang {
	if l := Lang(asked); slices.Contains(languages, l) {
		return l
	}
	best, bestQ := languages[0], 0.0
	for part := range strings.SplitSeq(acceptLanguage, ",") {
		tag, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		primary, _, _ := strings.Cut(strings.ToLower(tag), "-")
		q := 1.0
		if value, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q="); ok {
			var err error
			if q, err = strconv.ParseFloat(value, 64); err != nil {
				continue
			}
		}
		if slices.Contains(languages, Lang(primary)) && q > bestQ {
			best, bestQ = Lang(primary), q
		}
	}
	return best
}
