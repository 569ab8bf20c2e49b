package card

import "slices"

// vendor is a product and where its module may be.
type vendor struct {
	product Product
	files   []string // full paths, or names that are looked for in the library directories
}

// platform says where an operating system keeps PKCS#11 modules.
type platform struct {
	vendors   []vendor
	libraries []string // directories of modules named without one
	p11kit    []string // directories of p11-kit's module files, the more important first
	conf      string   // p11-kit's own settings
}

// triplets are Debian's names of library directories, by GOARCH.
var triplets = map[string]string{
	"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "arm": "arm-linux-gnueabihf", "386": "i386-linux-gnu",
	"riscv64": "riscv64-linux-gnu", "ppc64le": "powerpc64le-linux-gnu", "s390x": "s390x-linux-gnu",
}

// platformOf returns what is known of an operating system. The card issuers'
// own modules come before OpenSC: they know a new card earlier. Only Linux's
// paths were tried.
func platformOf(goos, goarch string) platform {
	switch goos {
	case "darwin":
		return platform{
			vendors: []vendor{
				{DigiSign, []string{"/Library/mPolluxDigiSign/libcryptoki.dylib"}},
				{ReFineID, []string{"/usr/local/lib/librefineid_pkcs11.dylib"}},
				{OpenSC, []string{"/Library/OpenSC/lib/opensc-pkcs11.so", "opensc-pkcs11.so"}},
				{SoftHSM, []string{"/opt/homebrew/lib/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"}},
			},
			libraries: []string{"/opt/homebrew/lib/pkcs11", "/usr/local/lib/pkcs11", "/opt/homebrew/lib", "/usr/local/lib"},
			p11kit:    []string{"/opt/homebrew/etc/pkcs11/modules", "/usr/local/etc/pkcs11/modules", "/opt/homebrew/share/p11-kit/modules", "/usr/local/share/p11-kit/modules"},
			conf:      "/opt/homebrew/etc/pkcs11/pkcs11.conf",
		}
	case "windows": // has no p11-kit
		return platform{vendors: []vendor{
			{DigiSign, []string{`C:\Program Files\Fujitsu\mPollux DigiSign Client\cryptoki.dll`}},
			{OpenSC, []string{`C:\Program Files\OpenSC Project\OpenSC\pkcs11\opensc-pkcs11.dll`}},
			{SoftHSM, []string{`C:\SoftHSM2\lib\softhsm2-x64.dll`}},
		}}
	}
	libraries := []string{"/usr/lib64/pkcs11", "/usr/lib/pkcs11", "/usr/lib64", "/usr/lib", "/usr/local/lib/pkcs11", "/usr/local/lib"}
	if triplet := triplets[goarch]; triplet != "" {
		libraries = slices.Insert(libraries, 0, "/usr/lib/"+triplet+"/pkcs11", "/usr/lib/"+triplet)
	}
	return platform{
		vendors: []vendor{
			{AtostekID, []string{"Atostek-ID-PKCS11.so"}},
			{DigiSign, []string{"libcryptoki.so"}},
			{ReFineID, []string{"librefineid_pkcs11.so"}},
			{OpenSC, []string{"opensc-pkcs11.so"}},
			{SoftHSM, []string{"softhsm/libsofthsm2.so", "libsofthsm2.so"}},
		},
		libraries: libraries,
		p11kit:    []string{"/etc/pkcs11/modules", "/usr/share/p11-kit/modules"},
		conf:      "/etc/pkcs11/pkcs11.conf",
	}
}
