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
	"github.com/kortti-id/kortti/tests/programs"
)

// legacy is nginx as a site with django-ssl-auth has it. It tells the subject by
// one of its variables.
func legacy(variable string) proxy {
	return proxy{
		name: "nginx with $" + variable, format: "insecure-legacy-dn", header: "X-SSL-User-DN", sample: nginx.sample, uid: nginx.uid,
		start: func(f *front) {
			f.t.Helper()
			conf := f.configure()
			old := f.before()
			if !strings.Contains(old, " $ssl_client_s_dn_legacy;") {
				f.t.Fatal("the page has no header to choose the variable of")
			}
			old = strings.Replace(old, "$ssl_client_s_dn_legacy", "$"+variable, 1)
			// nginx builds the whole chain, so it needs the roots.
			f.write("cas.pem", append(f.pki.RootsPEM(), f.pki.IssuingPEM()...))
			f.replace("site.conf",
				"ssl_verify_client      optional_no_ca;", "",
				"proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;", old,
				`proxy_set_header X-SSL-User-DN             "";`, "",
				inside("issuing.pem"), inside("cas.pem"))
			f.runNginx(conf)
		},
		adapt: func(config string) string {
			return strings.NewReplacer(`sessionless = ["/whoami"]`, "", "[users]", "family = \"kortti-test-citizen\"\nreason = \"a test\"\n[users]").Replace(config)
		},
	}
}

// before is what docs/from-django-ssl-auth.md says of nginx before the migration.
func (f *front) before() string {
	f.t.Helper()
	page, err := os.ReadFile(filepath.Join(programs.Root(), "docs", "from-django-ssl-auth.md"))
	if err != nil {
		f.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```nginx\n# before\n")
	block, _, found := strings.Cut(rest, "```")
	if !found {
		f.t.Fatal("the page does not have the block")
	}
	return block
}

// replace replaces texts that a file must have, given in pairs.
func (f *front) replace(name string, pairs ...string) {
	f.t.Helper()
	content, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(content), pairs[i]) {
			f.t.Fatalf("%s has no %q", name, pairs[i])
		}
	}
	f.write(name, []byte(strings.NewReplacer(pairs...).Replace(string(content))))
}

// During a migration a real nginx says who somebody is, in its own words.
func TestLegacyHeaders(t *testing.T) {
	for _, variable := range []string{"ssl_client_s_dn_legacy", "ssl_client_s_dn"} {
		t.Run(variable, func(t *testing.T) {
			f := newFront(t, legacy(variable))
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
