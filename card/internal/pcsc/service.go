package pcsc

import "time"

// service is one connection to the PC/SC service, function by function.
type service interface {
	list() ([]string, error)
	// change waits for a reader's state to differ from current, and fills in
	// event and atr. Only cancel may be called meanwhile.
	change(timeout time.Duration, readers []rawState) error
	cancel()
	open(reader string, share uint32) (handle, error)
	close(h handle, disposition uint32) error
	begin(handle) error
	end(handle) error
	transmit(h handle, command []byte) ([]byte, error)
	release() error
}

// handle is a SCARDHANDLE and the protocol agreed with the card (T=0 or T=1).
type handle struct {
	card     int64
	protocol uint32
}

// rawState is SCARD_READERSTATE.
type rawState struct {
	name           string
	current, event uint32
	atr            []byte
}

// The numbers are those of the PC/SC specification, part 5, as in winscard.h.
const (
	statePresent   = 0x20
	stateExclusive = 0x80
	stateMute      = 0x200

	shareExclusive = 1
	shareShared    = 2

	leaveCard = 0
	resetCard = 1

	codeCancelled          = 0x80100002
	codeInvalidHandle      = 0x80100003
	codeUnknownReader      = 0x80100009
	codeTimeout            = 0x8010000A
	codeSharingViolation   = 0x8010000B
	codeNoSmartcard        = 0x8010000C
	codeCommError          = 0x80100013
	codeReaderUnavailable  = 0x80100017
	codeNoService          = 0x8010001D
	codeServiceStopped     = 0x8010001E
	codeNoReadersAvailable = 0x8010002E
	codeUnresponsiveCard   = 0x80100066
	codeUnpoweredCard      = 0x80100067
	codeResetCard          = 0x80100068
	codeSecurityViolation  = 0x8010006A
	codeRemovedCard        = 0x80100069
	codeInsufficientBuffer = 0x80100008
)

// reasons are the codes that callers choose by.
var reasons = map[uint32]error{
	codeNoService:         ErrNoService,
	codeServiceStopped:    ErrNoService,
	codeInvalidHandle:     ErrNoService, // the service was started anew since
	codeCommError:         ErrNoService, // it went during the call
	codeSecurityViolation: ErrNoService, // pcsc-lite says so too when it went, see Unwrap
	codeUnknownReader:     ErrNoReader,
	codeReaderUnavailable: ErrNoReader,
	codeNoSmartcard:       ErrNoCard,
	codeRemovedCard:       ErrNoCard,
	codeSharingViolation:  ErrBusy,
	codeUnresponsiveCard:  ErrNoAnswer,
}
