package browsers_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// chromium is one that is driven by its DevTools protocol.
type chromium struct{ tab context.Context }

// startChromium runs it with the profile that it has in the person's home. It is
// the superuser here, which Chromium's sandbox does not take.
func startChromium(t *testing.T, w *world, way way) browser {
	t.Helper()
	flag := chromedp.Flag("proxy-server", "http://"+w.proxy)
	if way == byPAC {
		flag = chromedp.Flag("proxy-pac-url", w.pac())
	}
	said := lines{without: "dbus/"} // there is no bus, of which it says a lot
	allocator, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.UserDataDir(filepath.Join(w.home, "chromium")), chromedp.Env(w.environment()...),
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WindowSize(width, height), chromedp.WSURLReadTimeout(patience), chromedp.CombinedOutput(&said), flag,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true))
	// What this version of the protocol's library does not know is of no matter.
	tab, end := chromedp.NewContext(allocator, chromedp.WithErrorf(said.add), chromedp.WithLogf(said.add))
	c := &chromium{tab}
	t.Cleanup(func() {
		end()
		stop()
		if t.Failed() {
			t.Logf("Chromium said:\n%s", said.String())
		}
	})
	check(t, chromedp.Do(tab)) // starts it
	return c
}

// act has a tab do something within a time.
func act[T any](c *chromium, within time.Duration, action chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(c.tab, within)
	defer cancel()
	return chromedp.Run(ctx, action)
}

func (c *chromium) open(url string) error {
	_, err := act(c, patience, chromedp.Navigate(url))
	if err != nil && strings.Contains(err.Error(), "net::ERR_CERT_") {
		return fmt.Errorf("%w: %w", errCertificate, err)
	}
	return err
}

func (c *chromium) eval(expression string) (string, error) {
	const short = 5 * time.Second // the page may go away meanwhile
	return act(c, short, chromedp.Evaluate[string]("String("+expression+")"))
}

func (c *chromium) click(selector string) error {
	_, err := act(c, patience, chromedp.Click(chromedp.CSS(selector)))
	return err
}

func (c *chromium) speak(language string) error {
	ctx, cancel := context.WithTimeout(c.tab, patience)
	defer cancel()
	_, err := chromedp.Call(ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": language}})
	return err
}

func (c *chromium) screenshot() ([]byte, error) {
	return act(c, patience, chromedp.CaptureScreenshot())
}

func (c *chromium) quit() error {
	ctx, cancel := context.WithTimeout(c.tab, patience)
	defer cancel()
	return chromedp.Cancel(ctx)
}
