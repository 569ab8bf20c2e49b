//go:build unix && !linux

package child

import "os"

// privateFile returns the path of a file with text that only this user can read,
// and what removes it.
func privateFile(text []byte) (path string, remove func(), err error) {
	f, err := os.CreateTemp("", "kortti-opensc-*.conf")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.Remove(f.Name()) }
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return f.Name(), remove, nil
}
