//go:build !linux || !cgo

package pcsc

import "fmt"

func connect() (service, error) {
	return nil, fmt.Errorf("%w: readers are watched on Linux only so far", ErrUnavailable)
}
