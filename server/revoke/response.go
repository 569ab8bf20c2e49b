package revoke

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var oidBasicResponse = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}

// maxParts bounds the certificates and the single answers in one response.
const maxParts = 16

// response is a BasicOCSPResponse as it was sent; nothing in it is proven.
type response struct {
	signed       []byte // DER of tbsResponseData
	algorithm    asn1.ObjectIdentifier
	signature    []byte
	certificates [][]byte // DER
	responder    responderID
	producedAt   time.Time
	singles      []single
	nonce        []byte // nil without one
}

// responderID says who signed: one of the two is set.
type responderID struct {
	name    []byte // DER of a Name
	keyHash []byte
}

// single is the answer about one certificate.
type single struct {
	id         certID
	sha1       bool // id is made with SHA-1
	status     certStatus
	revokedAt  time.Time
	reason     int
	thisUpdate time.Time
	nextUpdate time.Time // zero without one
}

type certStatus int

const (
	statusGood certStatus = iota
	statusRevoked
	statusUnknown
)

var errMalformed = errors.New("malformed")

func malformed(what string) error { return fmt.Errorf("%w: %s", errMalformed, what) }

// statusNames are OCSPResponseStatus (RFC 6960 section 4.2.1).
var statusNames = map[int]string{
	1: "malformed request", 2: "internal error", 3: "try later", 5: "signature required", 6: "unauthorized",
}

// parseResponse reads an OCSPResponse (RFC 6960 section 4.2.1). It takes DER
// with nothing left over at any level.
func parseResponse(der []byte) (*response, error) {
	input := cryptobyte.String(der)
	var outer, wrapped, bytesSeq, basic cryptobyte.String
	var status int
	if !input.ReadASN1(&outer, cryptobyte_asn1.SEQUENCE) || !input.Empty() || !outer.ReadASN1Enum(&status) {
		return nil, malformed("no response status")
	}
	if status != 0 {
		name := statusNames[status]
		if name == "" {
			name = "unknown"
		}
		return nil, fmt.Errorf("the responder refused: status %d (%s)", status, name)
	}
	var kind asn1.ObjectIdentifier
	if !outer.ReadASN1(&wrapped, explicit(0)) || !outer.Empty() ||
		!wrapped.ReadASN1(&bytesSeq, cryptobyte_asn1.SEQUENCE) || !wrapped.Empty() ||
		!bytesSeq.ReadASN1ObjectIdentifier(&kind) ||
		!bytesSeq.ReadASN1(&basic, cryptobyte_asn1.OCTET_STRING) || !bytesSeq.Empty() {
		return nil, malformed("no response bytes")
	}
	if !kind.Equal(oidBasicResponse) {
		return nil, fmt.Errorf("a response of unknown type %v", kind)
	}
	return parseBasic(basic)
}

// parseBasic reads a BasicOCSPResponse.
func parseBasic(input cryptobyte.String) (*response, error) {
	var r response
	var body, data, algorithm cryptobyte.String
	if !input.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) || !input.Empty() ||
		!body.ReadASN1Element(&data, cryptobyte_asn1.SEQUENCE) ||
		!body.ReadASN1(&algorithm, cryptobyte_asn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&r.algorithm) ||
		!body.ReadASN1BitStringAsBytes(&r.signature) {
		return nil, malformed("basic response")
	}
	// The parameters of the algorithms that are accepted are absent or NULL,
	// also for ECDSA, where DVV's leaves carry a NULL that should not be there.
	if !algorithm.Empty() && (!algorithm.SkipASN1(cryptobyte_asn1.NULL) || !algorithm.Empty()) {
		return nil, fmt.Errorf("a signature algorithm with parameters (%v)", r.algorithm)
	}
	r.signed = data
	if err := r.parseCertificates(&body); err != nil {
		return nil, err
	}
	if !body.Empty() {
		return nil, malformed("something follows the basic response")
	}
	if err := r.parseData(data); err != nil {
		return nil, err
	}
	return &r, nil
}

