package fineid_test

import (
	"testing"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
)

func TestDistinguishedName(t *testing.T) {
	p, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := p.Issue(p.CitizenEC, fineidtest.Leaf{GivenName: "ÅKE, JR", Surname: "SPECIMEN", SerialNumber: fineidtest.SATU(7).String(), CommonName: "X"})
	if err != nil {
		t.Fatal(err)
	}
	want := `CN=X,SN=SPECIMEN,GN=ÅKE\, JR,SERIALNUMBER=` + fineidtest.SATU(7).String() + ",C=FI"
	if got := fineid.DistinguishedName(issued.Certificate.Subject); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
