package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/audit"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/evidence"
)

// identityHeaders are names under which proxies, frameworks and older programs
// say who the client is.
var identityHeaders = []string{
	evidence.DefaultHeader, "Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert",
	"X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", // Traefik
	"X-SSL-Authenticated", "X-SSL-User-DN", "X-REST-API", // django-ssl-auth
	"X-SSL-Client-Verify", "X-SSL-Client-S-DN", "X-SSL-Cert", "Ssl-Client-Cert", "Ssl-Client-Verify", "Ssl-Client-Subject-Dn", "Ssl-Cert",
	"X-Client-Cert", "X-Client-Verify", "X-Client-Dn", "X-Tls-Client-Cert", "X-Arr-Clientcert", "X-Amzn-Mtls-Clientcert", "Cf-Client-Cert-Der-Base64",
	"Remote-User", "X-Remote-User", "X-Forwarded-User", "X-Webauth-User", "X-Auth-User", "X-Auth-Request-User", "X-Kortti-User",
}

// spellings of a name are those that some program takes for the name itself. Names
// in capitals are malformed in HTTP/2.
func spellings(name string) []string {
	name = strings.ToLower(name)
	first, last := strings.Index(name, "-"), strings.LastIndex(name, "-")
	all := []string{name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_")}
	if first != last {
		all = append(all, name[:first]+"_"+name[first+1:], name[:last]+"_"+name[last+1:])
	}
	return all
}

// values say who somebody is, in each form that is about.
func values(victim *fineidtest.Issued, satu fineid.SATU) []string {
	der := victim.Certificate.Raw
	return []string{
		escapedPEM(der),
		byteSequence(der),
		fmt.Sprintf(`Hash=%x;Cert="%s"`, sha256.Sum256(der), escapedPEM(der)),
		url.QueryEscape(base64.StdEncoding.EncodeToString(der)),
		"/C=FI/serialNumber=" + satu.String() + "/CN=VICTIM",
		satu.String(),
	}
}

// trick is a way to send a header.
type trick struct {
	name string
	send func(name, value string) request
}

var once = trick{"once", func(name, value string) request { return request{header: []field{{name, value}}} }}

// tricks are those of both versions of HTTP.
var tricks = []trick{
	{"twice", func(name, value string) request { return request{header: []field{{name, value}, {name, value}}} }},
	{"after an empty one", func(name, value string) request { return request{header: []field{{name, ""}, {name, value}}} }},
	{"named in Connection", func(name, value string) request {
		return request{header: []field{{name, value}, {"connection", name}}}
	}},
	{"as a trailer", func(name, value string) request {
		return request{header: []field{{"trailer", name}}, trailer: []field{{name, value}}}
	}},
	{"with a space behind its name", func(name, value string) request { return request{header: []field{{name + " ", value}}} }},
}

// folds are those of HTTP/1.1 (RFC 9112 section 5.2).
var folds = []trick{
	{"folded", func(name, value string) request { return request{header: []field{{name, "\r\n " + value}}} }},
	{"folded into another", func(name, value string) request {
		return request{header: []field{{"X-Other", "a\r\n " + name + ": " + value}}}
	}},
}

// people are a victim and somebody else, both let in.
type people struct {
	victim, other         *fineidtest.Issued
	victimSATU, otherSATU fineid.SATU
}

func (f *front) people() people {
	f.t.Helper()
	p := people{victimSATU: fineidtest.SATU(778), otherSATU: fineidtest.SATU(779)}
	p.victim, p.other = f.admit(p.victimSATU), f.admit(p.otherSATU)
	f.genuine(p)
	return p
}

// admit makes somebody and lets them in.
func (f *front) admit(satu fineid.SATU) *fineidtest.Issued {
	f.t.Helper()
	card := f.issue(fineidtest.Leaf{SerialNumber: satu.String()})
	resp, err := f.client(card, 0).Post("https://"+site+"/login", "", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	resp.Body.Close()
	f.approve(satu)
	return card
}

// genuine checks that everybody is taken for who they are. Without that, a test
// in which no forgery succeeds shows nothing.
func (f *front) genuine(p people) {
	f.t.Helper()
	for _, c := range []struct {
		card *fineidtest.Issued
		want string
	}{{p.victim, p.victimSATU.String()}, {p.other, p.otherSATU.String()}, {nil, ""}} {
		for _, protocol := range f.protocols() {
			a := f.wire(f.t, protocol, c.card).ask(request{})
			if user, _ := userIn(a.body); a.status != http.StatusOK || user != c.want {
				f.t.Fatalf("%s: %q is answered %d %s", protocol.name, c.want, a.status, a.body)
			}
		}
	}
}

// fate is what became of a request with a forged header.
type fate string

const (
	itself  fate = "itself"  // the client is who its handshake says
	refused fate = "refused" // 400, or no answer
	forged  fate = "forged"  // the victim is named
	strange fate = "strange" // anything else, such as a card that is not seen any more
)

// fate judges an answer to a client whose card is this person's, or nobody's.
func (p people) fate(a answer, own string) fate {
	user, _ := userIn(a.body)
	fingerprint := fmt.Sprintf("%x", sha256.Sum256(p.victim.Certificate.Raw))
	switch {
	case bytes.Contains(a.body, []byte(p.victimSATU.String())), bytes.Contains(a.body, []byte(fingerprint)):
		return forged
	case a.status == http.StatusOK && user == own:
		return itself
	case a.status == http.StatusBadRequest, a.status == 0:
		return refused
	}
	return strange
}

// forge sends, under each name in each spelling, every value once, and with every
// trick the one that the server would believe. It counts what becomes of them.
func (f *front) forge(t *testing.T, p people, protocol protocol, card *fineidtest.Issued) map[fate]int {
	t.Helper()
	ways, own := tricks, ""
	if protocol.name == http11.name {
		ways = slices.Concat(tricks, folds)
	}
	if card != nil {
		own = p.otherSATU.String()
	}
	believed := f.escape(p.victim.Certificate.Raw)
	count := make(map[fate]int)
	w := f.wire(t, protocol, card)
	send := func(trick trick, name, value string) {
		a := w.ask(trick.send(name, value))
		fate := p.fate(a, own)
		count[fate]++
		if fate == forged || fate == strange {
			t.Errorf("%s: %.20s... %s: %s, %d %.300s", name, value, trick.name, fate, a.status, a.body)
		}
	}
	for _, header := range identityHeaders {
		for _, name := range spellings(header) {
			for _, value := range values(p.victim, p.victimSATU) {
				send(once, name, value)
			}
			for _, trick := range ways {
				send(trick, name, believed)
			}
		}
	}
	return count
}

// Whatever a client writes into identity headers, and however: it is refused, or
// it is who its TLS handshake says.
func TestForgedHeaders(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		p := f.people()
		before := f.audited()
		t.Run("forge", func(t *testing.T) {
			for _, protocol := range f.protocols() {
				for who, card := range map[string]*fineidtest.Issued{"nobody": nil, "somebody else": p.other} {
					t.Run(protocol.name+" as "+who, func(t *testing.T) {
						t.Parallel()
						count := f.forge(t, p, protocol, card)
						t.Log(count)
						if count[itself] == 0 || count[refused] == 0 {
							t.Error("not both visits and refusals, so the test shows little")
						}
					})
				}
			}
		})
		f.checkAudit(p, before)
		f.genuine(p)
	})
}

