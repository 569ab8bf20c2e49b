package card

import (
	"path/filepath"
	"strconv"
	"strings"
)

// Product is a program that brings a PKCS#11 module.
type Product string

// The products that this package knows. What it does not know works as well:
// it is only not found by "auto" unless p11-kit names it.
const (
	AtostekID Product = "Atostek ID"      // DVV's official one since the end of 2024
	DigiSign  Product = "DigiSign Client" // DVV's former one, without updates since the end of 2025
	OpenSC    Product = "OpenSC"
	ReFineID  Product = "ReFineID"
	YKCS11    Product = "YKCS11" // Yubico's
	SoftHSM   Product = "SoftHSM"
)

// libraryNames tell products by a part of their library's file name, in lower
// case.
var libraryNames = []struct {
	part    string
	product Product
}{
	{"atostek-id-pkcs11", AtostekID},
	{"libcryptoki", DigiSign},
	{"cryptoki.dll", DigiSign},
	{"opensc-pkcs11", OpenSC},
	{"refineid_pkcs11", ReFineID},
	{"ykcs11", YKCS11},
	{"softhsm", SoftHSM},
	{"kortti-testcard", SoftHSM}, // the test cards of package softhsm
}

// Product tells which product the module belongs to, "" if it is none that is
// known, and its version as MAJOR.MINOR, "" if the module was never loaded.
func (m ModuleInfo) Product() (product Product, version string) {
	name := strings.ToLower(filepath.Base(m.Path))
	for _, known := range libraryNames {
		if strings.Contains(name, known.part) {
			product = known.product
			break
		}
	}
	if product == "" && strings.HasPrefix(m.Description, "OpenSC ") {
		product = OpenSC // under a name that somebody chose
	}
	if i := strings.LastIndexByte(m.Description, ' '); i >= 0 {
		version = m.Description[i+1:]
	}
	return product, version
}

// olderThan compares two versions, MAJOR.MINOR in numbers. What is no version
// is older than nothing.
func olderThan(version, other string) bool {
	major, minor, ok := parseVersion(version)
	otherMajor, otherMinor, otherOK := parseVersion(other)
	if !ok || !otherOK {
		return false
	}
	return major < otherMajor || major == otherMajor && minor < otherMinor
}

func parseVersion(s string) (major, minor uint64, ok bool) {
	first, second, _ := strings.Cut(s, ".")
	major, err := strconv.ParseUint(first, 10, 32)
	minor, err2 := strconv.ParseUint(second, 10, 32)
	return major, minor, err == nil && err2 == nil
}
