package fineidtest

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"sync/atomic"
	"time"
)

// OCSP holds the faults of the OCSP responder; set them at any time. Without
// any, a delegated responder with a nonce, if asked for one, gives answers
// that are valid for an hour.
type OCSP struct {
	// Stale answers were true two days ago and ended yesterday.
	Stale atomic.Bool
	// NoNextUpdate leaves the end of the answer's life open.
	NoNextUpdate atomic.Bool
	// NoNonce leaves the nonce out, WrongNonce changes it.
	NoNonce, WrongNonce atomic.Bool
	// WrongSigner signs with a holder's certificate of the same CA.
	WrongSigner atomic.Bool
	// OtherCA signs with the responder of a CA that did not issue the
	// certificate asked about.
	OtherCA atomic.Bool
	// ExpiredResponder signs with a responder certificate that ended.
	ExpiredResponder atomic.Bool
	// Direct signs with the CA's own key, which is allowed.
	Direct atomic.Bool
	// BadSignature damages the signature.
	BadSignature atomic.Bool
	// OtherSerial answers for another serial number, OtherIssuer for the same
	// number of another issuer.
	OtherSerial, OtherIssuer atomic.Bool
	// Unknown gives the status unknown.
	Unknown atomic.Bool
	// TryLater answers with the OCSP error tryLater, Garbage with no OCSP at
	// all, Down with HTTP 500.
	TryLater, Garbage, Down atomic.Bool
	// Delay holds every answer back for so many nanoseconds, or until the
	// client goes away.
	Delay atomic.Int64
}

// maxRequest bounds a request, in bytes.
const maxRequest = 64 << 10

// OCSP response statuses (RFC 6960 4.2.1).
const (
	ocspMalformed    = 1
	ocspInternal     = 2
	ocspTryLater     = 3
	ocspUnauthorized = 6
)

// The structures of RFC 6960 4.1.1 and 4.2.1.

type certID struct {
	Hash              pkix.AlgorithmIdentifier
	NameHash, KeyHash []byte
	Serial            *big.Int
}

type ocspRequest struct {
	TBS struct {
		Version    int           `asn1:"explicit,optional,default:0,tag:0"`
		Requestor  asn1.RawValue `asn1:"explicit,optional,tag:1"`
		List       []singleRequest
		Extensions []pkix.Extension `asn1:"explicit,optional,tag:2"`
	}
	Signature asn1.RawValue `asn1:"explicit,optional,tag:0"`
}

type singleRequest struct {
	ID         certID
	Extensions asn1.RawValue `asn1:"explicit,optional,tag:0"`
}

type singleResponse struct {
	ID         certID
	Good       asn1.Flag   `asn1:"tag:0,optional"`
	Revoked    revokedInfo `asn1:"tag:1,optional"`
	Unknown    asn1.Flag   `asn1:"tag:2,optional"`
	ThisUpdate time.Time   `asn1:"generalized"`
	NextUpdate time.Time   `asn1:"generalized,explicit,tag:0,optional"`
}

type revokedInfo struct {
	Time   time.Time       `asn1:"generalized"`
	Reason asn1.Enumerated `asn1:"explicit,tag:0"`
}

type responseData struct {
	Responder  asn1.RawValue // [1] byName
	ProducedAt time.Time     `asn1:"generalized"`
	Responses  []singleResponse
	Extensions []pkix.Extension `asn1:"explicit,tag:1,omitempty,optional"`
}

type basicResponse struct {
	Data         asn1.RawValue
	Algorithm    pkix.AlgorithmIdentifier
	Signature    asn1.BitString
	Certificates []asn1.RawValue `asn1:"explicit,tag:0,omitempty,optional"`
}

type responseBytes struct {
	Type     asn1.ObjectIdentifier
	Response []byte
}

type ocspResponse struct {
	Status asn1.Enumerated
	Bytes  responseBytes `asn1:"explicit,tag:0,optional"`
}

