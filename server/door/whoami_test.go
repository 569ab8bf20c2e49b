package door_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/verify"
)

// The contract of /whoami, byte for byte.
func TestWhoami(t *testing.T) {
	const (
		user        = `{"username":"99912345V","first_name":"Maija","last_name":"Mäkelä","email":"","is_active":ACTIVE,"roles":ROLES}`
		certificate = `{"subject":"CN=MÄKELÄ MAIJA 99912345V,SN=MÄKELÄ,GN=MAIJA,SERIALNUMBER=99912345V,C=FI","issuer":"ISSUER","serial":"SERIAL","not_after":"NOTAFTER","sha256":"SHA256"}`
	)
	active := strings.NewReplacer("ACTIVE", "true", "ROLES", `["doctor"]`).Replace(user)
	inactive := strings.NewReplacer("ACTIVE", "false", "ROLES", `[]`).Replace(user)
	for _, test := range []struct {
		name, path, want string
		edit             func(*rig)
	}{
		{
			"nobody", "/whoami", `{"authenticated":false,"user":null,"certificate":null,"session":null,"reason":"no-certificate"}`,
			func(r *rig) { r.card = nil },
		},
		{
			"stranger", "/whoami", `{"authenticated":false,"user":null,"certificate":` + certificate + `,"session":null,"reason":"unknown-user"}`,
			func(*rig) {},
		},
		{
			"inactive", "/whoami", `{"authenticated":false,"user":` + inactive + `,"certificate":` + certificate + `,"session":null,"reason":"inactive"}`,
			func(r *rig) { r.post("/login", nil) },
		},
		{
			"logged in", "/whoami", `{"authenticated":true,"user":` + active + `,"certificate":` + certificate + `,"session":{"expires_at":"EXPIRES"},"reason":""}`,
			(*rig).loginAsDoctor,
		},
		{
			"logged out", "/whoami", `{"authenticated":false,"user":null,"certificate":` + certificate + `,"session":null,"reason":"no-session"}`,
			func(r *rig) { r.loginAsDoctor(); r.cookie = nil },
		},
		{
			"revoked", "/whoami", `{"authenticated":false,"user":null,"certificate":null,"session":null,"reason":"revoked"}`,
			func(r *rig) { r.loginAsDoctor(); r.now = r.now.Add(time.Minute); r.issuer.status = verify.Revoked },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			cert := r.card.Certificate
			test.edit(r)
			want := strings.NewReplacer(
				"ISSUER", "CN="+cert.Issuer.CommonName+",OU="+cert.Issuer.OrganizationalUnit[0]+",O="+cert.Issuer.Organization[0]+",C=FI",
				"SERIALNUMBER", "SERIALNUMBER", "SERIAL", fmt.Sprintf("%x", cert.SerialNumber),
				"NOTAFTER", cert.NotAfter.UTC().Format(time.RFC3339), "SHA256", fmt.Sprintf("%x", sha256.Sum256(cert.Raw)),
				"EXPIRES", r.now.Add(12*time.Hour).UTC().Format(time.RFC3339),
			).Replace(test.want)
			w := r.do("GET", test.path)
			if got := strings.TrimSpace(w.Body.String()); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("status %d, headers %v", w.Code, w.Header())
			}
		})
	}
}

func TestWhoamiWithoutSessions(t *testing.T) {
	r := newRig(t, func(c *door.Config) { c.Sessionless = []string{"/whoami"} })
	r.loginAsDoctor()
	r.cookie = nil
	expectText(t, r.do("GET", "/whoami"), `{"authenticated":true,`, `"username":"99912345V"`, `"session":null`)
}

func (r *rig) loginAsDoctor() {
	r.t.Helper()
	r.login()
	if _, err := r.users.SetRoles(r.t.Context(), "99912345V", []string{"doctor"}); err != nil {
		r.t.Fatal(err)
	}
}
