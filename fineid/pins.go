package fineid

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"time"
)

// Pin identifies a published CA certificate by its SHA-256.
type Pin struct {
	// CN is the CA's common name, for people.
	CN string
	// SHA256 is the digest of the certificate's DER.
	SHA256 [sha256.Size]byte
	// Root tells a root from an issuing CA.
	Root bool
	// NotAfter is the end of the CA certificate's validity (of a root, the
	// day's beginning in UTC).
	NotAfter time.Time
}

// Pins lists the CA certificates of DVV that are in use: the roots by the
// digests that FINEID S2 prints, the issuing CAs by those on the Finnish
// trusted list. The caller owns the result.
//
// The digest of VRK Gov. Root CA - G2, which issued the CAs named VRK below,
// could not be established: those issuing CAs are pinned without their root.
func Pins() []Pin {
	return []Pin{
		pin("DVV Gov. Root CA - G3 ECC", "5546a52504fba74f61ffd4890067529ade3b9c9d07e502592831ccda9b369fd3", true, "2042-05-05T00:00:00Z"),
		pin("DVV Gov. Root CA - G3 RSA", "d3ed3fc40ad26b52e001e1e18f4b9449529deb75a81d5eb680d7b62db23ba96d", true, "2042-05-05T00:00:00Z"),

		pin("DVV Citizen Certificates - G4E", "aad1beac4696102a88bf9d518d64f8b014f78f9b152579c959998313197924d7", false, "2041-05-20T11:51:23Z"),
		pin("DVV Citizen Certificates - G4R", "2176c05e69ee24946a140d13f9efa222b3f1e768e1e2a67b313969cc03b82064", false, "2041-05-20T11:44:42Z"),
		pin("DVV Organisational Certificates - G4E", "8fdbdccb5820f1c79ef8bce190e2b3cd2cc3d0b6bd8311b1f75fbd48bbc230d4", false, "2041-05-20T12:00:38Z"),
		pin("DVV Organisational Certificates - G4R", "dfc3e965176f883a9cf0f68ceaeeab663edfd8e79de3294373c28a856984006f", false, "2041-05-20T11:56:35Z"),
		pin("DVV Service Certificates - G5E", "93c176167eca02a1b262b16517ac5fb5fc25d3568d97ecddd04e3a6126b6c7ba", false, "2041-05-20T12:10:27Z"),
		pin("DVV Service Certificates - G5R", "46319c69041db9a0d93dae802e3002cc615365931fe0976d392e8863e3f3be31", false, "2041-05-20T12:09:39Z"),
		pin("DVV Social Welfare and Healthcare Service Certificates - G3E", "a5c53cf6843a395e6ec244e9b27d58413295428ded97586fd4f67aa4ab8d49a0", false, "2041-05-20T12:14:24Z"),
		pin("DVV Social Welfare and Healthcare Service Certificates - G3R", "9d433c237c3aee7a676c9a2ed4eccb9e40ed17914655571624f0a89969b634bf", false, "2041-05-20T12:13:57Z"),
		pin("VRK CA for Organisational Certificates - G3", "9c0b9ebea95590d0fafe4a46c62e49dd0ba6cc0a80f89019a23d037e1a4c1b5b", false, "2038-05-02T10:12:46Z"),
		pin("VRK CA for Service Providers - G4", "1bd3870b842ff0a637284268017e18e455a7fd2d84468f3cdf7d587c7ab35c9d", false, "2038-05-02T10:19:19Z"),
		pin("VRK CA for Social Welfare and Healthcare Service Providers - G2", "a6b34f7b0e87446362bb1a2bf3ee95dd56d8ba97a9ffb03df41031377ecdd6f8", false, "2038-05-02T10:37:17Z"),
		pin("VRK Gov. CA for Citizen Certificates - G3", "39a835b14b6b6313f778371c79cb434dd518c8fd325b749d9be669dff20384e8", false, "2038-05-02T09:28:59Z"),
	}
}

// Pinned finds the pin of a CA certificate.
func Pinned(cert *x509.Certificate) (Pin, bool) {
	sum := sha256.Sum256(cert.Raw)
	for _, p := range Pins() {
		if p.SHA256 == sum {
			return p, true
		}
	}
	return Pin{}, false
}

// pin makes one row. Its texts are constants of this file; a mistake in one
// leaves a digest or time of zero, which a test looks for.
func pin(cn, digest string, root bool, notAfter string) Pin {
	p := Pin{CN: cn, Root: root}
	if sum, err := hex.DecodeString(digest); err == nil {
		copy(p.SHA256[:], sum)
	}
	if end, err := time.Parse(time.RFC3339, notAfter); err == nil {
		p.NotAfter = end
	}
	return p
}
