package main

// exitCodes are the exit codes, for help and manual page.
var exitCodes = []struct {
	code int
	what string
}{
	{exitDone, "done"}, {exitFailed, "failed"}, {exitUsage, "wrong use"}, {exitNoCard, "no card"},
	{exitPIN, "PIN refused or cancelled"}, {exitPINLocked, "PIN locked"},
}

// manualFiles are the files that a person may look at.
var manualFiles = [][2]string{
	{"$XDG_CONFIG_HOME/kortti/kortti.toml", "The agent's settings, see kortti.toml(5). kortti never writes it."},
	{"$XDG_CONFIG_HOME/kortti/managed.toml", "Hosts and settings that were set while the agent ran."},
	{"$XDG_RUNTIME_DIR/kortti/agent.sock", "The agent's control socket."},
	{"$XDG_STATE_HOME/kortti/", "Local roots, consents, choices, what was learned about hosts, and the audit."},
	{"$XDG_STATE_HOME/kortti/exec/", "The certificate files that kortti exec gives to programs."},
}

// manual has a text for what help says in too few words: commands and verbs by
// their path, the page's own description as "".
var manual = map[string]string{
	"": `kortti presents the certificate of a smart card, such as the Finnish identity card, to web services, for any browser or program.
The agent (kortti agent) is a local proxy. Hosts that you have listed (kortti hosts add) get the card's certificate; all others are passed through untouched.
The PIN is asked for by the tray app, by kortti prompt or by kortti unlock.`,
	"agent": `Run the agent until it is ended: the local proxy, the questions to you, the control API. There is one for each control socket.
SIGHUP does what kortti reload does. Started by systemd, it takes the sockets that systemd has opened, says when it is ready, and writes its log for the journal.`,
	"service install": `Have systemd (systemctl --user) listen for the agent and start it when a program needs it: kortti.socket and kortti.service are written with this program's path and the addresses of your settings, and enabled.
Where there is no such systemd, or with --autostart, the agent starts together with your desktop instead. Run it again after a change of [proxy] listen or [control] socket, and when kortti has moved.`,
	"service status":    "Say what has the agent started, and whether that still fits this program and your settings.",
	"service uninstall": "Stop and remove what kortti service install has written, and nothing else.",
	"settings list":     "List what the agent runs with, and where each setting can be changed.",
	"settings set": `Change idle_lock (such as 5m, or 0 for never) or upstream (a proxy's URL, env, or none), at once and for later starts, in managed.toml. What kortti.toml sets is changed there.
With - for the value it is read from standard input: for a proxy's URL with a password.`,
	"reload": `Have the agent read kortti.toml and managed.toml again. All of them are taken over or, where anything is wrong with them, nothing.
Connections and questions of hosts that are listed otherwise now, or not any more, end. Modules and addresses stay as they are until the agent is started again, which is said.`,
	"status":      "Say whether the agent runs, what to set in a browser, whether the cards are unlocked, and how much was signed.",
	"unlock":      "Ask for the PIN on this terminal and unlock the card until it is locked, removed or not used for a while. CARD is the beginning of a card's name, id or certificate's SHA-256.",
	"lock":        "Lock the card, or all cards, and end the connections that were made with them.",
	"pin change":  `Give the card a new PIN, by the old one. This is about the PIN that logs in (PIN1); the one for signatures stays as it is.`,
	"pin unblock": `Give the card a new PIN by its PUK, after too many wrong PINs.`,
	"exec": `Run a program with the agent's proxy and the local roots set in its environment: HTTPS_PROXY and https_proxy,
SSL_CERT_FILE, CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE, GIT_SSL_CAINFO, AWS_CA_BUNDLE, CARGO_HTTP_CAINFO (the system's certificates and the local roots together),
NODE_EXTRA_CA_CERTS, DENO_CERT (the local roots) and NODE_USE_ENV_PROXY.
Where you have set one of the certificate variables yourself, its file is extended and no other certificates are added.
What would lead a listed host around the proxy is left out of NO_PROXY, and said.
Only the environment is changed, and the program's children inherit it. kortti becomes the program: signals and the exit status are its own.
Programs that heed these variables are curl, git, Python, Go, and Node.js from version 24 on; of some that do not, a line tells what to do instead.
Nothing that the program sends by plain http:// goes to the proxy.
A program that needs the PIN asks through the tray app or kortti prompt; without them unlock the card first: kortti unlock.`,
	"get": `Get a page of a listed host with the card and print it, or write it to a file. Redirects of https are followed, at most 20, with cookies; where they lead is said.
Header lines given with -H are sent to the first host only. Where nobody else can be asked, the questions of the agent are put on this terminal.
An answer of 400 and more is printed, and the exit status is 1.`,
	"hosts list": "List the hosts that get the certificate. kortti hosts alone does the same.",
	"hosts add": `List a host: a name, a name with a port, or "*." and a name. With --preset list the hosts of a known service.
With --probe follow the redirects of a login without any card, show which hosts ask for a certificate, and list those after a question.
A probe ends where a person has to choose, where a page goes on by a form or script, and where a host wants a card; a server that asks late within TLS 1.3 cannot be seen.`,
	"hosts remove":    "Take a host off the list and delete its local root here. kortti trust uninstall takes it out of browsers.",
	"hosts presets":   "List Finnish services that take cards, with the hosts that ask, where this is known from, and whether it was tried.",
	"why":             "Ask a listed host which certificates it takes, and say of each certificate on your cards why it would be sent or not.",
	"audit":           "Show what was decided: consents, unlocks, signatures, locks, listed hosts. Certificates stand there by their SHA-256.",
	"completion bash": "Print a script that completes kortti's commands. In ~/.bashrc: source <(kortti completion bash)",
	"completion zsh":  "Print a script that completes kortti's commands. In ~/.zshrc, after compinit: source <(kortti completion zsh)",
	"completion fish": "Print a script that completes kortti's commands. In ~/.config/fish/config.fish: kortti completion fish | source",
	"man":             "Show a manual page: kortti (the default) or kortti.toml. Where the output is no terminal, its source is printed: kortti man > kortti.1",
	"testcard create": "Make a test card with SoftHSM, and a test PKI for it. Never use a real PIN.",
	"testcard list":   "List the test cards with what was counted at each.",
	"testcard delete": "Delete a test card.",
	"testcard pull":   "Pull a test card out of its reader.",
	"testcard insert": "Put a test card back into its reader.",
	"trust install":   "Put the local roots of the listed hosts, or of those named, where browsers look for them: NSS databases and Firefox profiles, those of snap and flatpak too. Needs certutil. Browsers that run must be started again.",
	"trust status":    "Show which trust stores hold the local roots.",
	"trust uninstall": "Take local roots out of all trust stores again.",
	"trust print":     "Print the local root of a listed host, in PEM form.",
	"consents list":   "List which program may use which card at which host, and for how long: until it is revoked, or until the card is locked or removed.",
	"consents revoke": "Take a consent back by its ID, or all of them. The next request of the program is asked for again, also on a connection that is open.",
	"profiles list":   "List what was learned about hosts, and why: that a host wants HTTP/1.1, or asks for the certificate after the request.",
	"profiles reset":  "Forget what was learned about a host.",
}
