// Package control holds the types of the agent's control API and a client for
// it. The API is HTTP with JSON on a Unix socket that only the agent's own user
// may open; the tray, the command line and the tests use nothing else.
//
// The package is plain Go and imports nothing else of Kortti, so that a front
// end can be built without cgo and without a PKCS#11 module.
package control

import "time"

// Status is the answer to GET /v1/status.
type Status struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Uptime is in whole seconds.
	Uptime   int64      `json:"uptime"`
	Proxy    string     `json:"proxy"` // host:port that the proxy listens on
	Cards    []CardLock `json:"cards"`
	Counters Counters   `json:"counters"`
	// ScreenLock and Sleep tell whether these lock the cards.
	ScreenLock Watch `json:"screen_lock"`
	Sleep      Watch `json:"sleep"`
	// RootsEnding are the listed hosts whose local roots end within 30 days, so
	// that new ones should be installed.
	RootsEnding []string `json:"roots_ending,omitempty"`
}

// Watch says whether the agent watches for something. Detail says through whom,
// or why not, for people.
type Watch struct {
	Watched bool   `json:"watched"`
	Detail  string `json:"detail"`
}

// CardLock says whether one inserted card is unlocked.
type CardLock struct {
	Card  string `json:"card"`
	Label string `json:"label"`
	State State  `json:"state"`
}

// State is the lock state of a card.
type State string

// The lock states of a card. LockNotConfirmed means that the signer has ended
// but that the card did not confirm the reset: it should be pulled out.
const (
	Locked           State = "locked"
	Unlocked         State = "unlocked"
	LockNotConfirmed State = "lock-not-confirmed"
)

// Counters are totals since the agent started.
type Counters struct {
	Signatures        uint64 `json:"signatures"`
	SignaturesAvoided uint64 `json:"signatures_avoided"`
	Prompts           uint64 `json:"prompts"`
	HandshakesFull    uint64 `json:"handshakes_full"`
	HandshakesResumed uint64 `json:"handshakes_resumed"`
	Requests          uint64 `json:"requests"`
	UpstreamErrors    uint64 `json:"upstream_errors"`
	// Connections to listed hosts are open now.
	Connections int `json:"connections"`
}

// Cards is the answer to GET /v1/cards.
type Cards struct {
	Modules []Module `json:"modules"`
	Readers []Reader `json:"readers"`
	PCSC    PCSC     `json:"pcsc"`
}

// PCSC is what the smart card service sees, without any module.
type PCSC struct {
	Error   string       `json:"error,omitempty"` // why it cannot be asked
	Readers []PCSCReader `json:"readers"`
}

// PCSCReader is a card reader. Where a card is in it that no module shows,
// Unrecognized is set and Fix says what to do about it.
type PCSCReader struct {
	Name         string `json:"name"`
	Present      bool   `json:"present"`
	Mute         bool   `json:"mute,omitempty"`      // the card does not answer
	Exclusive    bool   `json:"exclusive,omitempty"` // another program has the card to itself
	ATR          string `json:"atr,omitempty"`       // hexadecimal
	Kind         string `json:"kind,omitempty"`      // of card, where the ATR is known
	Unrecognized bool   `json:"unrecognized,omitempty"`
	Fix          string `json:"fix,omitempty"`
}

// Module is a PKCS#11 module that the agent uses.
type Module struct {
	Path        string `json:"path"`
	Description string `json:"description,omitempty"`
	Error       string `json:"error,omitempty"`
	Hint        string `json:"hint,omitempty"`
}

// Reader is a slot of a module; Card is nil when it is empty. A card that
// several modules show is there once: Module is the one that it is used
// through, Others are the rest.
type Reader struct {
	Name   string   `json:"name"`
	Module string   `json:"module"`
	Others []string `json:"other_modules,omitempty"`
	Card   *Card    `json:"card,omitempty"`
}

