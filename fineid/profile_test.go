package fineid_test

import (
	"fmt"
	"testing"

	"github.com/kortti-id/kortti/fineid"
)

func TestProfileNames(t *testing.T) {
	for name, want := range map[string]string{
		"SPECIMEN-NISYJU":       "Specimen-Nisyju",
		"LIISA-MAIJA ÅKE":       "Liisa-Maija Åke",
		"ÄLVA ÖSTEN":            "Älva Östen",
		"VON WRIGHT":            "Von Wright",
		"O'BRIEN":               "O'Brien",
		"D’ARC":                 "D’Arc",
		"liisa":                 "Liisa",
		"McDonald":              "McDonald",
		"AF HÄLLSTRÖM-McDONALD": "Af Hällström-McDONALD",
		"J.P.":                  "J.P.",
		"  -A":                  "  -A",
		"A\u030aKE":             "A\u030ake",
		"":                      "",
	} {
		if got := (fineid.Identity{GivenName: name, Surname: name}).Profile(); got.FirstName != want || got.LastName != want {
			t.Errorf("%q became %q and %q, want %q", name, got.FirstName, got.LastName, want)
		}
	}
}

func TestProfileHasNoEmail(t *testing.T) {
	profile := fineid.Identity{SerialNumber: "99900335E", Email: "somebody@example.com"}.Profile()
	if profile.Email != "" {
		t.Errorf("unverified address %q went into the profile", profile.Email)
	}
}

func ExampleIdentity_Profile() {
	id := fineid.Identity{SerialNumber: "99900335E", GivenName: "LIISA-MAIJA ÅKE", Surname: "SPECIMEN-NISYJU"}
	fmt.Printf("%+v\n", id.Profile())
	// Output:
	// {Username:99900335E FirstName:Liisa-Maija Åke LastName:Specimen-Nisyju Email:}
}
