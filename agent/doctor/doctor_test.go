package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	reader  = "Virtual PCD 00 00"
	opensc  = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
	atostek = "/usr/lib/Atostek-ID-PKCS11.so"
)

var openscOld = card.ModuleInfo{Path: opensc, Description: "OpenSC smartcard framework (OpenSC Project) 0.23"}

func atr(digits string) []byte {
	raw, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return raw
}

var fineid41 = atr("3b7f9600008031b865b085051024122460829000")

// healthy are the facts of a machine where all is well.
func healthy() *Facts {
	return &Facts{
		Now: now, Built: now.AddDate(0, -1, 0), Listen: netip.MustParseAddrPort("127.0.0.1:8079"), Agent: true,
		Screen: control.Watch{Watched: true, Detail: "org.gnome.ScreenSaver"}, Sleep: control.Watch{Watched: true, Detail: "logind"},
		Snapshot: card.Snapshot{
			Modules:     []card.ModuleInfo{{Path: atostek, Description: "Atostek ID PKCS11 (Atostek) 4.5"}},
			PCSCReaders: []card.PCSCReader{{Name: reader, Present: true, ATR: fineid41}},
			Readers: []card.Reader{{Name: reader, Module: atostek, Card: &card.Card{
				ID: "1", Label: "SPECIMEN-KORTTI LIISA (PIN1)", PIN: card.PINState{Initialized: true, Min: 4, Max: 12},
				Certificates: []card.Certificate{certificate()},
			}}},
		},
	}
}

func certificate() card.Certificate {
	return card.Certificate{
		Fingerprint: card.Fingerprint{1}, KeyType: "P-384", Login: true, MaxVersion: tls.VersionTLS13,
		X509: &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(4, 0, 0)},
	}
}

// theCard is the one in healthy's reader.
func theCard(f *Facts) *card.Card               { return f.Snapshot.Readers[0].Card }
func theCertificate(f *Facts) *card.Certificate { return &theCard(f).Certificates[0] }

// unread makes the card one that the modules do not show.
func unread(f *Facts, atr []byte, modules ...card.ModuleInfo) {
	f.Snapshot.Readers = nil
	f.Snapshot.Modules = modules
	f.Snapshot.PCSCReaders[0].ATR = atr
	f.Snapshot.Unrecognized = []card.Unrecognized{{Reader: reader, ATR: atr}}
}

func broken(path string, err error) card.ModuleInfo {
	return card.ModuleInfo{Path: path, Err: &card.Error{Op: "read the cards of " + path, Err: err}}
}

func loader(text string) error { return fmt.Errorf("%w: %s", card.ErrModule, text) }

