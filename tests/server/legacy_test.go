package server_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/tests/programs"
)

// legacy is nginx as a site with django-ssl-auth has it, by the page about the
// migration. It tells the subject by one of its variables.
func legacy(t *testing.T, variable string) proxy {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(programs.Root(), "docs", "from-django-ssl-auth.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```nginx\n# before\n")
	before, _, _ := strings.Cut(rest, "```")
	before = replaced(t, before, "$ssl_client_s_dn_legacy", "$"+variable)
	p := nginx
	p.format = evidence.InsecureLegacyDN
	p.edit = func(sample string) string {
		return replaced(t, sample,
			"ssl_verify_client      optional_no_ca;", "", // before has its own
			"proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;", before,
			`proxy_set_header X-SSL-User-DN             "";`, "")
	}
	p.settings = func(config string) string {
		return replaced(t, config, `sessionless = ["/whoami"]`, "", "[users]", "family = \"kortti-test-citizen\"\nreason = \"a test\"\n[users]")
	}
	return p
}

// replaced replaces what a text must have, given in pairs.
func replaced(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("there is no %q in\n%s", pairs[i], text)
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// During a migration a real nginx says who somebody is, in its own words.
func TestLegacyHeaders(t *testing.T) {
	for _, variable := range []string{"ssl_client_s_dn_legacy", "ssl_client_s_dn"} {
		t.Run(variable, func(t *testing.T) {
			f := newFront(t, legacy(t, variable))
			satu := fineidtest.SATU(790)
			card := f.issue(fineidtest.Leaf{GivenName: "ÅKE", Surname: "SPECIMEN-NGINX", SerialNumber: satu.String()})
			if got := f.login(f.client(card, 0)); got != "303 /inactive" {
				t.Fatalf("a new user: %s", got)
			}
			f.approve(satu)
			if list, err := f.server("users", "list").Output(); err != nil || !strings.Contains(string(list), "Åke Specimen-Nginx") {
				t.Errorf("users: %s, %v", list, err)
			}
			person := f.client(card, 0)
			var err error
			if person.Jar, err = cookiejar.New(nil); err != nil {
				t.Fatal(err)
			}
			if got := f.login(person); got != "303 /account" {
				t.Fatalf("an approved user: %s", got)
			}
			if status, user, reason := f.whoami(person, nil); user != satu.String() {
				t.Errorf("%d, user %q, reason %q", status, user, reason)
			}
			if _, user, reason := f.whoami(f.client(nil, 0), nil); user != "" || reason != "no-certificate" {
				t.Errorf("without a card: user %q, reason %q", user, reason)
			}

			// The injection that django-ssl-auth fell for.
			thief := f.issue(fineidtest.Leaf{SerialNumber: fineidtest.SATU(791).String(), CommonName: "B/serialNumber=" + satu.String()})
			want := "400 " // slashes may mean anything
			if variable == "ssl_client_s_dn" {
				want = "303 /inactive" // as somebody new
			}
			if got := f.login(f.client(thief, 0)); got != want {
				t.Errorf("with a slash in the name: %s, want %s", got, want)
			}

			forged := http.Header{"X-SSL-User-DN": {"serialNumber=" + satu.String() + ",C=FI"}, "X-SSL-Authenticated": {"SUCCESS"}}
			for name, hc := range map[string]*http.Client{"no card": f.client(nil, 0), "another's card": f.client(thief, 0)} {
				hc.Jar = person.Jar // even with the cookie
				if status, user, _ := f.whoami(hc, forged.Clone()); user != "" {
					t.Errorf("forged headers and %s: %d, user %q", name, status, user)
				}
			}
			foreign, err := fineidtest.New(fineidtest.Options{ECOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			stranger, err := foreign.Issue(foreign.CitizenEC, fineidtest.Leaf{SerialNumber: satu.String()})
			if err != nil {
				t.Fatal(err)
			}
			for name, bad := range map[string]*fineidtest.Issued{
				"foreign CA":            stranger,
				"signature certificate": f.issue(fineidtest.Leaf{SerialNumber: satu.String(), Purpose: fineid.Signature}),
			} {
				if got := f.login(f.client(bad, 0)); strings.HasPrefix(got, "303") {
					t.Errorf("%s: %s", name, got)
				}
			}
		})
	}
}

// login sends the form and returns the status and where the answer leads to.
func (f *front) login(hc *http.Client) string {
	f.t.Helper()
	resp, err := hc.Post("https://"+site+"/login", "", nil)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		f.t.Fatal(err)
	}
	return strings.Fields(resp.Status)[0] + " " + resp.Header.Get("Location")
}
