package browsers_test

import (
	"fmt"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
)

// story is a login and what follows, in a browser that trusts the local roots.
func (w *world) story(k kind, way way) {
	check(w.t, w.agent.Lock(w.t.Context(), control.CardSelection{}))
	p := w.start(k, way)
	p.login(k, way)
	p.site()
	p.pull()
	p.foreign()
	check(w.t, p.quit())
}

// login is the first use of a card: leave and the PIN are asked for while
// holding pages show that, and go on by themselves.
func (p page) login(k kind, way way) {
	p.costs("the login", spent{signatures: 1, prompts: 2}, func() {
		check(p.t, p.speak("fi"))
		check(p.t, p.open("https://"+loginHost+"/login"))
		p.heading("Saako tämä selain käyttää korttiasi täällä?")
		p.keep("consent-fi")
		asked := p.answer(control.PromptConsent)
		if asked.Host != loginHost || !strings.HasSuffix(asked.Program, k.program) {
			p.t.Errorf("leave was asked for %+v", asked)
		}
		p.heading("Anna tunnusluku")
		p.keep("pin-fi")
		if way == byPAC { // the page comes anew every two seconds: once is enough
			for _, l := range []struct{ language, heading string }{{"sv", "Ange PIN-koden"}, {"en", "Enter your PIN"}} {
				check(p.t, p.speak(l.language))
				p.heading(l.heading)
				p.keep("pin-" + l.language)
			}
			check(p.t, p.speak("fi"))
		}
		p.answer(control.PromptPIN)
		p.until(fmt.Sprintf("document.querySelector('.who')?.textContent === %q", holder))
		p.keep("login-fi")
		check(p.t, p.click("form button"))
		p.until("location.pathname === '/account' && document.readyState === 'complete'")
		p.keep("account-fi")
		check(p.t, p.open("https://"+loginHost+"/whoami"))
		p.until(fmt.Sprintf("document.body.innerText.includes(%q)", `"first_name":"Åsa"`))
		check(p.t, p.open("https://"+loginHost+"/account"))
	})
}

// loaded is true in the site's page when all of it has come.
const loaded = `[...document.images].filter(i => i.complete && i.naturalWidth === 40).length === 6 &&
	getComputedStyle(document.getElementById("css")).color === "rgb(1, 2, 3)" &&
	document.getElementById("ws").textContent === "hyvää päivää" &&
	document.getElementById("sse").textContent === "event 3"`

// site is a page with all that belongs to it, twice, at a host that wants the
// card for every request.
func (p page) site() {
	p.costs("a page with images, a style, a script, a WebSocket and events, and the same again", spent{signatures: 1}, func() {
		for range 2 {
			before := p.world.site.requests.Load()
			check(p.t, p.open("https://"+siteHost+"/"))
			p.until(loaded)
			if n := p.world.site.requests.Load() - before; n < images+5 {
				p.t.Errorf("the site got %d requests", n)
			}
		}
	})
	p.keep("site")
}

// pull takes the card out. The page waits for it and for its PIN, and goes on.
func (p page) pull() {
	check(p.t, p.card.Pull())
	waitFor(p.t, "the agent to miss the card", func() bool {
		status, err := p.agent.Status(p.t.Context())
		return err == nil && len(status.Cards) == 0
	})
	requests := p.world.site.requests.Load()
	p.costs("a page without a card", spent{}, func() {
		check(p.t, p.open("https://"+siteHost+"/"))
		p.heading("Aseta kortti lukijaan")
		p.keep("no-card-fi")
	})
	if n := p.world.site.requests.Load(); n != requests {
		p.t.Errorf("without a card the site got %d requests", n-requests)
	}
	p.costs("the card's return", spent{signatures: 1, prompts: 1}, func() {
		check(p.t, p.card.Insert())
		p.heading("Anna tunnusluku")
		p.answer(control.PromptPIN)
		p.until(loaded)
	})
}

// foreign is a page of another origin, which can have nobody asked for a PIN.
func (p page) foreign() {
	check(p.t, p.agent.Lock(p.t.Context(), control.CardSelection{}))
	other, requests := startForeign(p.t), p.world.site.requests.Load()
	p.costs("what another site's page wants of a host", spent{}, func() {
		check(p.t, p.open(other.URL))
		p.until("document.title !== 'waiting'")
		const want = "image refused, script refused, frame loaded, fetch opaque, socket refused"
		if got, err := p.eval("document.title"); err != nil || got != want {
			p.t.Errorf("another site's page got: %s, %v; want: %s", got, err, want)
		}
		p.keep("foreign")
	})
	if n := p.world.site.requests.Load(); n != requests {
		p.t.Errorf("the site got %d requests", n-requests)
	}
}
