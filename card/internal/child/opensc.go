package child

import (
	"fmt"
	"os"
)

// useConfiguration has OpenSC read its configuration from text rather than from
// the system's file; none leaves it alone. OpenSC reads it once, in C_Initialize;
// done comes right after.
func useConfiguration(text []byte) (done func(), err error) {
	if len(text) == 0 {
		return func() {}, nil
	}
	path, done, err := privateFile(text)
	if err == nil {
		err = os.Setenv("OPENSC_CONF", path) // with cgo also C's getenv sees it
	}
	if err != nil {
		return nil, fmt.Errorf("make OpenSC's private configuration: %w", err)
	}
	return done, nil
}