// Each row spoils the healthy facts in one way, and says which finding that
// makes.
var cases = []struct {
	name     string
	spoil    func(f *Facts)
	code     string
	severity control.Severity
	text     string // a part of title, detail and fix together
}{
	{"no module", func(f *Facts) {
		f.Snapshot = card.Snapshot{Modules: []card.ModuleInfo{broken("auto", loader("there is none"))}}
		f.Installed = []card.ModuleInfo{{Path: "/usr/lib/softhsm/libsofthsm2.so"}}
	}, "no-module", control.SeverityError, "SoftHSM is installed, but it is only used when it is named"},
	{"wrong architecture", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, loader(atostek+": wrong ELF class: ELFCLASS32"))}
	}, "module-architecture", control.SeverityError, "ELFCLASS32"},
	{"missing library", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, loader("libpcsclite.so.1: cannot open shared object file: No such file or directory"))}
	}, "module-library", control.SeverityError, "Install the package that brings libpcsclite.so.1."},
	{"missing library, musl", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, loader("Error loading shared library libz.so.1: No such file or directory (needed by x.so)"))}
	}, "module-library", control.SeverityError, "brings libz.so.1."},
	{"no library", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, loader(atostek+": file too short"))}
	}, "module-no-library", control.SeverityError, "no program library"},
	{"symbol", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, loader(atostek+": undefined symbol: SSL_new"))}
	}, "module-library", control.SeverityError, "(SSL_new)"},
	{"noexec", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, loader(atostek+": failed to map segment from shared object"))}
	}, "module-permission", control.SeverityError, "noexec"},
	{"missing file", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, loader("stat x: no such file or directory"))}
	}, "module-wrong", control.SeverityError, "Correct the path"},
	{"crash", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, fmt.Errorf("%w: SIGSEGV", card.ErrModuleCrashed))}
	}, "module-crashed", control.SeverityError, "SIGSEGV"},
	{"hang", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{broken(atostek, card.ErrModuleHung)}
	}, "module-hung", control.SeverityError, "put it back"},
	{"other failure", func(f *Facts) {
		f.Snapshot.Modules = []card.ModuleInfo{{Path: atostek, Err: &card.Error{Op: "x", Function: "C_Initialize", Code: 5, Err: card.ErrModuleFailed}}}
	}, "module-failed", control.SeverityError, "C_Initialize answered 0x5"},
	{"one bad beside a good one", func(f *Facts) {
		f.Snapshot.Modules = append(f.Snapshot.Modules, broken(opensc, loader("no such file or directory")))
	}, "module-wrong", control.SeverityWarning, opensc},
	{"slow", func(f *Facts) { f.Snapshot.Modules[0].Description = "" }, "module-slow", control.SeverityWarning, "half a minute"},
	{"spy", func(f *Facts) {
		f.Snapshot.Modules[0].Path = "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so"
	}, "module-spy", control.SeverityError, "writes every PIN"},

	{"no PC/SC library", noPCSC(card.ErrNoPCSC), "pcsc-library", control.SeverityError, "libpcsclite1"},
	{"no pcscd", noPCSC(card.ErrNoService), "pcsc-service", control.SeverityError, "apt install pcscd"},
	{"polkit", noPCSC(card.ErrServiceRefused), "pcsc-refused", control.SeverityError, "polkit"},
	{"another PC/SC failure", noPCSC(nil), "pcsc-failed", control.SeverityError, "what PC/SC said"},
	{"no pcscd, test cards", func(f *Facts) {
		noPCSC(card.ErrNoService)(f)
		f.Snapshot.Modules[0].Path = "/home/x/kortti-testcard.so"
	}, "pcsc-service", control.SeverityNote, ""},
	{"no reader", func(f *Facts) { f.Snapshot.PCSCReaders, f.Snapshot.Readers = nil, nil }, "no-reader", control.SeverityError, "libccid"},
	{"empty reader", func(f *Facts) {
		f.Snapshot.Readers, f.Snapshot.PCSCReaders[0].Present = nil, false
	}, "reader", control.SeverityNote, "Insert the card"},

	{"old OpenSC", func(f *Facts) { unread(f, fineid41, openscOld) }, "card-unrecognized", control.SeverityError,
		"It is a FINEID citizen card, S4-1 v4.1 (2025). OpenSC 0.23 (" + opensc + ") does not know such cards. Install Atostek ID from DVV (dvv.fi), OpenSC 0.27"},
	{"a module that ought to know", func(f *Facts) {
		unread(f, fineid41, card.ModuleInfo{Path: atostek, Description: "Atostek ID PKCS11 (Atostek) 4.5"})
	}, "card-unrecognized", control.SeverityError, "ought to know it. Take the card out"},
	{"a card that nobody knows", func(f *Facts) { unread(f, atr("3b00"), openscOld) }, "card-unrecognized", control.SeverityError, "ATR is 3b00"},
	{"a module with own names of readers", func(f *Facts) {
		f.Snapshot.Readers[0].Name = "Card reader 1"
		f.Snapshot.Unrecognized = []card.Unrecognized{{Reader: reader, ATR: fineid41}}
	}, "card-unrecognized", control.SeverityNote, "all is well"},
	{"mute", func(f *Facts) {
		unread(f, nil, openscOld)
		f.Snapshot.Unrecognized[0].Mute = true
	}, "card-mute", control.SeverityError, "right way round"},
	{"held", func(f *Facts) {
		unread(f, fineid41, openscOld)
		f.Snapshot.Unrecognized[0].Exclusive = true
	}, "card-held", control.SeverityError, "Close the other program"},
	{"shown without support", func(f *Facts) {
		f.Snapshot.Modules, f.Snapshot.Readers[0].Module = []card.ModuleInfo{openscOld}, opensc
	}, "card-unsupported", control.SeverityWarning, "not be able to sign"},

	{"no certificate", func(f *Facts) { theCard(f).Certificates = nil }, "card-no-login", control.SeverityError, "No certificate can be read"},
	{"no mechanism", func(f *Facts) {
		theCertificate(f).Login, theCertificate(f).WhyNot = false, "no mechanism"
	}, "card-no-login", control.SeverityError, "no mechanism"},
	{"expired", func(f *Facts) {
		theCertificate(f).Login, theCertificate(f).X509.NotAfter = false, now.AddDate(0, 0, -1)
	}, "certificate-expired", control.SeverityError, "ended on 2026-11-22"},
	{"not yet valid", func(f *Facts) {
		later := certificate() // beside an older certificate, so that the clock is not to blame
		later.Login, later.X509.NotBefore = false, now.AddDate(0, 0, 1)
		old := certificate()
		old.Login, old.X509.KeyUsage = false, x509.KeyUsageContentCommitment
		theCard(f).Certificates = []card.Certificate{later, old}
	}, "certificate-not-yet", control.SeverityError, "begins on 2026-11-24"},
	{"expires soon", func(f *Facts) { theCertificate(f).X509.NotAfter = now.AddDate(0, 0, 20) }, "certificate-expires", control.SeverityWarning, "2026-12-13"},
	{"no PSS", func(f *Facts) {
		theCertificate(f).KeyType, theCertificate(f).MaxVersion = "RSA-2048", tls.VersionTLS12
	}, "no-pss", control.SeverityWarning, "TLS 1.2 only"},

	{"PIN locked", func(f *Facts) { theCard(f).PIN.Locked = true }, "pin-locked", control.SeverityError, "PUK"},
	{"PIN never set", func(f *Facts) { theCard(f).PIN.Initialized = false }, "pin-not-set", control.SeverityError, "Activate"},
	{"PIN to be changed", func(f *Facts) { theCard(f).PIN.ToBeChanged = true }, "pin-to-be-changed", control.SeverityWarning, "activated"},
	{"final try", func(f *Facts) { theCard(f).PIN.FinalTry = true }, "pin-final-try", control.SeverityWarning, "one try left"},
	{"count low", func(f *Facts) { theCard(f).PIN.CountLow = true }, "pin-count-low", control.SeverityNote, "wrongly last time"},
	{"signature PIN locked", func(f *Facts) {
		f.Snapshot.Readers = append(f.Snapshot.Readers, card.Reader{Name: reader, Module: atostek, Ordinal: 1, Card: &card.Card{
			Label: "SPECIMEN-KORTTI LIISA (PIN2)", PIN: card.PINState{Initialized: true, Locked: true},
		}})
	}, "pin-locked", control.SeverityNote, `slot "PIN2" is locked`},

	{"clock before the build", func(f *Facts) { f.Now = f.Built.AddDate(0, 0, -2) }, "clock", control.SeverityError, "made later"},
	{"clock before all certificates", func(f *Facts) {
		f.Built, theCertificate(f).X509.NotBefore = time.Time{}, now.Add(time.Hour)
	}, "clock", control.SeverityError, "begins later"},
	{"clock far ahead", func(f *Facts) { f.Now = f.Built.AddDate(11, 0, 0) }, "clock", control.SeverityWarning, "ten years"},

	{"port taken", func(f *Facts) {
		f.Agent, f.Servers = false, []Server{{8079, "/usr/bin/nginx"}}
	}, "port-taken", control.SeverityError, "nginx (/usr/bin/nginx)"},
	{"port taken by nobody knows whom", func(f *Facts) { f.Agent, f.Servers = false, []Server{{Port: 8079}} }, "port-taken", control.SeverityError, "cannot be told"},
	{"no agent", func(f *Facts) { f.Agent = false }, "agent-not-running", control.SeverityNote, "kortti agent"},
	{"Atostek", func(f *Facts) { f.Servers = []Server{{44304, ""}} }, "card-program", control.SeverityNote, "44304"},
	{"Atostek and DigiSign", func(f *Facts) {
		f.Servers = []Server{{53951, "/opt/mPollux/DigiSign"}, {53952, "/usr/bin/atostekid"}}
	}, "card-programs-clash", control.SeverityWarning, "Remove DigiSign"},

	{"private opensc.conf", func(f *Facts) { f.OpenSC = card.OpenSCConf{Path: "/home/x/o.conf", Private: true} },
		"opensc-conf-private", control.SeverityWarning, "OPENSC_CONF names it"},
	{"unreadable opensc.conf", func(f *Facts) { f.OpenSC = card.OpenSCConf{Path: "/x", Err: errors.New("line 3")} },
		"opensc-conf-unreadable", control.SeverityWarning, "line 3"},
	{"disconnect_action", setting("reader_driver pcsc", "disconnect_action", "reset"), "opensc-conf-disconnect_action", control.SeverityWarning, "locks it"},
	{"disconnect_action elsewhere", setting("", "disconnect_action", "reset"), "opensc-conf-misplaced", control.SeverityNote, "belongs into a block reader_driver pcsc"},
	{"lock_login", setting("pkcs11", "lock_login", "true"), "opensc-conf-lock_login", control.SeverityWarning, "keeps all others"},
	{"connect_exclusive", setting("reader_driver pcsc", "connect_exclusive", "true"), "opensc-conf-connect_exclusive", control.SeverityWarning, "one program alone"},
	{"use_file_caching", setting("framework pkcs15", "use_file_caching", "public"), "opensc-conf-use_file_caching", control.SeverityWarning, "renewed"},
	{"enable_default_driver", setting("", "enable_default_driver", "true"), "opensc-conf-enable_default_driver", control.SeverityWarning, "cannot sign"},
	{"card_drivers", setting("", "card_drivers", "npa"), "opensc-conf-card_drivers", control.SeverityWarning, "named there"},
	{"ignored_readers", setting("", "ignored_readers", "PCD 00"), "opensc-conf-ignored_readers", control.SeverityWarning, "alone"},
	{"ignored_readers of others", setting("", "ignored_readers", "Omnikey"), "opensc-conf-ignored_readers", control.SeverityNote, ""},
	{"harmless setting", setting("", "debug", "0"), "opensc-conf", control.SeverityOK, ""},
	{"harmless value", setting("pkcs11", "lock_login", "false"), "opensc-conf", control.SeverityOK, ""},

	{"screen not watched", func(f *Facts) { f.Screen = control.Watch{Detail: "no session bus"} }, "screen-lock", control.SeverityWarning, "not watched: no session bus."},
	{"sleep not watched", func(f *Facts) { f.Sleep = control.Watch{Detail: "no system bus"} }, "sleep-lock", control.SeverityNote, "not watched: no system bus."},
	{"all watched", func(*Facts) {}, "screen-lock", control.SeverityOK, "so does sleep"},

	{"proxy variable without agent", func(f *Facts) {
		f.Agent, f.Env = false, map[string]string{"https_proxy": "localhost:8079"}
	}, "proxy-without-agent", control.SeverityWarning, "https_proxy"},
	{"spy variable", func(f *Facts) { f.Env = map[string]string{"PKCS11SPY": opensc} }, "environment-spy", control.SeverityWarning, "PINs"},
	{"debug variable", func(f *Facts) { f.Env = map[string]string{"OPENSC_DEBUG": "9"} }, "environment-debug", control.SeverityNote, ""},
	{"PC/SC variable", func(f *Facts) { f.Env = map[string]string{"PCSCLITE_CSOCK_NAME": "/x"} }, "environment-pcsc", control.SeverityNote, "=/x"},
}

