package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/softhsm"
)

// testcardInfo is what the listings say of a test card.
type testcardInfo struct {
	Dir      string         `json:"dir"`
	Label    string         `json:"label"`
	Name     string         `json:"name,omitempty"` // the holder
	SATU     string         `json:"satu,omitempty"`
	Key      string         `json:"key"`
	Module   string         `json:"module"`
	Roots    string         `json:"roots,omitempty"` // PEM of the test PKI
	Inserted bool           `json:"inserted"`
	Counts   softhsm.Counts `json:"counts,omitempty"`
}

const testcardUsage = "create | list | delete | pull | insert"

func runTestcard(_ context.Context, std stdio, args []string) error {
	what, args, err := verb(std, "testcard", testcardUsage, args)
	if err != nil {
		return err
	}
	switch what {
	case "create":
		return createTestcard(std, args)
	case "delete":
		return onTestcard(std, what, args, "deleted", (*softhsm.Card).Delete)
	case "pull":
		return onTestcard(std, what, args, "pulled out", (*softhsm.Card).Pull)
	case "insert":
		return onTestcard(std, what, args, "inserted", (*softhsm.Card).Insert)
	}
	return listTestcards(std, args)
}

// testcardDir is where test cards live when nothing else is said.
func testcardDir() string {
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "."
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "kortti", "testcards")
}

func createTestcard(std stdio, args []string) error {
	fs := newFlags(std, "testcard create", "")
	dir := fs.String("dir", testcardDir(), "the `FOLDER` that holds the test cards")
	pki := fs.String("pki", "", "the `FOLDER` of the test PKI, made when it is not there (default: beside the cards)")
	name := fs.String("name", "card", "the `NAME` of the card's folder")
	pin := fs.String("pin", "1234", "the test card's `PIN`; never use a real one")
	key := fs.String("key", string(softhsm.P384), "`TYPE` of the keys: rsa2048, rsa3072 or p384")
	given := fs.String("given", "LIISA", "the invented holder's given `NAME`")
	surname := fs.String("surname", "SPECIMEN-KORTTI", "the invented holder's `SURNAME`")
	person := fs.Int("person", 12345, "`NUMBER` of the invented person: the last five digits of the SATU, after 999")
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	if *name != filepath.Base(*name) || *name == "." || *name == ".." {
		return &usageError{fmt.Sprintf("--name %q must be the name of a folder, without /", *name), fs.use()}
	}
	if *person < 0 || *person > 99999 {
		return &usageError{"--person must be from 0 to 99999", fs.use()}
	}
	if *pki == "" {
		*pki = *dir + "-pki"
	}
	number := fineidtest.SATU(*person)
	folder, err := filepath.Abs(*pki)
	if err != nil {
		return err
	}
	c, err := softhsm.Create(filepath.Join(*dir, *name), softhsm.Spec{PIN: *pin, Key: softhsm.KeyType(*key)})
	if errors.Is(err, softhsm.ErrExists) {
		return &control.Error{Message: err.Error(), Hint: "Give another --name, or delete that card first: kortti testcard delete"}
	}
	if err != nil {
		return err
	}
	authority, err := openPKI(folder)
	if err == nil {
		err = personalise(c, authority, *given, *surname, number)
	}
	if err != nil {
		return errors.Join(err, c.Delete())
	}
	info := testcardInfo{Dir: c.Dir(), Label: c.Spec().Label, Name: fmt.Sprintf("%s %s %s", *surname, *given, number),
		SATU: number.String(), Key: *key, Module: c.Module(), Roots: filepath.Join(folder, "roots.pem"), Inserted: true}
	if *asJSON {
		return printJSON(std.out, info)
	}
	fmt.Fprintf(std.out, "Test card of %s, PIN %s, inserted.\n", info.Name, *pin)
	fmt.Fprintf(std.out, "Use it, in kortti.toml:\n\n[card]\nmodules = [%q]\n\n", info.Module)
	fmt.Fprintf(std.out, "Trust it in a test server, in kortti-server.toml:\n\n[trust]\nroots = [%q]\n", info.Roots)
	return nil
}

