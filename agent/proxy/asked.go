package proxy

import (
	"net/http"
	"strings"

	"github.com/kortti-id/kortti/agent/peer"
)

// Asked is a request to a listed host as Config.Admit sees it: who makes it, and
// what a browser says of where it comes from (Fetch Metadata Request Headers,
// https://www.w3.org/TR/fetch-metadata/). Pages cannot set these headers; other
// programs can, and only have themselves to answer for.
type Asked struct {
	Peer peer.Peer
	// Host is the one asked for (not the entry, which may have a star), with its
	// port unless that is 443.
	Host string
	// Browser tells that a browser makes the request.
	Browser bool
	// Navigation: the request is to fill a window or a tab. Such a GET request
	// that has to wait for a person ends with a *Hold and comes again.
	Navigation bool
	// Repeats tells that a navigation may be made again, being a GET request.
	Repeats bool
	// ByHand: the person has just clicked or typed something to that end.
	ByHand bool
	// CrossSite: a page of another origin makes the request, for itself, or the
	// browser does ahead of time.
	CrossSite bool
	// Gone tells whether the program has closed its connection; nil where the
	// request's context says so. net/http looks after the connection only when a
	// body has been read, which here comes last.
	Gone func() bool
}

func asked(r *http.Request, to target) Asked {
	a := Asked{Host: to.authority("443")}
	if conn, ok := connOf(r); ok {
		a.Peer = conn.peer
	}
	site, mode, dest := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	// Browsers always say where a request comes from; Node's fetch sends a mode
	// alone, with a page behind it never.
	a.Browser = site != "" || dest != ""
	// What a browser fetches ahead is for nobody yet (Speculative Loading, "Sec-Purpose").
	ahead := r.Header.Get("Sec-Purpose") != ""
	a.Navigation = mode == "navigate" && dest == "document" && !ahead
	a.Repeats = a.Navigation && r.Method == http.MethodGet
	a.ByHand = a.Navigation && r.Header.Get("Sec-Fetch-User") == "?1"
	a.CrossSite = !a.Navigation && (site == "cross-site" || site == "same-site" || ahead)
	if origin := r.Header.Get("Origin"); origin != "" && !a.Browser && !strings.EqualFold(origin, "https://"+a.Host) {
		a.Browser, a.CrossSite = true, true // an older browser, or one's WebSocket
	}
	if conn, ok := connOf(r); ok && r.ProtoMajor == 1 && r.Body != http.NoBody {
		a.Gone = func() bool { return peer.Ended(conn) }
	}
	return a
}