func (r *response) parseCertificates(body *cryptobyte.String) error {
	var wrapped, list cryptobyte.String
	var present bool
	if !body.ReadOptionalASN1(&wrapped, &present, explicit(0)) {
		return malformed("certificates")
	}
	if !present {
		return nil
	}
	if !wrapped.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !wrapped.Empty() {
		return malformed("certificates")
	}
	for !list.Empty() {
		var element cryptobyte.String
		if !list.ReadASN1Element(&element, cryptobyte_asn1.SEQUENCE) || len(r.certificates) == maxParts {
			return malformed("certificates")
		}
		r.certificates = append(r.certificates, element)
	}
	return nil
}

// parseData reads tbsResponseData.
func (r *response) parseData(element cryptobyte.String) error {
	var data, list cryptobyte.String
	var version int64
	if !element.ReadASN1(&data, cryptobyte_asn1.SEQUENCE) {
		return malformed("response data")
	}
	if data.PeekASN1Tag(explicit(0)) {
		var wrapped cryptobyte.String
		if !data.ReadASN1(&wrapped, explicit(0)) || !wrapped.ReadASN1Integer(&version) || !wrapped.Empty() || version != 0 {
			return malformed("version")
		}
	}
	if err := r.parseResponder(&data); err != nil {
		return err
	}
	if !data.ReadASN1GeneralizedTime(&r.producedAt) || !data.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) {
		return malformed("response data")
	}
	for !list.Empty() {
		s, err := parseSingle(&list)
		if err != nil {
			return err
		}
		if len(r.singles) == maxParts {
			return malformed("too many answers")
		}
		r.singles = append(r.singles, s)
	}
	extensions, err := optionalExtensions(&data, 1)
	if err != nil {
		return err
	}
	if !data.Empty() {
		return malformed("something follows the response data")
	}
	return r.parseExtensions(extensions)
}

func (r *response) parseResponder(data *cryptobyte.String) error {
	var wrapped cryptobyte.String
	switch {
	case data.PeekASN1Tag(explicit(1)):
		var name cryptobyte.String
		if !data.ReadASN1(&wrapped, explicit(1)) || !wrapped.ReadASN1Element(&name, cryptobyte_asn1.SEQUENCE) || !wrapped.Empty() {
			return malformed("responder name")
		}
		r.responder.name = name
	case data.PeekASN1Tag(explicit(2)):
		var hash cryptobyte.String
		if !data.ReadASN1(&wrapped, explicit(2)) || !wrapped.ReadASN1(&hash, cryptobyte_asn1.OCTET_STRING) || !wrapped.Empty() || len(hash) == 0 {
			return malformed("responder key")
		}
		r.responder.keyHash = hash
	default:
		return malformed("responder")
	}
	return nil
}

// parseSingle reads a SingleResponse.
func parseSingle(list *cryptobyte.String) (single, error) {
	var s single
	var body cryptobyte.String
	if !list.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) {
		return s, malformed("answer")
	}
	if err := s.parseID(&body); err != nil {
		return s, err
	}
	if err := s.parseStatus(&body); err != nil {
		return s, err
	}
	if !body.ReadASN1GeneralizedTime(&s.thisUpdate) {
		return s, malformed("thisUpdate")
	}
	if body.PeekASN1Tag(explicit(0)) {
		var wrapped cryptobyte.String
		if !body.ReadASN1(&wrapped, explicit(0)) || !wrapped.ReadASN1GeneralizedTime(&s.nextUpdate) || !wrapped.Empty() {
			return s, malformed("nextUpdate")
		}
	}
	extensions, err := optionalExtensions(&body, 1)
	if err != nil {
		return s, err
	}
	if !body.Empty() {
		return s, malformed("something follows an answer")
	}
	for _, e := range extensions {
		if e.critical {
			return s, fmt.Errorf("an answer has an unknown critical extension %v", e.oid)
		}
	}
	return s, nil
}