// breaks are samples without lines that are in them for a reason.
var breaks = []struct {
	proxy
	without string // lines that match this
	seen    bool   // a forgery succeeds
}{
	// The header that the server believes is the proxy's alone to remove. In nginx
	// the line that sends it replaces what came.
	{apache, `unset Client-Cert early`, true},
	{haproxy, `del-header client-cert`, true},
	{caddy, `-Client-Cert`, true},
	// What else claims to be a person is refused by the server as well.
	{nginx, `proxy_set_header .* "";`, false},
	{apache, `unset (Client-Cert-Chain|X-|Remote-)`, false},
	{haproxy, `del-header ([^c]|cf)`, false},
	{caddy, `request_header -([^C]|Cf)`, false},
}

// Forgeries succeed, and are counted, where the sample lacks what it needs, and
// nowhere else: the server refuses what is not the one header that it believes.
func TestBrokenSamples(t *testing.T) {
	for _, b := range breaks {
		t.Run(b.name+" without "+b.without, func(t *testing.T) {
			b.edit = func(text string) string {
				lines := regexp.MustCompile(`(?m)^.*` + b.without + `.*\n`)
				if !lines.MatchString(text) {
					t.Fatalf("the sample has no line with %s", b.without)
				}
				return lines.ReplaceAllString(text, "")
			}
			f := newFront(t, b.proxy)
			p := f.people()
			count := make(map[fate]int)
			w := f.wire(t, http11, nil)
			for _, header := range identityHeaders {
				for _, name := range spellings(header) {
					a := w.ask(once.send(name, f.escape(p.victim.Certificate.Raw)))
					count[p.fate(a, "")]++
				}
			}
			t.Log(count)
			if (count[forged] > 0) != b.seen || count[refused] == 0 {
				t.Errorf("%v; a forgery should succeed: %t", count, b.seen)
			}
		})
	}
}

// The client's address in the audit log is the connection's, whatever it says.
func TestForgedAddress(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		foreign, err := fineidtest.New(fineidtest.Options{ECOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := foreign.Issue(foreign.CitizenEC, fineidtest.Leaf{})
		if err != nil {
			t.Fatal(err)
		}
		w := f.wire(t, http11, stranger)
		for _, trick := range slices.Concat([]trick{once}, tricks, folds) {
			for _, name := range spellings(evidence.AddressHeader) {
				w.ask(trick.send(name, "192.0.2.1"))
			}
		}
		looked := 0
		for _, r := range f.audited() {
			switch {
			case r.Event == door.EventRequest && r.Address == "127.0.0.1":
				looked++
			case r.Event != door.EventEvidence || r.Address != "": // refused before anybody's address was known
				t.Errorf("audited %s %s from %q", r.Event, r.Code, r.Address)
			}
		}
		if looked == 0 {
			t.Error("no request came through")
		}
	})
}

// audited are the records so far.
func (f *front) audited() []door.Record {
	f.t.Helper()
	var all []door.Record
	err := audit.Read(filepath.Join(f.dir, "audit"), func(e audit.Entry) error {
		all = append(all, door.Record{})
		return json.Unmarshal(e.Record, &all[len(all)-1])
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

// checkAudit wants no record of the victim since some earlier ones.
func (f *front) checkAudit(p people, before []door.Record) {
	f.t.Helper()
	victim := fmt.Sprintf("%x", sha256.Sum256(p.victim.Certificate.Raw))
	if !slices.ContainsFunc(before, func(r door.Record) bool { return r.Certificate == victim }) {
		f.t.Fatal("the victim's own login is not in the audit log, so its silence shows nothing")
	}
	since := f.audited()[len(before):]
	refused := 0
	for _, r := range since {
		if r.Event == door.EventEvidence {
			refused++
		}
		if r.Certificate == victim {
			f.t.Errorf("audited %+v", r)
		}
	}
	f.t.Logf("%d refused by the server itself", refused)
}