// Card is an inserted card as one module shows it.
type Card struct {
	ID           string        `json:"id"`
	Label        string        `json:"label"`
	Serial       string        `json:"serial"`
	Manufacturer string        `json:"manufacturer"`
	Model        string        `json:"model"`
	State        State         `json:"state"`
	PIN          PIN           `json:"pin"`
	Certificates []Certificate `json:"certificates"`
}

// PIN is what the token says of its PIN (PKCS#11 v2.40, CK_TOKEN_INFO flags).
type PIN struct {
	Initialized bool `json:"initialized"`
	ToBeChanged bool `json:"to_be_changed"` // of some cards: not activated yet
	Pad         bool `json:"pad"`
	CountLow    bool `json:"count_low"`
	FinalTry    bool `json:"final_try"`
	Locked      bool `json:"locked"`
	PUKFinalTry bool `json:"puk_final_try"`
	PUKLocked   bool `json:"puk_locked"`
	Min         int  `json:"min"`
	Max         int  `json:"max"`
}

// Certificate is a certificate on a card.
type Certificate struct {
	SHA256    string    `json:"sha256"` // of the DER, lower-case hex
	Subject   string    `json:"subject"`
	Name      string    `json:"name"` // the person, for showing
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Purpose   string    `json:"purpose"` // authentication, signature, other
	Key       string    `json:"key"`     // RSA-2048, P-384, …
	Login     bool      `json:"login"`
	WhyNot    string    `json:"why_not,omitempty"`
	TLS       string    `json:"tls,omitempty"` // the newest TLS that it can log in with: "1.3" or "1.2"
	PEM       string    `json:"pem,omitempty"` // with GET /v1/cards only
}

// PromptKind says what a prompt asks for.
type PromptKind string

// The kinds of prompt.
const (
	PromptPIN         PromptKind = "pin"
	PromptPINChange   PromptKind = "pin-change"
	PromptPINUnblock  PromptKind = "pin-unblock" // by the PUK
	PromptConsent     PromptKind = "consent"
	PromptCertificate PromptKind = "certificate"
)

// ProgramNote says what a program's name does not say.
type ProgramNote string

// The notes. Such a program's consent is not remembered.
const (
	NoteUnknown     ProgramNote = "unknown"     // which program it is could not be proved
	NoteInterpreter ProgramNote = "interpreter" // it runs other programs, any of which may be asking
	NoteRemote      ProgramNote = "remote"      // it passes on what comes from another machine or a container
	NoteSandbox     ProgramNote = "sandbox"     // it runs in a sandbox or container
)

// Prompt is a question to the person. It is bound to a card, a certificate and
// a lock epoch: a change of either ends it.
type Prompt struct {
	ID          string     `json:"id"`
	Kind        PromptKind `json:"kind"`
	Card        string     `json:"card"`
	CardLabel   string     `json:"card_label"`
	Certificate string     `json:"certificate,omitempty"` // SHA-256
	Name        string     `json:"name,omitempty"`        // the person on the certificate
	Host        string     `json:"host,omitempty"`
	Program     string     `json:"program,omitempty"`
	// ProgramNote is what the person should know of the program.
	ProgramNote ProgramNote `json:"program_note,omitempty"`
	PinPad      bool        `json:"pin_pad"`
	FinalTry    bool        `json:"final_try"` // PromptPINUnblock: of the PUK
	CountLow    bool        `json:"count_low"`
	ToBeChanged bool        `json:"to_be_changed"` // of some cards: not activated yet
	MinPIN      int         `json:"min_pin,omitempty"`
	MaxPIN      int         `json:"max_pin,omitempty"`
	// Candidates are the certificates to choose from (PromptCertificate) or
	// those that the program may then use (PromptConsent).
	Candidates []Certificate `json:"candidates,omitempty"`
	// Message says why the prompt is shown again, e.g. after a refused PIN.
	Message string `json:"message,omitempty"`
	Leased  bool   `json:"leased"`
	// Expires is when the agent stops waiting for an answer.
	Expires time.Time `json:"expires"`
}

