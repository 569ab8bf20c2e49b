package fineidtest

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const settingsFile = "pki.json"

type settings struct {
	BaseURL string `json:"base_url"`
	ECOnly  bool   `json:"ec_only,omitempty"`
}

// Save writes the PKI into a folder, which it makes: certificates and keys
// (mode 0600) of every CA and responder, what was issued and revoked, and
// roots.pem, issuing.pem and web-roots.pem for servers' configurations. From
// then on the PKI keeps its records there, together with all other processes
// that Load it. A folder that holds a PKI already is refused.
func (p *PKI) Save(dir string) error {
	if err := p.save(dir); err != nil {
		return fmt.Errorf("save test PKI: %w", err)
	}
	return nil
}

func (p *PKI) save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	about, err := json.Marshal(settings{BaseURL: p.baseURL, ECOnly: p.RootRSA == nil})
	if err != nil {
		return err
	}
	if err := writeNew(filepath.Join(dir, settingsFile), about, 0o644); err != nil {
		return err
	}
	for _, ca := range p.authorities() {
		if err := savePair(dir, ca.Name, ca.Certificate, ca.Key); err != nil {
			return err
		}
		if err := savePair(dir, ca.Name+"-ocsp", ca.responder, ca.responderKey); err != nil {
			return err
		}
	}
	bundles := map[string][]byte{
		"roots.pem": p.RootsPEM(), "issuing.pem": p.IssuingPEM(), "web-roots.pem": p.WebRootsPEM(),
	}
	for name, content := range bundles {
		if err := writeNew(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return p.ledger.attach(dir)
}

// Load reads a PKI that Save wrote. Revocations and certificates made by
// either side are known to both.
func Load(dir string) (*PKI, error) {
	p, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("load test PKI: %w", err)
	}
	return p, nil
}

func load(dir string) (*PKI, error) {
	content, err := os.ReadFile(filepath.Join(dir, settingsFile))
	if err != nil {
		return nil, err
	}
	var about settings
	if err := json.Unmarshal(content, &about); err != nil {
		return nil, fmt.Errorf("%s: %w", settingsFile, err)
	}
	p := newPKI(Options{BaseURL: about.BaseURL, ECOnly: about.ECOnly})
	p.ledger.dir = dir
	for _, ca := range p.authorities() {
		if ca.Certificate, ca.Key, err = loadPair(dir, ca.Name); err != nil {
			return nil, err
		}
		if ca.responder, ca.responderKey, err = loadPair(dir, ca.Name+"-ocsp"); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func savePair(dir, name string, cert *x509.Certificate, key crypto.Signer) error {
	if err := writeNew(filepath.Join(dir, name+".pem"), certificatePEM(cert), 0o644); err != nil {
		return err
	}
	content, err := keyPEM(key)
	if err != nil {
		return err
	}
	return writeNew(filepath.Join(dir, name+"-key.pem"), content, 0o600)
}

func loadPair(dir, name string) (*x509.Certificate, crypto.Signer, error) {
	der, err := readPEM(filepath.Join(dir, name+".pem"))
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%s.pem: %w", name, err)
	}
	if der, err = readPEM(filepath.Join(dir, name+"-key.pem")); err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%s-key.pem: %w", name, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s-key.pem: not a signing key", name)
	}
	return cert, signer, nil
}

func readPEM(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM in it", filepath.Base(path))
	}
	return block.Bytes, nil
}

// writeNew never overwrites: two PKIs in one folder would be none.
func writeNew(path string, content []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}
