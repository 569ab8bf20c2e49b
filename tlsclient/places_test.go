package tlsclient_test

import (
	"testing"

	"github.com/kortti-id/kortti/tlsclient"
)

// What asks stands for all below its directory, as servers configure directories,
// but one page never for a whole host.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		asks, path string
		want       bool
	}{
		{"/secure/", "/secure/", true},
		{"/secure/", "/secure/a", true},
		{"/secure/", "/secure/a/b", true},
		{"/secure/", "/secure", false},
		{"/secure/", "/securely", false},
		{"/secure/", "/", false},
		{"/secure/a", "/secure/b", true},
		{"/secure/a", "/secure/", true},
		{"/secure/a/b", "/secure/b", false},
		{"/login", "/login", true},
		{"/login", "/login/step", true},
		{"/login", "/logout", false},
		{"/login", "/login.css", false},
		{"/login", "/", false},
		{"/", "/anything", true},
		{"/", "/", true},
		{"/%2e%2e/", "/../", false},
	} {
		if got := tlsclient.AsksAt(c.asks, c.path); got != c.want {
			t.Errorf("after %s: %s asks: %t, want %t", c.asks, c.path, got, c.want)
		}
	}
}

// However many places a host has, what is remembered of it is limited.
func TestPlacesAreLimited(t *testing.T) {
	if got := tlsclient.Remembered(10_000); got > tlsclient.MaxPlaces {
		t.Errorf("%d places are remembered, want at most %d", got, tlsclient.MaxPlaces)
	}
}