// Answer is the body of POST /v1/prompts/{id}. A front end first takes the
// lease, then sends one answer with the lease token it got: a PIN, the PIN and
// a NewPIN (PromptPINChange), the PUK and a NewPIN (PromptPINUnblock), Allow
// (consent, and "ready" for a reader's PIN pad), a Certificate or Cancel.
type Answer struct {
	Lease        bool   `json:"lease,omitempty"`
	LeaseToken   string `json:"lease_token,omitempty"`
	PIN          Secret `json:"pin,omitempty"`
	PUK          Secret `json:"puk,omitempty"`
	NewPIN       Secret `json:"new_pin,omitempty"`
	ConfirmFinal bool   `json:"confirm_final,omitempty"`
	Allow        *bool  `json:"allow,omitempty"`
	Remember     bool   `json:"remember,omitempty"`
	Certificate  string `json:"certificate,omitempty"`
	Cancel       bool   `json:"cancel,omitempty"`
}

// Wipe overwrites what is secret in the answer.
func (a *Answer) Wipe() {
	for _, s := range []*Secret{&a.PIN, &a.PUK, &a.NewPIN} {
		s.Wipe()
		*s = nil
	}
}

// AnswerResult is the reply to an Answer: the lease token, or how it went.
type AnswerResult struct {
	LeaseToken string `json:"lease_token,omitempty"`
	Done       bool   `json:"done"`
}

// Event is one event of GET /v1/events. Kind is the SSE event name.
type Event struct {
	Kind        EventKind `json:"kind"`
	Card        string    `json:"card,omitempty"`
	Certificate string    `json:"certificate,omitempty"`
	Reason      string    `json:"reason,omitempty"` // for people
	// Code is the Reason of EventPromptClosed for programs, one as in Error;
	// "" where the prompt was answered well.
	Code   string  `json:"code,omitempty"`
	Host   string  `json:"host,omitempty"`
	Prompt *Prompt `json:"prompt,omitempty"`
}

// EventKind is the name of an event.
type EventKind string

// The kinds of event.
const (
	EventCard         EventKind = "card"
	EventPrompt       EventKind = "prompt"
	EventPromptClosed EventKind = "prompt-closed"
	EventLock         EventKind = "lock"
	EventSignature    EventKind = "signature"
	EventHost         EventKind = "host"
)

// Host is a listed host: one that the proxy intercepts.
type Host struct {
	Name     string `json:"name"`
	Card     string `json:"card"`    // "auto" or a certificate's SHA-256
	Consent  string `json:"consent"` // "ask" or "always"
	Address  string `json:"address,omitempty"`
	TLSRoots string `json:"tls_roots,omitempty"`
	// Managed tells that the host is in managed.toml, so that the API may change it.
	Managed bool `json:"managed"`
}

// Settings is the answer to GET /v1/settings: what the agent runs with.
type Settings struct {
	ConfigFile  string   `json:"config_file"`
	ManagedFile string   `json:"managed_file"`
	StateDir    string   `json:"state_dir"`
	Modules     []string `json:"modules"`
	IdleLock    string   `json:"idle_lock"` // a Go duration; "0s" means never
	Proxy       string   `json:"proxy"`     // as configured
	Socket      string   `json:"socket"`
	// Upstream is the proxy on the way out, without a password: "" for none,
	// "env" or a URL.
	Upstream string `json:"upstream"`
	// Listeners lead to one listed host each.
	Listeners []Listener `json:"listeners"`
	// Fixed are those of SettingIdleLock and SettingUpstream that kortti.toml
	// sets, so that PUT /v1/settings cannot change them.
	Fixed []string `json:"fixed"`
}

// The settings that PUT /v1/settings changes.
const (
	SettingIdleLock = "idle_lock"
	SettingUpstream = "upstream"
)

// SettingsChange is the body of PUT /v1/settings: what to change, in
// managed.toml. What is nil stays as it is. Where kortti.toml sets one of them,
// nothing is changed, and the answer is CodeConfigWins.
type SettingsChange struct {
	IdleLock *string `json:"idle_lock,omitempty"` // a Go duration, or "0"
	Upstream *string `json:"upstream,omitempty"`  // may hold a user name and a password
}