func noPCSC(why error) func(*Facts) {
	return func(f *Facts) {
		f.Snapshot.PCSC, f.Snapshot.NoPCSC = "what PC/SC said", why
		f.Snapshot.PCSCReaders, f.Snapshot.Readers = nil, nil
	}
}

func setting(place, key, value string) func(*Facts) {
	return func(f *Facts) {
		f.OpenSC = card.OpenSCConf{Path: "/etc/opensc/opensc.conf", Settings: []card.OpenSCSetting{
			{App: "default", Place: place, Key: key, Values: []string{value}},
		}}
	}
}

func TestFindings(t *testing.T) {
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			f := healthy()
			test.spoil(f)
			findings := Examine(f)
			found := slices.ContainsFunc(findings, func(f control.Finding) bool {
				all := strings.Join([]string{f.Title, f.Detail, f.Fix}, " ")
				return f.Code == test.code && f.Severity == test.severity && strings.Contains(all, test.text)
			})
			if !found {
				t.Errorf("no %s %q with %q in %+v", test.severity, test.code, test.text, findings)
			}
			for _, finding := range findings {
				bad := finding.Severity == control.SeverityError || finding.Severity == control.SeverityWarning
				if bad && finding.Fix == "" {
					t.Errorf("%q says nothing of what to do", finding.Title)
				}
				if bad && test.severity == control.SeverityOK {
					t.Errorf("%s: %s", finding.Severity, finding.Title)
				}
				if strings.Contains(finding.Title+finding.Detail+finding.Fix, "SPECIMEN") {
					t.Errorf("%q names a person", finding.Title)
				}
			}
		})
	}
}

