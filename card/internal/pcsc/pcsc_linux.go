//go:build linux && cgo

package pcsc

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// pcsc-lite's types: every number is a long, unlike in Windows and macOS.
typedef struct {
	const char *name;
	void *user;
	unsigned long current, event, atr_length;
	unsigned char atr[33];
} reader_state;
typedef struct { unsigned long protocol, length; } io_request;

typedef struct {
	long (*establish)(unsigned long scope, const void *, const void *, long *context);
	long (*release)(long context);
	long (*list)(long context, const char *groups, char *names, unsigned long *length);
	long (*change)(long context, unsigned long timeout, reader_state *, unsigned long n);
	long (*cancel)(long context);
	long (*connect)(long context, const char *reader, unsigned long share, unsigned long protocols, long *card, unsigned long *protocol);
	long (*disconnect)(long card, unsigned long disposition);
	long (*begin)(long card);
	long (*end)(long card, unsigned long disposition);
	long (*transmit)(long card, const io_request *, const unsigned char *, unsigned long, io_request *, unsigned char *, unsigned long *);
} pcsc;

// kortti_pcsc_load returns NULL, or why the library cannot be used.
static const char *kortti_pcsc_load(pcsc *p, const char *path) {
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		return dlerror();
	struct { void *to; const char *name; } symbols[] = {
		{ &p->establish, "SCardEstablishContext" }, { &p->release, "SCardReleaseContext" },
		{ &p->list, "SCardListReaders" }, { &p->change, "SCardGetStatusChange" },
		{ &p->cancel, "SCardCancel" }, { &p->connect, "SCardConnect" },
		{ &p->disconnect, "SCardDisconnect" }, { &p->transmit, "SCardTransmit" },
		{ &p->begin, "SCardBeginTransaction" }, { &p->end, "SCardEndTransaction" },
	};
	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
		void *function = dlsym(library, symbols[i].name);
		if (function == NULL)
			return dlerror();
		memcpy(symbols[i].to, &function, sizeof function);
	}
	return NULL;
}

enum { SCOPE_SYSTEM = 2, ANY_PROTOCOL = 3 };

static long kortti_pcsc_establish(pcsc *p, long *context) { return p->establish(SCOPE_SYSTEM, NULL, NULL, context); }
static long kortti_pcsc_release(pcsc *p, long context) { return p->release(context); }
static long kortti_pcsc_list(pcsc *p, long context, char *names, unsigned long *length) { return p->list(context, NULL, names, length); }
static long kortti_pcsc_change(pcsc *p, long context, unsigned long timeout, reader_state *s, unsigned long n) { return p->change(context, timeout, s, n); }
static long kortti_pcsc_cancel(pcsc *p, long context) { return p->cancel(context); }
static long kortti_pcsc_connect(pcsc *p, long context, const char *reader, unsigned long share, long *card, unsigned long *protocol) {
	return p->connect(context, reader, share, ANY_PROTOCOL, card, protocol);
}
static long kortti_pcsc_disconnect(pcsc *p, long card, unsigned long disposition) { return p->disconnect(card, disposition); }
static long kortti_pcsc_begin(pcsc *p, long card) { return p->begin(card); }
static long kortti_pcsc_end(pcsc *p, long card) { return p->end(card, 0); }
static long kortti_pcsc_transmit(pcsc *p, long card, unsigned long protocol, const unsigned char *command, unsigned long n,
		unsigned char *answer, unsigned long *room) {
	const io_request request = { protocol, sizeof request };
	return p->transmit(card, &request, command, n, NULL, answer, room);
}
*/
import "C"

import (
	"fmt"
	"strings"
	"time"
	"unsafe"
)

const library = "libpcsclite.so.1"

// lite is a context of pcsc-lite.
type lite struct {
	functions *C.pcsc // the library stays loaded for the life of the process
	context   C.long
}

func connect() (service, error) { return connectBy(library) }