// serveOCSP answers a request by POST, or by GET with the base64 in query.
func (p *PKI) serveOCSP(w http.ResponseWriter, r *http.Request, ca *CA, query string) {
	if delay := time.Duration(p.OCSP.Delay.Load()); delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	if p.OCSP.Down.Load() {
		http.Error(w, "the OCSP responder is down", http.StatusInternalServerError)
		return
	}
	const contentType = "application/ocsp-response"
	if p.OCSP.Garbage.Load() {
		write(w, contentType, []byte("<html>this is no OCSP</html>"))
		return
	}
	status := ocspMalformed
	if request, err := readRequest(r, query); err == nil {
		var answer []byte
		if answer, status = p.answer(ca, request); answer != nil {
			write(w, contentType, answer)
			return
		}
	}
	failure, err := asn1.Marshal(struct{ Status asn1.Enumerated }{asn1.Enumerated(status)})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, contentType, failure)
}

func readRequest(r *http.Request, query string) (*ocspRequest, error) {
	var der []byte
	var err error
	if r.Method == http.MethodGet {
		der, err = base64.StdEncoding.DecodeString(query)
	} else {
		der, err = io.ReadAll(io.LimitReader(r.Body, maxRequest))
	}
	if err != nil {
		return nil, err
	}
	return parseRequest(der)
}

func parseRequest(der []byte) (*ocspRequest, error) {
	var request ocspRequest
	rest, err := asn1.Unmarshal(der, &request)
	if err != nil {
		return nil, fmt.Errorf("read OCSP request: %w", err)
	}
	if len(rest) > 0 || len(request.TBS.List) == 0 {
		return nil, errors.New("read OCSP request: nothing asked, or something behind it")
	}
	for _, single := range request.TBS.List {
		if single.ID.Serial == nil {
			return nil, errors.New("read OCSP request: no serial number")
		}
	}
	return &request, nil
}

// answer makes a signed answer, or nil and an error status.
func (p *PKI) answer(ca *CA, request *ocspRequest) ([]byte, int) {
	if p.OCSP.TryLater.Load() {
		return nil, ocspTryLater
	}
	data := responseData{ProducedAt: p.now().UTC().Truncate(time.Second)}
	for _, single := range request.TBS.List {
		if !single.ID.fits(ca.Certificate) {
			return nil, ocspUnauthorized
		}
		response, err := p.status(ca, single.ID)
		if err != nil {
			return nil, ocspInternal
		}
		data.Responses = append(data.Responses, response)
	}
	if nonce, ok := p.nonce(request); ok {
		data.Extensions = []pkix.Extension{nonce}
	}
	answer, err := p.sign(ca, data)
	if err != nil {
		return nil, ocspInternal
	}
	return answer, 0
}

// fits tells whether the request is about certificates of the issuer.
func (id certID) fits(issuer *x509.Certificate) bool {
	name, key, err := issuerHashes(id.Hash.Algorithm, issuer)
	return err == nil && bytes.Equal(name, id.NameHash) && bytes.Equal(key, id.KeyHash)
}

func issuerHashes(algorithm asn1.ObjectIdentifier, issuer *x509.Certificate) (name, key []byte, err error) {
	bits, err := publicKeyBits(issuer.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case algorithm.Equal(asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}):
		n, k := sha1.Sum(issuer.RawSubject), sha1.Sum(bits)
		return n[:], k[:], nil
	case algorithm.Equal(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}):
		n, k := sha256.Sum256(issuer.RawSubject), sha256.Sum256(bits)
		return n[:], k[:], nil
	}
	return nil, nil, errors.New("hash algorithm is neither SHA-1 nor SHA-256")
}

