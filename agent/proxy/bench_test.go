package proxy

import (
	"io"
	"net/http"
	"testing"
)

// BenchmarkForward sends small requests to a listed host from many goroutines,
// with net/http at both ends.
func BenchmarkForward(b *testing.B) {
	for _, v := range []struct {
		name  string
		http2 bool
	}{{"h1", false}, {"h2", true}} {
		b.Run(v.name, func(b *testing.B) {
			r := newRig(b, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
			client := r.client(v.http2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					fetch(b, client, request(b, "GET", "https://card.test/", nil))
				}
			})
		})
	}
}

// BenchmarkBody receives 64 MB bodies from a listed host.
func BenchmarkBody(b *testing.B) {
	const size = 64 << 20
	for _, v := range []struct {
		name  string
		http2 bool
	}{{"h1", false}, {"h2", true}} {
		b.Run(v.name, func(b *testing.B) {
			r := newRig(b, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, &pattern{size}) })
			client := r.client(v.http2)
			b.SetBytes(size)
			for b.Loop() {
				resp, err := client.Do(request(b, "GET", "https://card.test/", nil))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}