func connectBy(library string) (service, error) {
	name := C.CString(library)
	defer C.free(unsafe.Pointer(name))
	s := &lite{functions: new(C.pcsc)}
	if why := C.kortti_pcsc_load(s.functions, name); why != nil {
		return nil, fmt.Errorf("%w: %s", ErrUnavailable, C.GoString(why))
	}
	if err := answer("SCardEstablishContext", C.kortti_pcsc_establish(s.functions, &s.context)); err != nil {
		return nil, err
	}
	return s, nil
}

func answer(function string, rv C.long) error {
	if rv == 0 {
		return nil
	}
	return &Error{Function: function, Code: uint32(rv)}
}

func (s *lite) release() error {
	return answer("SCardReleaseContext", C.kortti_pcsc_release(s.functions, s.context))
}

func (s *lite) list() ([]string, error) {
	for {
		var length C.ulong
		err := answer("SCardListReaders", C.kortti_pcsc_list(s.functions, s.context, nil, &length))
		if code(err) == codeNoReadersAvailable {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		buffer := make([]byte, length+1)
		err = answer("SCardListReaders", C.kortti_pcsc_list(s.functions, s.context, (*C.char)(unsafe.Pointer(&buffer[0])), &length))
		switch {
		case code(err) == codeInsufficientBuffer: // one came meanwhile
			continue
		case code(err) == codeNoReadersAvailable:
			return nil, nil
		case err != nil:
			return nil, err
		}
		// Names end with a NUL, the list with one more.
		names := strings.TrimRight(string(buffer[:length]), "\x00")
		if names == "" {
			return nil, nil
		}
		return strings.Split(names, "\x00"), nil
	}
}

func (s *lite) change(timeout time.Duration, readers []rawState) error {
	size := C.size_t(len(readers)) * C.sizeof_reader_state
	memory := C.calloc(1, size)
	defer C.free(memory)
	states := unsafe.Slice((*C.reader_state)(memory), len(readers))
	for i, r := range readers {
		states[i].name = C.CString(r.name)
		defer C.free(unsafe.Pointer(states[i].name))
		states[i].current = C.ulong(r.current)
		states[i].atr_length = C.ulong(len(states[i].atr))
	}
	err := answer("SCardGetStatusChange",
		C.kortti_pcsc_change(s.functions, s.context, C.ulong(timeout.Milliseconds()), &states[0], C.ulong(len(states))))
	for i := range readers {
		readers[i].event = uint32(states[i].event)
		readers[i].atr = nil
		if n := int(states[i].atr_length); readers[i].event&statePresent != 0 && n <= len(states[i].atr) {
			readers[i].atr = C.GoBytes(unsafe.Pointer(&states[i].atr[0]), C.int(n))
		}
	}
	return err
}

func (s *lite) cancel() { C.kortti_pcsc_cancel(s.functions, s.context) }

func (s *lite) open(reader string, share uint32) (handle, error) {
	name := C.CString(reader)
	defer C.free(unsafe.Pointer(name))
	var card C.long
	var protocol C.ulong
	err := answer("SCardConnect", C.kortti_pcsc_connect(s.functions, s.context, name, C.ulong(share), &card, &protocol))
	return handle{int64(card), uint32(protocol)}, err
}

func (s *lite) close(h handle, disposition uint32) error {
	return answer("SCardDisconnect", C.kortti_pcsc_disconnect(s.functions, C.long(h.card), C.ulong(disposition)))
}

func (s *lite) begin(h handle) error {
	return answer("SCardBeginTransaction", C.kortti_pcsc_begin(s.functions, C.long(h.card)))
}

func (s *lite) end(h handle) error {
	return answer("SCardEndTransaction", C.kortti_pcsc_end(s.functions, C.long(h.card)))
}

// maxAnswer is the longest answer of a card: extended length, ISO 7816-4.
const maxAnswer = 65536 + 2

func (s *lite) transmit(h handle, command []byte) ([]byte, error) {
	out := make([]byte, maxAnswer)
	room := C.ulong(len(out))
	err := answer("SCardTransmit", C.kortti_pcsc_transmit(s.functions, C.long(h.card), C.ulong(h.protocol),
		(*C.uchar)(unsafe.SliceData(command)), C.ulong(len(command)), (*C.uchar)(&out[0]), &room))
	if err != nil {
		return nil, err
	}
	return out[:room], nil
}
