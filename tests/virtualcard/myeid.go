package virtualcard

// myEID is the profile of Aventra's MyEID 4.5 as OpenSC's driver "myeid" uses
// it (versions 0.23 to 0.27).
func myEID(a algorithm) profile {
	return profile{
		atr: []byte{0x3B, 0xF5, 0x18, 0x00, 0x00, 0x81, 0x31, 0xFE, 0x45,
			'M', 'y', 'E', 'I', 'D', 0x9A},
		algorithm: a, tries: 5, pukTries: 10, longestPIN: 8, shortestPIN2: 4,
		build: buildMyEID,
	}
}

func buildMyEID(c *Card, spec Spec) (applet, error) {
	const padding, padded = 0xFF, 8
	l := layout{
		label: "HENKILOKORTTI", manufacturer: "Aventra Ltd.",
		tokenFlags: []int{1, 2}, // loginRequired, prnGeneration
		pins: []pinObject{
			{PIN1, "perustunnusluku", 1}, {PIN2, "allekirjoitustunnusluku", 2}, {PUK, "PUK", 3},
		},
		authCert: []uint16{idMF, folderPKCS15, 0x4331}, authKey: []uint16{idMF, folderPKCS15, 0x4B01},
		signCert: []uint16{idMF, folderPKCS15, 0x4332}, signKey: []uint16{idMF, folderPKCS15, 0x4B02},
		authLabel: "todentamis- ja salausvarmenne", signLabel: "allekirjoitusvarmenne",
		firstCA: 0x4341, pinPadding: padding, pinStoredSize: padded,
	}
	if err := c.writePKCS15(l, spec.CAs); err != nil {
		return nil, err
	}
	return &pki{
		padding: padding, padded: padded,
		refs: map[byte]*pin{1: c.pins[PIN1], 2: c.pins[PIN2], 3: c.pins[PUK]},
		keys: map[uint16]*key{0x4B01: c.authKey, 0x4B02: c.signKey},
		// Life cycle "activated": until a file says so the driver takes the
		// card for a new one and sends no VERIFY at all.
		fci:  tlv(0x8A, []byte{0x07}),
		data: map[uint16][]byte{0x01A0: myEIDInfo(c.serial), 0x01AA: myEIDCapabilities()},
	}, nil
}

// myEIDInfo is the applet's information: its version in bytes 5 to 7, the
// serial number in 8 to 17, a counter of changes.
func myEIDInfo(serial []byte) []byte {
	info := make([]byte, 20)
	info[5], info[6], info[7] = 4, 5, 5
	copy(info[18-len(serial):18], serial)
	info[19] = 1
	return info
}

// myEIDCapabilities says what keys the card can hold: features (RSA 01, ECC
// 08), then the longest keys in bits of RSA, DES, AES, ECC.
func myEIDCapabilities() []byte {
	return []byte{0x01, 0x00, 0x09, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x09}
}
