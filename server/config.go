package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/session"
)

// Config is the configuration of a Server, by its TOML names. Empty fields of
// a Config have the defaults that the fields' comments name. Relative paths in
// a file count from that file's directory, in a Config made by a program from
// the working directory.
type Config struct {
	Listen    Listen    `toml:"listen"`
	Trust     Trust     `toml:"trust"`
	Forwarded Forwarded `toml:"forwarded"`
	Users     Users     `toml:"users"`
	Login     Login     `toml:"login"`
	Session   Session   `toml:"session"`
	Limits    Limits    `toml:"limits"`
	Audit     Audit     `toml:"audit"`
	Probe     Probe     `toml:"probe"`
}

// Listen says where the server is reached: HTTPS or HTTP must be set. A program
// that brings its own http.Server needs neither.
type Listen struct {
	HTTPS string `toml:"https"` // "host:port" for native TLS; needs Cert and Key
	HTTP  string `toml:"http"`  // "unix:PATH" or "host:port" behind a reverse proxy
	Group string `toml:"group"` // group that may connect to the Unix socket; "" = that of the process
	Cert  string `toml:"cert"`  // PEM, the server's own certificate with its chain
	Key   string `toml:"key"`   // PEM
	Admin string `toml:"admin"` // "host:port" of /metrics; "" = none
}

// Trust says which certificates are believed.
type Trust struct {
	Roots    []string `toml:"roots"`    // files with trust anchors
	Issuing  []string `toml:"issuing"`  // files with intermediates that cards do not send
	Pins     bool     `toml:"pins"`     // published DVV issuing CAs among Issuing are anchors
	Purpose  string   `toml:"purpose"`  // "authentication" (default)
	Policies []string `toml:"policies"` // accepted policy OIDs; empty = any
	// Classes of holders that are accepted: citizen, organisation,
	// social-health-care, temporary (these are the default), unknown.
	Classes    []fineid.Class `toml:"classes"`
	Revocation []Revocation   `toml:"revocation"` // none = must, for every issuer
	// Cache is a folder that keeps answers about revocation over restarts; "" =
	// memory only.
	Cache   string   `toml:"cache"`
	Issuers []Issuer `toml:"issuer"` // beside the published ones of DVV
}

// Revocation is the policy of revocation for one issuing CA; see package revoke.
type Revocation struct {
	Issuer string   `toml:"issuer"` // common name, or "*"
	Policy string   `toml:"policy"` // must (default), prefer-crl, grace, open
	Grace  Duration `toml:"grace"`
	Reason string   `toml:"reason"`  // needed by open
	URL    string   `toml:"url"`     // asked by OCSP in place of the certificate's
	CRL    []string `toml:"crl"`     // URLs and files of revocation lists
	Hosts  []string `toml:"hosts"`   // may be asked
	Nonce  *bool    `toml:"nonce"`   // default true
	MaxAge Duration `toml:"max_age"` // of an answer; default one hour
}

// Issuer places the certificates of an issuing CA that fineid does not know.
type Issuer struct {
	CN           string       `toml:"cn"`
	Organization string       `toml:"organization"` // "" = any
	Class        fineid.Class `toml:"class"`
	Family       string       `toml:"family"` // issuing CAs that number the same people
}

// Forwarded says which reverse proxies may speak for their clients; see package
// evidence.
type Forwarded struct {
	Format string   `toml:"format"` // off (default), nginx-escaped-pem, rfc9440, envoy-xfcc, traefik, insecure-legacy-dn
	Header string   `toml:"header"` // of nginx-escaped-pem; default X-SSL-Client-Cert
	From   []string `toml:"from"`
	Family string   `toml:"family"` // needed by insecure-legacy-dn: who issued the cards that the proxy accepts
	Reason string   `toml:"reason"` // needed by insecure-legacy-dn
}

// Users says where accounts are kept and how they come about.
type Users struct {
	Store  string `toml:"store"`  // default sqlite:kortti.db
	Create string `toml:"create"` // off, inactive (default), active
	Reason string `toml:"reason"` // needed by active
	Map    string `toml:"map"`    // fineid (default)
	// Mapping takes fields of the user from elsewhere than Map does.
	Mapping Mapping `toml:"mapping"`
}

// Mapping says which fields of the certificate become which of the user, as
// they stand there: serial_number, given_name, surname, common_name, pseudonym,
// email, upn. Empty ones are as [users] map says.
type Mapping struct {
	Username  string `toml:"username"` // serial_number, pseudonym or upn
	FirstName string `toml:"first_name"`
	LastName  string `toml:"last_name"`
	Email     string `toml:"email"`
}

// Login has the paths of the pages.
type Login struct {
	URL      string `toml:"url"`      // default /login
	Redirect string `toml:"redirect"` // default /account
	Inactive string `toml:"inactive"` // default /inactive
	Host     string `toml:"host"`     // a login host of its own; only "" so far
}

