package roots

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/kortti-id/kortti/agent/internal/atomicfile"
)

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// load reads the file of a host: root, leaf, the leaf's key. It returns
// fs.ErrNotExist where there is none and ErrCorrupt where it is of no use.
func load(file, host string) (*Root, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the local root of %s: %w", host, err)
	}
	root, err := decode(data, host)
	if err != nil {
		return nil, fmt.Errorf("%w (remove the host and add it again, or delete %s; then install the new root)", err, file)
	}
	return root, nil
}

func decode(data []byte, host string) (*Root, error) {
	var blocks []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	if len(blocks) != 3 || blocks[0].Type != pemCertificate || blocks[1].Type != pemCertificate || blocks[2].Type != pemKey {
		return nil, fmt.Errorf("%w: the file of %s does not hold a root, a leaf and a key", ErrCorrupt, host)
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[2].Bytes)
	if err != nil {
		// The parser's error could quote key bytes.
		return nil, fmt.Errorf("%w: the key of %s cannot be read", ErrCorrupt, host)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: the key of %s cannot sign", ErrCorrupt, host)
	}
	return assemble(host, blocks[0].Bytes, blocks[1].Bytes, signer)
}

// save writes the file of a host. It is there as a whole or not at all.
func save(file string, root *Root) error {
	key, err := x509.MarshalPKCS8PrivateKey(root.Leaf.PrivateKey)
	if err != nil {
		return fmt.Errorf("cannot keep the local root of %s: %w", root.Host, err)
	}
	data := root.PEM()
	data = append(data, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: root.Leaf.Certificate[0]})...)
	data = append(data, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: key})...)

	if err := atomicfile.Write(file, data); err != nil {
		return fmt.Errorf("cannot keep the local root of %s: %w", root.Host, err)
	}
	return nil
}
