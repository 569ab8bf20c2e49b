package virtualcard

// algorithm is what keys a profile has.
type algorithm int

const (
	rsa2048 algorithm = iota
	p384
)

// profile is what differs between kinds of card.
type profile struct {
	atr          []byte
	algorithm    algorithm
	tries        int // of PIN1 and PIN2
	pukTries     int
	longestPIN   int // bytes
	shortestPIN2 int
	// build puts the files on the card, whose identities, PINs and keys are
	// there already, and returns what processes its commands.
	build func(c *Card, spec Spec) (applet, error)
}

// profileOf returns a profile by its name.
func profileOf(name Profile) (profile, bool) {
	switch name {
	case MyEIDRSA:
		return myEID(rsa2048), true
	case MyEIDEC:
		return myEID(p384), true
	case FINEIDSetCOS:
		return setCOS(), true
	case FINEID40:
		return fineID4(fineID40Chip), true
	case FINEID41:
		return fineID4(fineID41Chip), true
	}
	return profile{}, false
}