// Reload is the answer to POST /v1/reload: what is different now, and what
// stays as it was until the agent is started again. Both are for people.
type Reload struct {
	Changed []string `json:"changed"`
	Kept    []string `json:"kept"`
}

// Listener is an address whose requests all go to one listed host.
type Listener struct {
	Address  string `json:"address"`  // host:port that it listens on
	Upstream string `json:"upstream"` // https://host[:port]
}

// Consent is a remembered permission of a program to use a card at a host.
type Consent struct {
	ID      string    `json:"id"`
	Program string    `json:"program"`
	Host    string    `json:"host"`
	Card    string    `json:"card"` // certificate's SHA-256
	Since   time.Time `json:"since"`
	// Remembered tells that the consent outlives the agent; otherwise it ends
	// when the card is locked or removed.
	Remembered bool `json:"remembered"`
}

// CardSelection is the body of POST /v1/unlock and /v1/lock; both fields empty
// means all cards for lock and the only login-capable card for unlock.
type CardSelection struct {
	Card        string `json:"card,omitempty"`
	Certificate string `json:"certificate,omitempty"`
}

// Root is the local root of one listed host.
type Root struct {
	Host     string    `json:"host"`
	PEM      string    `json:"pem"`
	SHA256   string    `json:"sha256"`
	NotAfter time.Time `json:"not_after"`
	// RenewAt is from when on a new one should be installed: trust install makes
	// it.
	RenewAt time.Time `json:"renew_at"`
	// Error says why there is none that can be used.
	Error string `json:"error,omitempty"`
}

// TrustStatus is the answer to GET /v1/trust without a host: which local roots
// are in which trust store.
type TrustStatus struct {
	Roots  []Root       `json:"roots"` // of the listed hosts, in use
	Stores []TrustStore `json:"stores"`
}

// TrustStore is a place where programs look for roots.
type TrustStore struct {
	Kind    string `json:"kind"` // nss, firefox or system
	Path    string `json:"path"`
	Owner   string `json:"owner"`             // for people
	Browser string `json:"browser,omitempty"` // that is to be started again after a change
	Present bool   `json:"present"`
	// Shadowed says that the browser looks at another store instead.
	Shadowed bool `json:"shadowed,omitempty"`
	// Error says why the store cannot be read, Hint what to do about it.
	Error string        `json:"error,omitempty"`
	Hint  string        `json:"hint,omitempty"`
	Roots []TrustedRoot `json:"roots"`
}

// TrustState says what a store holds of a root.
type TrustState string

// The states of a root in a store. TrustStale is a root that no listed host
// uses; the store trusts it for nothing that the proxy shows.
const (
	TrustTrusted   TrustState = "trusted"
	TrustMissing   TrustState = "missing"
	TrustUntrusted TrustState = "untrusted" // there, but without trust
	TrustStale     TrustState = "stale"
	TrustDuplicate TrustState = "duplicate" // there more than once
)

// TrustedRoot is one root in a store, or one that is missing there.
type TrustedRoot struct {
	Host     string     `json:"host"`
	SHA256   string     `json:"sha256"`
	Nickname string     `json:"nickname,omitempty"` // the store's name for it
	State    TrustState `json:"state"`
}

// TrustRequest is the body of POST /v1/trust. Hosts are listed hosts, or for
// "uninstall" hosts that once were; All means every one. System takes the
// system's store along. With Print nothing is changed, and the answer holds the
// commands that would do it.
type TrustRequest struct {
	Action string   `json:"action"` // "install" or "uninstall"
	Hosts  []string `json:"hosts,omitempty"`
	All    bool     `json:"all,omitempty"`
	System bool     `json:"system,omitempty"`
	Print  bool     `json:"print,omitempty"`
}

// The actions of a TrustRequest.
const (
	TrustInstall   = "install"
	TrustUninstall = "uninstall"
)

