package crl

import (
	"bytes"
	"errors"
	"math/big"
)

// Object identifiers of extensions, as they stand in DER.
const (
	oidReason     = "\x55\x1d\x15" // 2.5.29.21
	oidNumber     = "\x55\x1d\x14"
	oidDelta      = "\x55\x1d\x1b"
	oidScope      = "\x55\x1d\x1c"
	oidKeyID      = "\x55\x1d\x23"
	oidCertIssuer = "\x55\x1d\x1d"
)

// Tags within extensions.
const (
	tagBoolean    = 0x01
	tagOctets     = 0x04
	tagOID        = 0x06
	tagEnumerated = 0x0A
)

var errCritical = errors.New("it has a critical extension that is not known, so that it must not be used")

// extensions calls f for each Extension of a SEQUENCE of them.
func extensions(der []byte, f func(oid string, critical bool, value []byte) error) error {
	tag, list, rest, ok := element(der)
	if !ok || tag != tagSequence || len(rest) > 0 {
		return errDER
	}
	seen := map[string]bool{}
	for len(list) > 0 {
		var one []byte
		if tag, one, list, ok = element(list); !ok || tag != tagSequence {
			return errDER
		}
		tag, oid, one, ok := element(one)
		if !ok || tag != tagOID || len(oid) == 0 || oid[len(oid)-1] >= 0x80 || seen[string(oid)] {
			return errDER
		}
		seen[string(oid)] = true
		critical := false
		tag, value, one, ok := element(one)
		if ok && tag == tagBoolean {
			if len(value) != 1 || value[0] != 0xFF { // FALSE is the default, which DER leaves out
				return errDER
			}
			critical = true
			tag, value, one, ok = element(one)
		}
		if !ok || tag != tagOctets || len(one) > 0 {
			return errDER
		}
		if err := f(string(oid), critical, value); err != nil {
			return err
		}
	}
	return nil
}

func (l *List) readExtensions(der []byte) error {
	return extensions(der, func(oid string, critical bool, value []byte) (err error) {
		switch oid {
		case oidNumber:
			l.Number, err = parseNumber(value)
		case oidDelta:
			l.Base, err = parseNumber(value)
		case oidScope:
			l.Scope, err = parseScope(value)
		case oidKeyID:
			l.KeyID, err = parseKeyID(value)
		default:
			if critical {
				return errCritical
			}
		}
		return err
	})
}

func parseNumber(der []byte) (*big.Int, error) {
	tag, value, rest, ok := element(der)
	if !ok || tag != tagInteger || len(rest) > 0 || len(value) == 0 || len(value) > 21 || value[0] >= 0x80 || len(value) > 1 && value[0] == 0 && value[1] < 0x80 {
		return nil, errDER
	}
	return new(big.Int).SetBytes(value), nil
}

// parseKeyID reads AuthorityKeyIdentifier. Lists name their key by its identifier
// (RFC 5280 section 5.2.1); what else may stand there is not needed.
func parseKeyID(der []byte) ([]byte, error) {
	tag, members, rest, ok := element(der)
	if !ok || tag != tagSequence || len(rest) > 0 {
		return nil, errDER
	}
	tag, value, _, ok := element(members)
	if !ok {
		return nil, errDER
	}
	if tag != 0x80 { // [0] keyIdentifier
		return nil, errors.New("it does not name its key by an identifier")
	}
	return bytes.Clone(value), nil
}

// parseScope reads IssuingDistributionPoint. Indirect lists, which speak of
// other issuers' certificates too, are refused.
func parseScope(der []byte) (s Scope, err error) {
	tag, members, rest, ok := element(der)
	if !ok || tag != tagSequence || len(rest) > 0 {
		return s, errDER
	}
	for last := -1; len(members) > 0; {
		var value []byte
		if tag, value, members, ok = element(members); !ok || int(tag) <= last {
			return s, errDER
		}
		last = int(tag)
		flag := func() (bool, error) {
			if len(value) != 1 || value[0] != 0xFF {
				return false, errDER
			}
			return true, nil
		}
		switch tag {
		case 0xA0: // [0] distributionPoint
			s.URLs, err = parsePoint(value)
			s.NamedPointNotByURL = len(s.URLs) == 0
			last = -1 // its tag is larger than those of the flags
		case 0x81:
			s.OnlyUsers, err = flag()
		case 0x82:
			s.OnlyCAs, err = flag()
		case 0x83:
			s.OnlySomeReasons = true
		case 0x84:
			return s, errors.New("it is an indirect list, which is not understood")
		case 0x85:
			s.OnlyAttributes, err = flag()
		default:
			return s, errDER
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// parsePoint reads the URLs of a DistributionPointName.
func parsePoint(der []byte) (urls []string, err error) {
	tag, names, rest, ok := element(der)
	if !ok || len(rest) > 0 {
		return nil, errDER
	}
	if tag != 0xA0 { // [0] fullName
		return nil, nil
	}
	for len(names) > 0 {
		var value []byte
		if tag, value, names, ok = element(names); !ok {
			return nil, errDER
		}
		if tag == 0x86 { // uniformResourceIdentifier
			urls = append(urls, string(value))
		}
	}
	return urls, nil
}

// parseEntryExtensions reads an entry's extensions; of those that are not
// critical only the reason counts.
func parseEntryExtensions(der []byte) (reason Reason, err error) {
	// Nearly all are this one alone.
	const alone = "\x30\x0c\x30\x0a\x06\x03" + oidReason + "\x04\x03\x0a\x01"
	if len(der) == len(alone)+1 && string(der[:len(alone)]) == alone {
		return Reason(der[len(alone)]), nil
	}
	err = extensions(der, func(oid string, critical bool, value []byte) error {
		switch {
		case oid == oidReason:
			tag, code, rest, ok := element(value)
			if !ok || tag != tagEnumerated || len(code) != 1 || len(rest) > 0 {
				return errDER
			}
			reason = Reason(code[0])
		case oid == oidCertIssuer:
			return errors.New("it is an indirect list, which is not understood")
		case critical:
			return errCritical
		}
		return nil
	})
	return reason, err
}