// Session has the limits of sessions and the routes that have none.
type Session struct {
	Idle        Duration `toml:"idle"`        // default 30m
	Absolute    Duration `toml:"absolute"`    // default 12h
	Sessionless []string `toml:"sessionless"` // paths, or trees that end in a slash
}

// Limits say how much may come from one client in a second. Short bursts may be
// many times larger, see the constants.
type Limits struct {
	Handshakes int `toml:"handshakes"` // new connections from one network (listen.https); default 100
	Refusals   int `toml:"refusals"`   // refused requests from one network; default 5
	Logins     int `toml:"logins"`     // logins to one account; default 1
}

// The bursts, in seconds of the rate. The first hour of a hospital's day comes
// from one address.
const (
	handshakeBurst = 20
	refusalBurst   = 60
	loginBurst     = 20
)

// Audit says where decisions are kept; see package audit.
type Audit struct {
	Dir      string   `toml:"dir"`      // folder of the chain; "" = nowhere
	Instance string   `toml:"instance"` // whose chain it is; default the machine's name
	Segment  Duration `toml:"segment"`  // how long a file goes on; default 24h
	Keep     Duration `toml:"keep"`     // how long a file is kept after its end; 0 = for ever
}

// Probe lets kortti-server probe look through the proxy; see package probe.
type Probe struct {
	Secret string `toml:"secret"` // file with the secret that both share; "" = no probe
}

// Duration is a time.Duration that is written like "30m" in TOML.
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration does; negative times are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return fmt.Errorf("%q is not a time such as \"30m\" or \"12h\"", text)
	}
	*d = Duration(parsed)
	return nil
}

// Load reads a configuration file. Unknown keys are errors: a mistyped security
// setting must not be silently absent.
func Load(path string) (Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	var c Config
	if err := toml.NewDecoder(bytes.NewReader(content)).DisallowUnknownFields().Decode(&c); err != nil {
		return Config{}, explainTOML(path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("find the configuration's directory: %w", err)
	}
	c = c.withDefaults()
	c.resolve(dir)
	return c, nil
}

// explainTOML names file, line and key; the decoder's own texts are long.
func explainTOML(path string, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var unknown []error
		for _, e := range strict.Errors {
			line, _ := e.Position()
			unknown = append(unknown, fmt.Errorf("%s:%d: unknown key %s", path, line, strings.Join(e.Key(), ".")))
		}
		return errors.Join(unknown...)
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := e.Position()
		text := strings.TrimPrefix(e.Error(), "toml: ")
		if key := strings.Join(e.Key(), "."); key != "" {
			text = key + ": " + text
		}
		return fmt.Errorf("%s:%d: %s", path, line, text)
	}
	return fmt.Errorf("%s: %w", path, err)
}

func (c Config) withDefaults() Config {
	set(&c.Trust.Purpose, fineid.Authentication.String())
	set(&c.Users.Store, "sqlite:kortti.db")
	set(&c.Users.Map, "fineid")
	set(&c.Login.URL, "/login")
	set(&c.Login.Redirect, "/account")
	set(&c.Login.Inactive, "/inactive")
	set(&c.Session.Idle, Duration(30*time.Minute))
	set(&c.Session.Absolute, Duration(12*time.Hour))
	if host, err := os.Hostname(); err == nil {
		set(&c.Audit.Instance, host)
	}
	set(&c.Audit.Segment, Duration(24*time.Hour))
	set(&c.Limits.Handshakes, 100)
	set(&c.Limits.Refusals, 5)
	set(&c.Limits.Logins, 1)
	return c
}

// limits are those of the sessions.
func (s Session) limits() session.Limits {
	return session.Limits{Idle: time.Duration(s.Idle), Absolute: time.Duration(s.Absolute)}
}

// doors is the part of the doors' configuration that comes from the file as it
// stands there.
func (c Config) doors() door.Config {
	return door.Config{
		LoginURL: c.Login.URL, RedirectURL: c.Login.Redirect, InactiveURL: c.Login.Inactive,
		Sessionless: c.Session.Sessionless,
	}
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// resolve makes relative paths count from dir.
func (c *Config) resolve(dir string) {
	files := []*string{&c.Listen.Cert, &c.Listen.Key, &c.Audit.Dir, &c.Trust.Cache, &c.Probe.Secret}
	for _, list := range [][]string{c.Trust.Roots, c.Trust.Issuing} {
		for i := range list {
			files = append(files, &list[i])
		}
	}
	for _, r := range c.Trust.Revocation {
		for i, address := range r.CRL {
			if !strings.Contains(address, "://") {
				files = append(files, &r.CRL[i])
			}
		}
	}
	for _, file := range files {
		*file = under(dir, *file)
	}
	for prefix, field := range map[string]*string{"unix:": &c.Listen.HTTP, "sqlite:": &c.Users.Store} {
		if path, ok := strings.CutPrefix(*field, prefix); ok {
			*field = prefix + under(dir, path)
		}
	}
}

func under(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
