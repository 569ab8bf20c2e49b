package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxBundle bounds a file of trust anchors, in bytes; Debian's has 220 kB.
const maxBundle = 16 << 20

// The bundles that do not come from a file of the person's own.
const (
	systemBundle = "roots.pem" // the system's anchors and the local roots
	localBundle  = "local.pem" // the local roots alone
)

// systemBundles are where distributions keep their trust anchors in one file,
// in the order of crypto/x509.
var systemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/pki/tls/cacert.pem",                           // OpenELEC
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
	"/etc/ssl/cert.pem",                                 // Alpine
}

// systemRoots returns the system's trust anchors in PEM form. A system without
// any is an error: a bundle of the local roots alone would cut a program off
// from all other hosts.
func systemRoots() ([]byte, error) {
	for _, path := range systemBundles {
		if raw, err := readBundle(path); err == nil {
			return raw, nil
		}
	}
	return nil, errors.New("the system's trust anchors were not found; install the package ca-certificates")
}

func readBundle(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	switch block, _ := pem.Decode(raw); {
	case err != nil:
		return nil, err
	case len(raw) > maxBundle:
		return nil, fmt.Errorf("%s is larger than %d MiB", path, maxBundle>>20)
	case block == nil:
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return raw, nil
}

// extendBundle adds the local roots to a copy of the person's own file. The
// copy's name comes from the file's, so that programs that run already find the
// same anchors in it.
func extendBundle(dir, own string, local []byte) (string, error) {
	if filepath.Dir(own) == dir { // made by a kortti exec around this one
		return own, nil
	}
	path, err := filepath.Abs(own)
	if err != nil {
		return "", err
	}
	anchors, err := readBundle(path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(path))
	return writeBundle(dir, "roots-"+hex.EncodeToString(sum[:6])+".pem", anchors, local)
}

// writeBundle writes a file of trust anchors for this user alone, whole or not
// at all: other programs may be reading it.
func writeBundle(dir, name string, anchors, local []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, name+".*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("write the certificate bundle: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write the certificate bundle: %w", err), ignoreMissing(os.Remove(f.Name())))
		}
	}()
	if len(anchors) > 0 && anchors[len(anchors)-1] != '\n' {
		anchors = append(bytes.Clone(anchors), '\n')
	}
	_, err = f.Write(append(bytes.Clone(anchors), local...))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	path = filepath.Join(dir, name)
	return path, os.Rename(f.Name(), path)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
