package tlsclient_test

import (
	"crypto/tls"
	"fmt"
	"log"
	"net/http"

	"github.com/kortti-id/kortti/tlsclient"
)

// A program with a certificate of its own, such as card/token gives, needs no
// more than this.
func Example() {
	cert, err := tls.LoadX509KeyPair("service.pem", "service-key.pem")
	if err != nil {
		log.Fatal(err)
	}
	transport := tlsclient.New(tlsclient.Config{Source: tlsclient.Static(cert)})
	defer transport.Close()
	client := http.Client{Transport: transport}
	resp, err := client.Get("https://asiointi.example.fi/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, transport.Counters().Signatures)
}
