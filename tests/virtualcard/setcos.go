package virtualcard

// setCOS is the profile of the FINEID citizen card of 2011 with keys of 2048
// bits, as OpenSC's driver "setcos" uses it up to version 0.26. That driver
// never asks for the tries left.
func setCOS() profile {
	return profile{
		atr: []byte{0x3B, 0x7B, 0x94, 0x00, 0x00, 0x80, 0x62, 0x12, 0x51,
			'V', 'F', 'i', 'n', 'E', 'I', 'D'},
		algorithm: rsa2048, tries: 5, pukTries: 10, longestPIN: 12, shortestPIN2: 6,
		build: buildSetCOS,
	}
}

func buildSetCOS(c *Card, spec Spec) (applet, error) {
	const padding, padded = 0x00, 12
	const folderSignature = 0x5016
	l := layout{
		label: "HENKILOKORTTI", manufacturer: "VRK-FINEID",
		tokenFlags: []int{0, 1, 3}, // readonly, loginRequired, eidCompliant
		pins: []pinObject{
			{PIN1, "perustunnusluku", 1}, {PIN2, "allekirjoitustunnusluku", 2}, {PUK, "PUK", 3},
		},
		authCert:  []uint16{idMF, folderPKCS15, 0x4331},
		authKey:   []uint16{idMF, folderPKCS15, 0x4B01},
		signCert:  []uint16{idMF, folderPKCS15, folderSignature, 0x4332},
		signKey:   []uint16{idMF, folderPKCS15, folderSignature, 0x4B02},
		authLabel: "todentamis- ja salausvarmenne", signLabel: "allekirjoitusvarmenne",
		firstCA: 0x4334, pinPadding: padding, pinStoredSize: padded,
	}
	if err := c.writePKCS15(l, spec.CAs); err != nil {
		return nil, err
	}
	return &pki{
		padding: padding, padded: padded,
		refs: map[byte]*pin{1: c.pins[PIN1], 2: c.pins[PIN2], 3: c.pins[PUK]},
		keys: map[uint16]*key{0x4B01: c.authKey, 0x4B02: c.signKey},
	}, nil
}
