# Kortti. `make help` lists the targets.
SHELL := /bin/sh
GO ?= go
# gles,x11: the tray's OpenGL ES build for X11 (XWayland too) compiles four
# times faster than the default of desktop GL with two window systems.
TRAY_TAGS := gles,x11,migrated_fynedo
FUZZ_SECONDS ?= 90
TEST := $(GO) test -race -timeout 15m

# Without it each child that was built with the race detector sleeps a second
# at its end.
export GORACE := atexit_sleep_ms=0

CARD   := ./card/... ./softhsm/... ./fineid/... ./tlsclient/... ./tests/virtualcard/... ./tests/cards/...
PROXY  := ./agent/... ./cmd/kortti/... ./tests/demo/... ./tests/upstreams/...
SERVER := ./server/... ./cmd/kortti-server/... ./examples/... ./tests/server/...
GUI    := ./gui/... ./cmd/kortti-tray/... ./tests/tray/... ./tests/packaging/...
# These run one after the other: each fills the machine by itself.
ALONE  := ./tests/load/... ./tests/browsers/...
HOUSE  := ./tests/house/... ./tests/rootfs/... ./tests/pcscd/...

.DEFAULT_GOAL := help
.PHONY: help demo build man tray install uninstall test test-card test-proxy test-server test-gui lint fuzz bench soak clean check-go packages-demo packages-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: check-go packages-demo ## a test card logs in to a demo server, from end to end (KEEP=1 leaves it running)
	@echo "Building kortti, kortti-server and the example site ..."
	@$(MAKE) --no-print-directory build
	@exec bin/kortti demo $(if $(KEEP),--keep)

build: check-go ## the commands without the tray, into bin/
	@mkdir -p bin
	@$(GO) build -o bin/ ./cmd/kortti ./cmd/kortti-server ./examples/relyingparty

man: build ## the manual pages, into bin/man/
	@mkdir -p bin/man
	@bin/kortti man > bin/man/kortti.1
	@bin/kortti man kortti.toml > bin/man/kortti.toml.5

tray: check-go packages-test ## the tray app, into bin/
	@mkdir -p bin
	@$(GO) build -tags $(TRAY_TAGS) -o bin/ ./cmd/kortti-tray

test: check-go packages-test lint ## everything that must be green: lint, all tests with the race detector, 90 s of fuzzing
	$(TEST) $(HOUSE) $(CARD) $(PROXY) $(SERVER)
	$(TEST) -p 1 $(ALONE)
	$(MAKE) --no-print-directory test-gui
	$(MAKE) --no-print-directory fuzz

test-card: check-go packages-test ## cards, test cards, certificates, TLS client
	$(TEST) $(CARD)

test-proxy: check-go packages-test ## the agent, its proxy, the command line, the demo
	$(TEST) $(PROXY)
	$(TEST) -p 1 $(ALONE)

test-server: check-go packages-test ## the server, its command, nginx in front of it
	$(TEST) $(SERVER)

test-gui: check-go packages-test ## the tray, by Fyne's test driver and in a real X server
	$(TEST) -tags gles,x11 $(GUI)

lint: check-go ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "not gofmt'ed: $$bad" >&2; exit 1; }
	$(GO) vet -tags ci ./...
	$(GO) tool staticcheck -tags ci ./...

fuzz: check-go ## every fuzz target, FUZZ_SECONDS in all
	@sh tests/setup/fuzz.sh $(FUZZ_SECONDS)

bench: check-go packages-test ## what cards cost, beside pkcs11-tool; how fast the proxy is, beside a plain one
	$(GO) test -run '^$$' -bench 'Tunnel|ReverseProxy' ./agent/proxy
	$(GO) test -run TestInsertionAndRemoval -bench BenchmarkCounts -benchtime 1x -v ./tests/cards

soak: check-go packages-test ## the long runs: everything ten times, ten minutes of 2,000 programs, 1,000 lives of cards in readers, 100,000 certificates against OpenSSL, ten minutes of fuzzing
	$(GO) test -race -timeout 60m -count=10 $(CARD) $(PROXY) $(SERVER)
	$(GO) test -race -timeout 60m -count=10 -p 1 $(ALONE)
	KORTTI_LOAD=10m $(GO) test -race -timeout 60m -run TestLoad ./tests/load
	KORTTI_CYCLES=143 $(GO) test -race -timeout 60m -run TestCycles ./tests/cards
	KORTTI_DIFFERENTIAL=100000 $(GO) test -timeout 60m -run TestOpenSSL ./server/verify
	$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=600

install: build man tray ## programs, manual pages, completions, icon and autostart of the tray, for you alone (PREFIX, DESTDIR)
	@sh packaging/install.sh install

uninstall: ## remove what install has put there
	@sh packaging/install.sh uninstall

clean: ## remove what was built here
	rm -rf bin

check-go:
	@sh tests/setup/go.sh

packages-demo:
	@sh tests/setup/packages.sh demo

packages-test:
	@sh tests/setup/packages.sh test