// TrustResult is the answer to POST /v1/trust.
type TrustResult struct {
	Changes []TrustChange `json:"changes"`
	// Commands are for the person to run in a shell, in this order: all of them
	// with Print, otherwise those that only root may run.
	Commands []string `json:"commands,omitempty"`
	// Restart names the browsers that see the change when they are started
	// again, Running those of them that seem to run now.
	Restart []string `json:"restart,omitempty"`
	Running []string `json:"running,omitempty"`
}

// TrustChange is what became of one root in one store; where the whole store
// failed, Host and SHA256 are empty.
type TrustChange struct {
	Store  string       `json:"store"` // its path
	Owner  string       `json:"owner"`
	Host   string       `json:"host,omitempty"`
	SHA256 string       `json:"sha256,omitempty"`
	Change TrustOutcome `json:"change"`
	Error  string       `json:"error,omitempty"`
	Hint   string       `json:"hint,omitempty"`
}

// TrustOutcome says how a change of a store ended.
type TrustOutcome string

// The outcomes.
const (
	TrustInstalled TrustOutcome = "installed"
	TrustRemoved   TrustOutcome = "removed"
	TrustAlready   TrustOutcome = "already" // as it was asked for
	TrustPlanned   TrustOutcome = "planned" // left to Commands
	TrustSkipped   TrustOutcome = "skipped" // the browser has no profile yet
	TrustFailed    TrustOutcome = "failed"
)

// Why is the answer to GET /v1/why: what a host asked for and, for every
// certificate, the rule that kept or dropped it.
type Why struct {
	Host          string   `json:"host"`
	Asked         bool     `json:"asked"`
	AcceptableCAs []string `json:"acceptable_cas"`
	Rows          []WhyRow `json:"rows"`
	Chosen        string   `json:"chosen,omitempty"`
	// Profiles are what was learned about the host, one for each port.
	Profiles []Profile `json:"profiles,omitempty"`
}

// Profile is what was learned about a host that cannot be served in the usual
// way; GET /v1/profiles lists them all. Reason says what the host did.
type Profile struct {
	Host string `json:"host"`
	Port string `json:"port"`
	// HTTP1: the host gets HTTP/1.1 alone.
	HTTP1 bool `json:"http1"`
	// TLS12Renegotiation: some paths get connections of their own, over TLS 1.2,
	// because the host asks for the certificate only after the request.
	TLS12Renegotiation bool `json:"tls12_renegotiation"`
	// WarmUp: before a request with a body goes one without.
	WarmUp bool      `json:"warm_up"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// WhyRow is one certificate's line in a Why.
type WhyRow struct {
	Certificate string `json:"certificate"`
	Subject     string `json:"subject"`
	Kept        bool   `json:"kept"`
	Rule        string `json:"rule"`
}

// Severity says how bad a finding is.
type Severity string

// The severities. Only an error keeps the card from being used.
const (
	SeverityOK      Severity = "ok"
	SeverityNote    Severity = "note"
	SeverityWarning Severity = "warning"
	SeverityError   Severity = "error"
)

// Finding is one result of the doctor's checks. Code is for programs, the rest
// for people; Fix says what to do, "" where nothing needs to be done.
type Finding struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`
	Detail   string   `json:"detail,omitempty"`
	Fix      string   `json:"fix,omitempty"`
}

// Doctor is the answer to GET /v1/doctor.
type Doctor struct {
	Findings []Finding `json:"findings"`
}

// AuditRecord is one line of the audit file.
type AuditRecord struct {
	Time        time.Time `json:"time"`
	Decision    string    `json:"decision"` // e.g. "login", "refused", "consent", "unlock", "lock"
	Host        string    `json:"host,omitempty"`
	Program     string    `json:"program,omitempty"`
	PID         int       `json:"pid,omitempty"`
	Card        string    `json:"card,omitempty"`
	Certificate string    `json:"certificate,omitempty"`
	Reason      string    `json:"reason,omitempty"`
}
