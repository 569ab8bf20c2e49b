package child

import (
	"fmt"
	"os"
)

// useConfiguration has OpenSC read its configuration from text rather than from
// the system's file; none leaves it alone. OpenSC reads it once, in C_Initialize:
// done removes the file, which only this user can read, and comes right after.
func useConfiguration(text []byte) (done func(), err error) {
	if len(text) == 0 {
		return func() {}, nil
	}
	f, err := os.CreateTemp("", "kortti-opensc-*.conf")
	if err != nil {
		return nil, fmt.Errorf("make OpenSC's private configuration: %w", err)
	}
	done = func() { _ = os.Remove(f.Name()) } // an empty place is all that matters
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Setenv("OPENSC_CONF", f.Name()) // with cgo also C's getenv sees it
	}
	if err != nil {
		done()
		return nil, fmt.Errorf("make OpenSC's private configuration: %w", err)
	}
	return done, nil
}