func (s *single) parseID(body *cryptobyte.String) error {
	var id, algorithm, name, key cryptobyte.String
	var hash asn1.ObjectIdentifier
	s.id.serial = new(big.Int)
	if !body.ReadASN1(&id, cryptobyte_asn1.SEQUENCE) ||
		!id.ReadASN1(&algorithm, cryptobyte_asn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&hash) ||
		!id.ReadASN1(&name, cryptobyte_asn1.OCTET_STRING) || !id.ReadASN1(&key, cryptobyte_asn1.OCTET_STRING) ||
		!id.ReadASN1Integer(s.id.serial) || !id.Empty() {
		return malformed("certificate id")
	}
	s.id.nameHash, s.id.keyHash, s.sha1 = name, key, hash.Equal(oidSHA1)
	return nil
}

func (s *single) parseStatus(body *cryptobyte.String) error {
	var content cryptobyte.String
	var tag cryptobyte_asn1.Tag
	if !body.ReadAnyASN1(&content, &tag) {
		return malformed("certificate status")
	}
	switch tag {
	case cryptobyte_asn1.Tag(0).ContextSpecific():
		s.status = statusGood
	case cryptobyte_asn1.Tag(2).ContextSpecific():
		s.status = statusUnknown
	case explicit(1):
		s.status = statusRevoked
		if !content.ReadASN1GeneralizedTime(&s.revokedAt) {
			return malformed("revocation time")
		}
		if content.PeekASN1Tag(explicit(0)) {
			var wrapped cryptobyte.String
			if !content.ReadASN1(&wrapped, explicit(0)) || !wrapped.ReadASN1Enum(&s.reason) || !wrapped.Empty() {
				return malformed("revocation reason")
			}
		}
	default:
		return malformed("certificate status")
	}
	if !content.Empty() {
		return malformed("certificate status")
	}
	return nil
}

// parseExtensions keeps the nonce. An unknown critical extension means that we
// would not understand what was signed.
func (r *response) parseExtensions(extensions []extension) error {
	for _, e := range extensions {
		switch {
		case e.oid.Equal(oidNonce):
			value := e.value
			var nonce cryptobyte.String
			if r.nonce != nil || !value.ReadASN1(&nonce, cryptobyte_asn1.OCTET_STRING) || !value.Empty() {
				return malformed("nonce")
			}
			r.nonce = bytes.Clone(nonce)
			if r.nonce == nil {
				r.nonce = []byte{}
			}
		case e.critical:
			return fmt.Errorf("an unknown critical extension %v", e.oid)
		}
	}
	return nil
}

type extension struct {
	oid      asn1.ObjectIdentifier
	critical bool
	value    cryptobyte.String
}

// optionalExtensions reads [tag] EXPLICIT Extensions, if they are there.
func optionalExtensions(body *cryptobyte.String, tag uint8) ([]extension, error) {
	var wrapped, list cryptobyte.String
	var present bool
	if !body.ReadOptionalASN1(&wrapped, &present, explicit(tag)) {
		return nil, malformed("extensions")
	}
	if !present {
		return nil, nil
	}
	if !wrapped.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !wrapped.Empty() {
		return nil, malformed("extensions")
	}
	var out []extension
	for !list.Empty() {
		var e extension
		var body cryptobyte.String
		if !list.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) || !body.ReadASN1ObjectIdentifier(&e.oid) ||
			body.PeekASN1Tag(cryptobyte_asn1.BOOLEAN) && !body.ReadASN1Boolean(&e.critical) ||
			!body.ReadASN1(&e.value, cryptobyte_asn1.OCTET_STRING) || !body.Empty() {
			return nil, malformed("extensions")
		}
		out = append(out, e)
	}
	return out, nil
}
