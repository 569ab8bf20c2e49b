package browsers_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/rootfs"
)

// The size of the windows, in pixels.
const width, height = 900, 700

// browser is a browser with one tab.
type browser interface {
	// open goes to an address; the error is errCertificate where the browser does
	// not trust who answers.
	open(url string) error
	// eval has the page work out an expression, as text. It fails where the page
	// is just going away.
	eval(expression string) (string, error)
	click(selector string) error
	// speak sets what pages are asked to be in.
	speak(language string) error
	screenshot() (png []byte, err error)
	quit() error
}

var errCertificate = errors.New("the browser does not trust the certificate")

// way is how a browser is told of the proxy.
type way string

const (
	byPAC   way = "PAC"
	plainly way = "proxy"
)

func (w *world) pac() string { return "http://" + w.proxy + "/proxy.pac" }

// kind is a kind of browser.
type kind struct {
	name    string
	program string // the end of the path of what connects
	start   func(*testing.T, *world, way) browser
}

var kinds = []kind{
	{"chromium", "/chromium", startChromium},
	{"firefox", "/firefox-esr", startFirefox},
}

// TestBrowsers is the life of two browsers that have never been started before,
// from the first refusal over the login to the last refusal.
func TestBrowsers(t *testing.T) {
	if pcscd.Room() != rootfs.Bookworm {
		return // the other room is for a newer Node
	}
	for _, way := range []way{byPAC, plainly} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, k := range kinds {
				w.refused(k, way, "before")
			}
			said := w.kortti("trust", "install")
			for _, want := range []string{"Chromium", "Firefox", loginHost, siteHost} {
				if !strings.Contains(said, want) {
					t.Errorf("kortti trust install says nothing of %s:\n%s", want, said)
				}
			}
			for _, k := range kinds {
				t.Run(k.name, func(t *testing.T) { w.as(t).story(k, way) })
			}
			w.kortti("trust", "uninstall", "--all")
			for _, k := range kinds {
				w.refused(k, way, "after")
			}
		})
	}
}

// as is the same world in a part of the test.
func (w *world) as(t *testing.T) *world {
	part := *w
	part.t = t
	return &part
}

// refused wants a browser not to trust the local certificate, so that nobody is
// asked for anything.
func (w *world) refused(k kind, way way, when string) {
	w.t.Helper()
	p := w.start(k, way)
	w.costs("a page that is not trusted", spent{}, func() {
		if err := p.open("https://" + loginHost + "/login"); !errors.Is(err, errCertificate) {
			w.t.Errorf("%s opens the page %s: %v", k.name, when, err)
		}
	})
	p.keep("untrusted-" + when)
	check(w.t, p.quit())
}

// page is what a browser shows in a world.
type page struct {
	browser
	*world
	name string // of screenshots
}

func (w *world) start(k kind, way way) page {
	w.t.Helper()
	return page{k.start(w.t, w, way), w, fmt.Sprintf("%s-%s", k.name, strings.ToLower(string(way)))}
}

// until waits for an expression to be true in a page that may come and go.
func (p page) until(expression string) {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		value, err := p.eval(expression)
		if err == nil && value == "true" {
			return
		}
		if time.Now().After(end) {
			text, _ := p.eval("document.documentElement.innerText")
			p.t.Fatalf("%s: this did not come true (%v): %s\nThe page: %s", p.name, err, expression, text)
		}
	}
}

// heading waits for a page with this heading.
func (p page) heading(text string) {
	p.t.Helper()
	p.until(fmt.Sprintf("document.querySelector('h1')?.textContent === %q", text))
}

// keep keeps a screenshot where KORTTI_SCREENSHOTS says. There may be nothing to
// see for a moment while one page goes and another one comes.
func (p page) keep(name string) {
	p.t.Helper()
	waitFor(p.t, "a picture of "+name, func() bool {
		picture, err := p.screenshot()
		if err == nil {
			pcscd.Keep(p.t, p.name+"-"+name+".png", picture)
		}
		return err == nil
	})
}

// lines is what a program says, and what is said about it.
type lines struct {
	without string // what lines that are left out contain

	mu   sync.Mutex
	text strings.Builder
}

// Write takes whole lines, as programs write them.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(string(b)) {
		if l.without == "" || !strings.Contains(line, l.without) {
			l.text.WriteString(line)
		}
	}
	return len(b), nil
}

func (l *lines) add(format string, args ...any) { fmt.Fprintf(l, format+"\n", args...) }

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
