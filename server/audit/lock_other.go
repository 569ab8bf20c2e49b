//go:build !unix

package audit

import (
	"io"
	"os"
	"path/filepath"
)

// lockFolder does not lock here; the file that it opens stands for the lock.
func lockFolder(dir string) (io.Closer, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
}