// openPKI loads the test PKI of a folder, or makes one there.
func openPKI(dir string) (*fineidtest.PKI, error) {
	p, err := fineidtest.Load(dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if p, err = fineidtest.New(fineidtest.Options{}); err != nil {
		return nil, err
	}
	if err := p.Save(dir); err != nil {
		return nil, err
	}
	return p, os.WriteFile(filepath.Join(dir, "roots.pem"), p.RootsPEM(), 0o644)
}

// personalise puts the holder's two certificates on the card, as on a FINeID
// card: authentication (PIN1) and signature (PIN2).
func personalise(c *softhsm.Card, authority *fineidtest.PKI, given, surname string, number fineid.SATU) error {
	ca := authority.CitizenEC
	if c.Spec().Key != softhsm.P384 {
		ca = authority.CitizenRSA
	}
	for _, k := range []struct {
		id      byte
		label   string
		purpose fineid.Purpose
	}{
		{softhsm.AuthenticationID, "todentamis- ja salausvarmenne", fineid.Authentication},
		{softhsm.SignatureID, "allekirjoitusvarmenne", fineid.Signature},
	} {
		id := []byte{k.id}
		if k.id != softhsm.AuthenticationID { // Create made the first key
			if _, err := c.AddKey(c.Spec().Key, id, k.label); err != nil {
				return err
			}
		}
		public, err := c.PublicKey(id)
		if err != nil {
			return err
		}
		issued, err := authority.Issue(ca, fineidtest.Leaf{
			PublicKey: public, GivenName: given, Surname: surname, SerialNumber: number.String(), Purpose: k.purpose,
		})
		if err != nil {
			return err
		}
		if err := c.ImportCertificate(id, k.label, issued.Certificate.Raw); err != nil {
			return err
		}
	}
	return c.ResetCounts() // what making the card took is nobody's concern
}

func listTestcards(std stdio, args []string) error {
	fs := newFlags(std, "testcard list", "")
	dir := fs.String("dir", testcardDir(), "the `FOLDER` that holds the test cards")
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	cards, err := softhsm.List(*dir)
	if err != nil {
		return err
	}
	infos := make([]testcardInfo, 0, len(cards))
	for _, c := range cards {
		inserted, err := c.Present()
		if err != nil {
			return err
		}
		counts, err := c.Counts()
		if err != nil {
			return err
		}
		infos = append(infos, testcardInfo{Dir: c.Dir(), Label: c.Spec().Label, Key: string(c.Spec().Key),
			Module: c.Module(), Inserted: inserted, Counts: counts})
	}
	if *asJSON {
		return printJSON(std.out, infos)
	}
	if len(infos) == 0 {
		fmt.Fprintf(std.out, "No test card in %s. Make one: kortti testcard create\n", *dir)
		return nil
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CARD\tKEY\tINSERTED\tSIGNATURES\tLOGINS\tMODULE")
	for _, i := range infos {
		fmt.Fprintf(tw, "%s\t%s\t%t\t%d\t%d\t%s\n", filepath.Base(i.Dir), i.Key, i.Inserted,
			i.Counts["signatures"], i.Counts["C_Login"], i.Module)
	}
	return tw.Flush()
}

// onTestcard does something with one card, named by its folder or by its name
// in the usual folder.
func onTestcard(std stdio, what string, args []string, done string, do func(*softhsm.Card) error) error {
	fs := newFlags(std, "testcard "+what, "[CARD]")
	dir := fs.String("dir", testcardDir(), "the `FOLDER` that holds the test cards")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	name := "card"
	if len(rest) == 1 {
		name = rest[0]
	}
	if !strings.ContainsRune(name, filepath.Separator) {
		name = filepath.Join(*dir, name)
	}
	c, err := softhsm.Open(name)
	if errors.Is(err, softhsm.ErrNoCard) {
		return &control.Error{Message: err.Error(), Hint: "See the test cards with: kortti testcard list"}
	}
	if err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "The card is %s.\n", done)
	return nil
}
