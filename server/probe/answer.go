// Package probe attacks one's own set-up from outside, through the reverse proxy
// that stands before the server, and says which line of its configuration to mend.
//
// It wants proof that the target is one's own. Server and probe share a secret, and
// the server answers on one path only to who knows it, with what has reached it:
// which certificate, by which way, and what the verifier thinks of it. So the probe
// sees what the proxy lets through, and attacks nobody who does not answer right.
package probe

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/verify"
)

// Path is where the server answers the probe.
const Path = "/.kortti/probe"

const (
	macHeader  = "X-Kortti-Probe-Mac"
	secretSize = 32
	nonceSize  = 16
	maxAnswer  = 16 << 10
)

// Secret is what server and probe share.
type Secret []byte

// NewSecret writes a new secret into a file that does not exist yet, for its owner
// alone.
func NewSecret(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make the probe's secret: %w", err)
	}
	raw := make([]byte, secretSize)
	rand.Read(raw) // never fails (crypto/rand)
	_, err = fmt.Fprintln(file, hex.EncodeToString(raw))
	return errors.Join(err, file.Close())
}

// ReadSecret reads what NewSecret has written.
func ReadSecret(path string) (Secret, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the probe's secret: %w", err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(content)))
	if err != nil || len(raw) < secretSize {
		return nil, fmt.Errorf("%s holds no secret of the probe; make one with kortti-server probe --new-secret FILE", path)
	}
	return raw, nil
}

func (s Secret) mac(purpose, content string) string {
	h := hmac.New(sha256.New, s)
	fmt.Fprintf(h, "kortti probe %s\n%s", purpose, content)
	return hex.EncodeToString(h.Sum(nil))
}

// answer is what has reached the server.
type answer struct {
	Nonce       string `json:"nonce"`
	Host        string `json:"host"`
	Source      string `json:"source"`      // "" = no certificate
	Certificate string `json:"certificate"` // SHA-256
	Address     string `json:"address"`     // the client's
	Refused     string `json:"refused"`     // evidence.Error's code: the headers are not believed
	Verdict     string `json:"verdict"`     // a code of package verify; "" = the certificate is accepted
}

// Handler answers the probe. Whoever does not know the secret finds nothing.
func Handler(secret Secret, reader *evidence.Reader, verifier *verify.Verifier) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nonce := r.URL.Query().Get("nonce")
		mac := r.URL.Query().Get("mac")
		if len(nonce) != 2*nonceSize || subtle.ConstantTimeCompare([]byte(mac), []byte(secret.mac("asks", nonce))) != 1 {
			http.NotFound(w, r)
			return
		}
		a := answer{Nonce: nonce, Host: r.Host, Verdict: verify.CodeNoCertificate}
		ev, presented, err := reader.Read(r)
		var refused *evidence.Error
		if errors.As(err, &refused) {
			a.Refused = refused.Code
		}
		if ev.Address.IsValid() {
			a.Address = ev.Address.String()
		}
		if presented {
			a.Source, a.Certificate = ev.Source, fmt.Sprintf("%x", ev.Fingerprint())
			_, report, _ := verifier.Verify(r.Context(), ev) // the code is in the report
			a.Verdict = report.Code
		}
		body, err := json.Marshal(a)
		if err != nil {
			http.Error(w, "no answer", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set(macHeader, secret.mac("answers", string(body)))
		w.Write(body) // fails only when the client is gone
	})
}
