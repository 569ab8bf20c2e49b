// Command virtualcard puts a virtual card into a reader of vsmartcard's vpcd
// driver until it is interrupted, so that middleware can be tried by hand.
// The certificates of the card go to standard output.
package main

import (
	"context"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kortti-id/kortti/tests/virtualcard"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "virtualcard:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("virtualcard", flag.ContinueOnError)
	profile := flags.String("profile", string(virtualcard.MyEIDRSA),
		"kind of card: myeid-rsa, myeid-ec, fineid-setcos, fineid-4.0, fineid-4.1")
	reader := flags.String("reader", "127.0.0.1:35963", "`address` of the vpcd reader")
	delay := flags.Duration("sign-delay", 0, "how long a signature takes")
	log := flags.Bool("log", false, "print command APDUs and answers, without PINs")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	card, err := virtualcard.New(virtualcard.Spec{Profile: virtualcard.Profile(*profile)})
	if err != nil {
		return err
	}
	card.SetSignDelay(*delay)
	if *log {
		card.SetLog(func(e virtualcard.Exchange) {
			fmt.Fprintf(os.Stderr, "%s > %X\n%s < %X\n", now(), e.Command, now(), e.Answer)
		})
	}
	insertion, err := virtualcard.Insert(ctx, *reader, card)
	if err != nil {
		return err
	}
	defer insertion.Pull()
	for _, id := range []virtualcard.Identity{card.Authentication(), card.Signature()} {
		if err := pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate}); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "a %s card is in the reader at %s; PIN1 1234, PIN2 123456, PUK 12345678; end with Ctrl-C\n",
		*profile, *reader)
	select {
	case <-ctx.Done():
		return nil
	case <-insertion.Gone():
		return fmt.Errorf("the reader at %s is gone", *reader)
	}
}

func now() string { return time.Now().Format("15:04:05.000") }