// Where all is well, every finding says so.
func TestHealthy(t *testing.T) {
	f := healthy()
	f.Env = map[string]string{"HTTPS_PROXY": "http://127.0.0.1:8079"} // an agent runs there
	findings := Examine(f)
	for _, finding := range findings {
		if finding.Severity != control.SeverityOK {
			t.Errorf("%s: %s", finding.Severity, finding.Title)
		}
	}
	if len(findings) < 4 {
		t.Errorf("only %+v", findings)
	}
}

// The same card through a second module that calls its reader otherwise is no
// card without login.
func TestSecondModule(t *testing.T) {
	f := healthy()
	second := certificate()
	second.Login, second.WhyNot = false, "the same card is used through "+atostek
	f.Snapshot.Readers = append(f.Snapshot.Readers, card.Reader{Name: "Slot 1", Module: opensc, Card: &card.Card{
		PIN: card.PINState{Initialized: true}, Certificates: []card.Certificate{second},
	}})
	for _, finding := range Examine(f) {
		if finding.Code == "card-no-login" {
			t.Errorf("%+v", finding)
		}
	}
}

// Gather finds who has the proxy's port: this test.
func TestGatherPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := Gather(card.Snapshot{}, l.Addr().String(), false)
	holder := f.server(f.Listen.Port())
	if holder == nil || holder.Program != own {
		t.Errorf("the port is held by %+v, want %s", holder, own)
	}
	l.Close()
	if f := Gather(card.Snapshot{}, l.Addr().String(), false); f.server(f.Listen.Port()) != nil {
		t.Errorf("a free port is held by %+v", f.Servers)
	}
}
