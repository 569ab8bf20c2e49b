package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/database"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/probe"
	"github.com/kortti-id/kortti/server/revoke"
	"github.com/kortti-id/kortti/server/users"
	"github.com/kortti-id/kortti/server/verify"
)

// Problem is something in a configuration that its owner has to know.
type Problem struct {
	Key     string // the setting, such as "trust.roots"
	Text    string // what is wrong and what to do
	Warning bool   // the server runs all the same
}

func (p Problem) String() string {
	if p.Warning {
		return "warning: " + p.Key + ": " + p.Text
	}
	return p.Key + ": " + p.Text
}

// Problems is an error that lists everything that is wrong at once.
type Problems []Problem

func (ps Problems) Error() string {
	var lines []string
	for _, p := range ps {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Check opens everything that a configuration names and returns what is wrong
// with it, warnings included. It makes no file and listens nowhere.
func Check(c Config) []Problem {
	c = c.withDefaults()
	p := &parts{now: time.Now}
	p.open(c)
	defer p.close()
	if c.Listen.HTTPS == "" && c.Listen.HTTP == "" {
		p.problem("listen", errors.New(`neither https nor http is set; write https = ":8443" with cert and key, or http = "unix:/run/kortti/server.sock" behind a reverse proxy`))
	}
	if err := database.Check(context.Background(), c.Users.Store); err != nil {
		p.problem("users.store", err)
	}
	return p.problems
}

// parts are what a configuration names, opened. What could not be opened is
// among the problems.
type parts struct {
	now      func() time.Time
	before   *revoke.Client // whose knowledge about revocation goes on, nil if none
	problems Problems

	certificate *tls.Certificate // nil without listen.cert
	advertised  *x509.CertPool   // the issuing CAs that clients are asked for
	evidence    *evidence.Reader
	revocation  *revoke.Client
	trust       verify.Config // what the verifier was made from
	verifier    *verify.Verifier
	probe       probe.Secret // nil: the probe is not answered
	create      users.Create
	profile     func(fineid.Identity) (fineid.Profile, error)
	legacy      func([]pkix.AttributeTypeAndValue) (door.Claim, error) // nil but for insecure-legacy-dn
}

func (p *parts) problem(key string, err error) {
	p.problems = append(p.problems, Problem{Key: key, Text: err.Error()})
}

func (p *parts) warn(key, text string) {
	p.problems = append(p.problems, Problem{Key: key, Text: text, Warning: true})
}

// close ends what the parts do by themselves.
func (p *parts) close() {
	if p.revocation != nil {
		p.revocation.Close()
	}
}

// wrong gives the problems that stop a start, nil if there are none.
func (p *parts) wrong() error {
	var list Problems
	for _, problem := range p.problems {
		if !problem.Warning {
			list = append(list, problem)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list
}

func (p *parts) open(c Config) {
	p.openListen(c.Listen)
	p.openForwarded(c)
	p.openTrust(c.Trust)
	p.openUsers(c.Users)
	p.openLegacy(c)
	if c.Login.Host != "" {
		p.problem("login.host", errors.New("a login host of its own is not supported by this version; leave it empty"))
	}
	if _, err := door.New(c.doors()); err != nil {
		p.problem("login", err)
	}
	if err := c.Session.limits().Check(); err != nil {
		p.problem("session", err)
	}
	if l := c.Limits; min(l.Handshakes, l.Refusals, l.Logins) < 0 {
		p.problem("limits", errors.New("a limit is negative; write how much may come in a second, or nothing for the default"))
	}
	p.openAudit(c.Audit)
	if c.Probe.Secret != "" {
		secret, err := probe.ReadSecret(c.Probe.Secret)
		if err != nil {
			p.problem("probe.secret", err)
		}
		p.probe = secret
		p.private("probe.secret", c.Probe.Secret)
	}
}

// openAudit says what would keep the audit log from being opened, without making
// it.
func (p *parts) openAudit(a Audit) {
	if a.Dir == "" {
		return
	}
	info, err := os.Stat(a.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(filepath.Dir(a.Dir))
	}
	switch {
	case err != nil:
		p.problem("audit.dir", err)
	case !info.IsDir():
		p.problem("audit.dir", fmt.Errorf("%s is no folder; the log is a folder of files", a.Dir))
	case a.Instance == "":
		p.problem("audit.instance", errors.New("the machine has no name; write one"))
	}
	p.private("audit.dir", a.Dir)
}

// private warns of a file that every user of the machine may read or write.
func (p *parts) private(key, file string) {
	info, err := os.Stat(file)
	if err != nil || runtime.GOOS == "windows" { // which has no such bits
		return
	}
	if info.Mode().Perm()&0o007 != 0 {
		p.warn(key, fmt.Sprintf("%s can be used by every user of this machine (mode %04o); chmod o= %s", file, info.Mode().Perm(), file))
	}
}

func (p *parts) openListen(l Listen) {
	switch {
	case l.HTTPS != "" && l.HTTP != "":
		p.problem("listen", errors.New("https and http are both set; keep one"))
	case l.HTTPS != "" && (l.Cert == "" || l.Key == ""):
		p.problem("listen.https", errors.New("needs cert and key, the server's own certificate and private key in PEM files"))
	case (l.Cert == "") != (l.Key == ""):
		p.problem("listen.cert", errors.New("cert and key must be set together"))
	}
	p.private("listen.key", l.Key)
	if l.Cert != "" && l.Key != "" {
		certificate, err := tls.LoadX509KeyPair(l.Cert, l.Key)
		switch {
		case err != nil:
			p.problem("listen.cert", fmt.Errorf("load %s with the key %s: %w", l.Cert, l.Key, err))
		case p.now().After(certificate.Leaf.NotAfter):
			p.warn("listen.cert", fmt.Sprintf("the certificate in %s expired on %s; browsers will refuse it", l.Cert, certificate.Leaf.NotAfter.Format(time.DateOnly)))
			p.certificate = &certificate
		default:
			p.certificate = &certificate
		}
	}
	tcp := map[string]string{"listen.https": l.HTTPS, "listen.http": l.HTTP, "listen.admin": l.Admin}
	if socket, unix := strings.CutPrefix(l.HTTP, "unix:"); unix {
		delete(tcp, "listen.http")
		if err := checkSocket(socket, l.Group); err != nil {
			p.problem("listen.http", err)
		}
	} else if l.Group != "" {
		p.problem("listen.group", errors.New(`has a meaning only for a Unix socket, http = "unix:PATH"`))
	}
	for key, address := range tcp {
		if address == "" {
			continue
		}
		_, port, err := net.SplitHostPort(address)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil {
			p.problem(key, fmt.Errorf("%q is not an address with a port such as \"127.0.0.1:8443\" or \":8443\"", address))
		}
	}
	if l.Admin != "" && !loopback(l.Admin) {
		p.warn("listen.admin", fmt.Sprintf("%s can be reached from other machines, and /metrics asks nobody who they are; use 127.0.0.1", l.Admin))
	}
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (p *parts) openForwarded(c Config) {
	reader, err := evidence.New(evidence.Config{Format: c.Forwarded.Format, Header: c.Forwarded.Header, From: c.Forwarded.From})
	if err != nil {
		p.problem("forwarded", err)
		return
	}
	p.evidence = reader
	for _, warning := range reader.Warnings() {
		p.warn("forwarded", warning)
	}
	if format := c.Forwarded.Format; c.Listen.HTTP != "" && (format == "" || format == evidence.Off) {
		p.problem("forwarded.format", fmt.Errorf("is off, so no certificate can ever arrive over listen.http; set %q and list the proxy in from", evidence.NginxEscapedPEM))
	}
}

func (p *parts) openTrust(t Trust) {
	roots, rootsRead := p.readCAs("trust.roots", t.Roots)
	issuing, issuingRead := p.readCAs("trust.issuing", t.Issuing)
	var purpose fineid.Purpose
	if err := purpose.UnmarshalText([]byte(t.Purpose)); err != nil {
		p.problem("trust.purpose", err)
		return
	}
	table, ok := p.issuerTable(t.Issuers)
	var rules []revoke.Rule
	for _, r := range t.Revocation {
		rules = append(rules, revoke.Rule{
			Issuer: r.Issuer, Policy: revoke.Policy(r.Policy), Grace: time.Duration(r.Grace), Reason: r.Reason,
			URL: r.URL, CRL: r.CRL, Hosts: r.Hosts, NoNonce: r.Nonce != nil && !*r.Nonce, MaxAge: time.Duration(r.MaxAge),
		})
	}
	client, err := revoke.New(revoke.Config{Rules: rules, Now: p.now, Cache: t.Cache, After: p.before})
	if err != nil {
		p.problem("trust.revocation", err)
		return
	}
	p.revocation = client
	for _, warning := range client.Warnings() {
		p.warn("trust.revocation", warning)
	}
	if !rootsRead || !issuingRead || !ok {
		return
	}
	known := slices.Concat(roots, issuing)
	for _, problem := range client.Unreachable(issuing, roots) {
		p.warn("trust.revocation", problem)
	}
	for _, r := range t.Revocation {
		named := func(ca *x509.Certificate) bool { return ca.Subject.CommonName == r.Issuer }
		if r.Issuer != "*" && !slices.ContainsFunc(known, named) {
			p.warn("trust.revocation", fmt.Sprintf("no CA in roots or issuing has the common name %q, so another rule may decide about the certificates that this one is meant for", r.Issuer))
		}
	}
	p.trust = verify.Config{
		Roots: roots, Issuing: issuing, Pins: t.Pins, Purpose: purpose, Policies: t.Policies, Classes: t.Classes,
		Issuers: table, Revocation: client, Now: p.now,
	}
	p.verifier, err = verify.New(p.trust)
	if err != nil {
		p.problem("trust", err)
		return
	}
	p.advertised = x509.NewCertPool()
	// Browsers compare the list with the issuer of the card's certificate, so
	// issuing CAs belong on it; long lists break them.
	ask := issuing
	if len(ask) == 0 {
		ask = roots
	}
	for _, ca := range ask {
		p.advertised.AddCert(ca)
	}
}

func (p *parts) issuerTable(issuers []Issuer) (table *fineid.Table, ok bool) {
	var rows []fineid.Issuer
	ok = true
	for _, i := range issuers {
		if i.CN == "" || i.Class == fineid.Unknown || i.Family == "" || strings.Contains(i.Family, "/") {
			p.problem("trust.issuer", fmt.Errorf("issuer %q needs cn, class and family, and a family without a slash", i.CN))
			ok = false
		}
		rows = append(rows, fineid.Issuer{CN: i.CN, Org: i.Organization, Class: i.Class, Family: i.Family})
	}
	return fineid.DVV().With(rows...), ok
}

func (p *parts) openUsers(u Users) {
	create, err := users.ParseCreate(u.Create)
	if err != nil {
		p.problem("users.create", err)
	}
	p.create = create
	if create == users.CreateActive && strings.TrimSpace(u.Reason) == "" {
		p.problem("users.create", errors.New(`"active" lets in everybody who has a card of a trusted issuer; say why in reason = "…", or use "inactive"`))
	}
	if path, err := database.Path(u.Store); err == nil { // else Check and New say so
		p.private("users.store", path)
	}
	if u.Map != "fineid" {
		p.problem("users.map", fmt.Errorf("%q is not known; use \"fineid\", and [users.mapping] for what is to differ", u.Map))
	}
	if p.profile, err = u.Mapping.profile(); err != nil {
		p.problem("users.mapping", err)
	}
}

// readCAs reads files of CA certificates, PEM or DER.
func (p *parts) readCAs(key string, files []string) (cas []*x509.Certificate, ok bool) {
	ok = true
	for _, file := range files {
		found, err := readCAs(file)
		if err != nil {
			p.problem(key, err)
			ok = false
		}
		for _, ca := range found {
			if p.now().After(ca.NotAfter) {
				p.warn(key, fmt.Sprintf("%s: CA %q expired on %s; certificates below it are refused", file, ca.Subject.CommonName, ca.NotAfter.Format(time.DateOnly)))
			}
		}
		cas = append(cas, found...)
	}
	return cas, ok
}

func readCAs(file string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CA certificates: %w", err)
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil, fmt.Errorf("%s is empty; put the CA certificates into it, in PEM", file)
	}
	cas, err := ParseCertificates(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i, ca := range cas {
		if !ca.IsCA {
			return nil, fmt.Errorf("%s: certificate %d is not that of a CA; a holder's or server's own certificate does not belong here", file, i+1)
		}
	}
	return cas, nil
}

// ParseCertificates reads one DER certificate, or PEM with nothing but
// certificates. No certificate at all is an error.
func ParseCertificates(content []byte) ([]*x509.Certificate, error) {
	if !bytes.Contains(content, []byte("-----BEGIN ")) {
		certificate, err := x509.ParseCertificate(content)
		if err != nil {
			return nil, errors.New("is not a certificate, neither PEM nor DER")
		}
		return []*x509.Certificate{certificate}, nil
	}
	var list []*x509.Certificate
	rest := content
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a PEM block of type %q; only certificates belong here", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(list)+1, err)
		}
		list = append(list, certificate)
	}
	if len(list) == 0 || bytes.Contains(rest, []byte("-----BEGIN ")) {
		return nil, fmt.Errorf("PEM block %d is broken; the file may have been cut", len(list)+1)
	}
	return list, nil
}