// status looks a certificate up and applies the faults that concern it.
func (p *PKI) status(ca *CA, id certID) (singleResponse, error) {
	known, found, err := p.ledger.find(ca.Name, id.Serial.Text(16))
	if err != nil {
		return singleResponse{}, err
	}
	now := p.now().UTC().Truncate(time.Second)
	response := singleResponse{ID: id, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	switch {
	case !found || p.OCSP.Unknown.Load():
		response.Unknown = true
	case !known.Revoked.IsZero():
		response.Revoked = revokedInfo{Time: known.Revoked.Truncate(time.Second), Reason: asn1.Enumerated(known.Reason)}
	default:
		response.Good = true
	}
	if p.OCSP.Stale.Load() {
		response.ThisUpdate, response.NextUpdate = now.Add(-2*day), now.Add(-day)
	}
	if p.OCSP.NoNextUpdate.Load() {
		response.NextUpdate = time.Time{}
	}
	if p.OCSP.OtherSerial.Load() {
		response.ID.Serial = new(big.Int).Add(id.Serial, big.NewInt(1))
	}
	if p.OCSP.OtherIssuer.Load() {
		response.ID.NameHash, response.ID.KeyHash, err = issuerHashes(id.Hash.Algorithm, p.other(ca).Certificate)
	}
	return response, err
}

// nonce echoes the request's nonce (RFC 8954), if there is one.
func (p *PKI) nonce(request *ocspRequest) (pkix.Extension, bool) {
	for _, extension := range request.TBS.Extensions {
		if !extension.Id.Equal(oidOCSPNonce) || p.OCSP.NoNonce.Load() || len(extension.Value) == 0 {
			continue
		}
		value := bytes.Clone(extension.Value)
		if p.OCSP.WrongNonce.Load() {
			value[len(value)-1] ^= 1
		}
		return pkix.Extension{Id: oidOCSPNonce, Value: value}, true
	}
	return pkix.Extension{}, false
}

func (p *PKI) sign(ca *CA, data responseData) ([]byte, error) {
	cert, key, err := p.signer(ca)
	if err != nil {
		return nil, err
	}
	data.Responder = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: cert.RawSubject}
	raw, err := asn1.Marshal(data)
	if err != nil {
		return nil, err
	}
	signature, err := signBytes(key, raw)
	if err != nil {
		return nil, err
	}
	if p.OCSP.BadSignature.Load() {
		signature[len(signature)-1] ^= 1
	}
	basic := basicResponse{
		Data: asn1.RawValue{FullBytes: raw}, Algorithm: algorithmFor(key, false),
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	}
	if cert != ca.Certificate {
		basic.Certificates = []asn1.RawValue{{FullBytes: cert.Raw}}
	}
	inner, err := asn1.Marshal(basic)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(ocspResponse{Bytes: responseBytes{Type: oidOCSPBasic, Response: inner}})
}

// signer gives who signs the answers about the certificates of ca.
func (p *PKI) signer(ca *CA) (*x509.Certificate, crypto.Signer, error) {
	switch {
	case p.OCSP.WrongSigner.Load():
		leaf, err := p.ordinaryLeaf(ca)
		if err != nil {
			return nil, nil, err
		}
		return leaf.Certificate, leaf.Key, nil
	case p.OCSP.OtherCA.Load():
		other := p.other(ca)
		return other.responder, other.responderKey, nil
	case p.OCSP.ExpiredResponder.Load():
		cert, err := p.certifyResponder(ca, ca.responderKey.Public(), p.now().Add(-2*year), p.now().Add(-day))
		return cert, ca.responderKey, err
	case p.OCSP.Direct.Load():
		return ca.Certificate, ca.Key, nil
	}
	return ca.responder, ca.responderKey, nil
}

// ordinaryLeaf makes the holder's certificate for WrongSigner, once per CA.
func (p *PKI) ordinaryLeaf(ca *CA) (*Issued, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if leaf, ok := p.ordinary[ca]; ok {
		return leaf, nil
	}
	leaf, err := p.issue(ca, Leaf{Policies: []string{"1.2.246.517.99.10.352.1"}})
	if err != nil {
		return nil, err
	}
	p.ordinary[ca] = leaf
	return leaf, nil
}

// other gives a CA that is not ca.
func (p *PKI) other(ca *CA) *CA {
	if ca == p.OrganisationEC {
		return p.CitizenEC
	}
	return p.OrganisationEC
}
