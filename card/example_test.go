package card_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net/http"

	"github.com/kortti-id/kortti/card"
)

// A program that fetches a page with the first card that can log in. In a real
// one the person types the PIN, as bytes that are used for nothing else.
func Example() {
	card.RunIfChild() // first line of main: children are this program again

	ctx := context.Background()
	cards, err := card.NewManager(card.Config{Modules: []string{"auto"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cards.Close()
	if err := cards.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	const host = "asiointi.example.fi"
	for _, reader := range cards.Snapshot().Readers {
		if reader.Card == nil || len(reader.Card.Certificates) == 0 || !reader.Card.Certificates[0].Login {
			continue
		}
		certificate := reader.Card.Certificates[0]
		pin := card.NewPIN([]byte{'1', '2', '3', '4'})
		if err := cards.Unlock(ctx, certificate.Fingerprint, pin, card.UnlockOptions{}); err != nil {
			log.Fatalf("%v\n%s", err, card.Hint(err))
		}
		signer, err := cards.Signer(certificate.Fingerprint, host)
		if err != nil {
			log.Fatal(err)
		}
		identity := tls.Certificate{
			Certificate: [][]byte{certificate.DER}, PrivateKey: signer,
			SupportedSignatureAlgorithms: certificate.Schemes,
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{identity}, MinVersion: tls.VersionTLS12, MaxVersion: certificate.MaxVersion,
		}}}
		answer, err := client.Get("https://" + host + "/")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(answer.Status)
	}
}
