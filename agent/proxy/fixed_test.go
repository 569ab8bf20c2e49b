package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// fix adds a fixed-upstream listener to a rig and returns its address.
func (r *rig) fix(host, port string) (addr string, stop func()) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.proxy.ServeFixed(ctx, l, host, port) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("ServeFixed: %v", err)
		}
	})
	r.t.Cleanup(stop)
	return l.Addr().String(), stop
}

// say sends raw bytes to an address and reads the answer.
func say(t *testing.T, addr, request string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestFixed(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
			return
		}
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+r.Host+" "+r.RequestURI+" "+string(body))
	})
	r.hosts.set("card.test")
	addr, _ := r.fix("card.test", "443")
	resp, body := say(t, addr, "POST /a%2Fb?c HTTP/1.1\r\nHost: "+addr+"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
	if resp.StatusCode != 200 || body != "POST card.test /a%2Fb?c hi" {
		t.Errorf("%s %q", resp.Status, body)
	}
	for to, want := range map[string]string{
		"https://card.test/next?x#y": "http://" + addr + "/next?x#y",
		"https://CARD.test:443/":     "http://" + addr + "/",
		"https://card.test:8443/":    "https://card.test:8443/",
		"https://other.test/":        "https://other.test/",
		"https://u@card.test/":       "https://u@card.test/",
		"http://card.test/":          "http://card.test/",
		"/relative":                  "/relative",
	} {
		resp, _ := say(t, addr, "GET /?to="+strings.NewReplacer("?", "%3F", "#", "%23").Replace(to)+" HTTP/1.1\r\nHost: "+addr+"\r\nConnection: close\r\n\r\n")
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("Location %s became %s, want %s", to, got, want)
		}
	}
}

// What browsers and proxies send never reaches the host, whatever page it is from.
func TestFixedIsNotForBrowsers(t *testing.T) {
	r := newRig(t, never(t))
	r.hosts.set("card.test")
	addr, _ := r.fix("card.test", "443")
	_, port, _ := net.SplitHostPort(addr)
	for request, want := range map[string]int{
		lines("GET / HTTP/1.1", "Host: rebound.test:"+port):                          403,
		lines("GET / HTTP/1.1", "Host: 127.0.0.1"):                                   403,
		lines("GET / HTTP/1.1", "Host: card.test"):                                   403,
		lines("GET / HTTP/1.1", "Host: "+addr, "Sec-Fetch-Site: cross-site"):         403,
		lines("GET / HTTP/1.1", "Host: "+addr, "Sec-Fetch-Site: same-origin"):        403,
		lines("GET / HTTP/1.1", "Host: "+addr, "Sec-Fetch-Site: none"):               403,
		lines("POST / HTTP/1.1", "Host: "+addr, "Origin: null", "Content-Length: 0"): 403,
		lines("GET / HTTP/1.1", "Host: "+addr, "Origin: http://"+addr):               403,
		lines("GET / HTTP/1.1", "Host: "+addr, "Referer: https://evil.test/"):        403,
		lines("CONNECT card.test:443 HTTP/1.1", "Host: card.test:443"):               400,
		lines("GET http://card.test/ HTTP/1.1", "Host: card.test"):                   400,
		lines("OPTIONS * HTTP/1.1", "Host: "+addr):                                   400,
		lines("GET /proxy.pac HTTP/1.1", "Host: "+addr, "Sec-Fetch-Site: none"):      403,
	} {
		if resp, _ := say(t, addr, request); resp.StatusCode != want || resp.Header.Get(errorHeader) == "" {
			t.Errorf("%q: %s", request, resp.Status)
		}
	}
	r.hosts.set() // not listed any more
	if resp, _ := say(t, addr, lines("GET / HTTP/1.1", "Host: "+addr)); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Error(resp.Status)
	}
}

// Switched connections and answers that go on pass, and end with the listener.
func TestFixedUpgrade(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		conn, in, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, lines("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"))
		io.Copy(conn, in)
	}, func(c *Config) { c.Transport.(*http.Transport).ForceAttemptHTTP2 = false })
	r.hosts.set("card.test")
	addr, stop := r.fix("card.test", "443")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, lines("GET / HTTP/1.1", "Host: localhost:"+addr[strings.LastIndexByte(addr, ':')+1:], "Upgrade: websocket", "Connection: Upgrade"))
	in := bufio.NewReader(c)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	io.WriteString(c, "frame\n")
	if got, err := in.ReadString('\n'); got != "frame\n" {
		t.Fatal(got, err)
	}
	stop()
	if _, err := in.ReadByte(); err == nil {
		t.Error("the connection outlives its listener")
	}
}

// Events come through one by one, as the host says them.
func TestFixedEvents(t *testing.T) {
	heard := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-heard:
			case <-r.Context().Done():
				return
			}
		}
	})
	r.hosts.set("card.test")
	addr, _ := r.fix("card.test", "443")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	for i := range 5 {
		if !events.Scan() || events.Text() != fmt.Sprint("data: ", i) || !events.Scan() {
			t.Fatalf("event %d: %q %v", i, events.Text(), events.Err())
		}
		heard <- struct{}{}
	}
}
