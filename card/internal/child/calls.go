package child

/*
// Whatever a module says of lengths, no more than room is read or believed here.
enum { GARBAGE = -1 };
typedef unsigned long ck_ulong;
struct ck_list {
	unsigned char major, minor;
	void *function[68];
};
enum { GET_SLOT_LIST = 4, GET_MECHANISM_LIST = 7, GET_ATTRIBUTE_VALUE = 24, FIND_OBJECTS = 27, SIGN = 43 };

static ck_ulong told(ck_ulong rv, ck_ulong n, ck_ulong room) {
	return rv == 0 && n > room ? (ck_ulong)GARBAGE : rv;
}

static ck_ulong kortti_slots(struct ck_list *list, ck_ulong *slots, ck_ulong *n) {
	ck_ulong (*get)(unsigned char, ck_ulong *, ck_ulong *) = list->function[GET_SLOT_LIST];
	ck_ulong room = *n, ignored = 0;
	ck_ulong rv = get(0, 0, &ignored); // modules look for new readers only when asked for the number
	if (rv == 0)
		rv = get(0, slots, n);
	return told(rv, *n, room);
}

static ck_ulong kortti_mechanisms(struct ck_list *list, ck_ulong slot, ck_ulong *mechanisms, ck_ulong *n) {
	ck_ulong (*get)(ck_ulong, ck_ulong *, ck_ulong *) = list->function[GET_MECHANISM_LIST];
	ck_ulong room = *n;
	ck_ulong rv = get(slot, mechanisms, n);
	return told(rv, *n, room);
}

struct ck_attribute {
	ck_ulong type;
	void *value;
	ck_ulong length;
};

// kortti_attribute tells the length where value is NULL.
static ck_ulong kortti_attribute(struct ck_list *list, ck_ulong session, ck_ulong object, ck_ulong type,
		unsigned char *value, ck_ulong *length) {
	ck_ulong (*get)(ck_ulong, ck_ulong, struct ck_attribute *, ck_ulong) = list->function[GET_ATTRIBUTE_VALUE];
	struct ck_attribute attribute = { type, value, value ? *length : 0 };
	ck_ulong rv = get(session, object, &attribute, 1), room = *length;
	*length = attribute.length;
	return told(rv, *length, room);
}

static ck_ulong kortti_find(struct ck_list *list, ck_ulong session, ck_ulong *objects, ck_ulong *n) {
	ck_ulong (*find)(ck_ulong, ck_ulong *, ck_ulong, ck_ulong *) = list->function[FIND_OBJECTS];
	ck_ulong room = *n;
	ck_ulong rv = find(session, objects, room, n);
	return told(rv, *n, room);
}

static ck_ulong kortti_sign(struct ck_list *list, ck_ulong session, unsigned char *data, ck_ulong size,
		unsigned char *signature, ck_ulong *n) {
	ck_ulong (*sign)(ck_ulong, unsigned char *, ck_ulong, unsigned char *, ck_ulong *) = list->function[SIGN];
	ck_ulong room = *n;
	ck_ulong rv = sign(session, data, size, signature, n);
	return told(rv, *n, room);
}
*/
import "C"

import (
	"errors"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// The calls below take the place of miekg/pkcs11's, which allocate, copy and read
// beyond their memory as far as a module's answer says. These have a fixed room
// for each answer, so that a module which answers garbage costs an error and
// neither the machine's memory nor a crash.

// What a module may answer. PKCS#11 has no bounds; real modules stay far below
// these, and all slots, or all certificates, must fit into a frame.
const (
	maxSlots       = 128
	maxMechanisms  = 1024
	maxID          = 255
	maxCertificate = 64 << 10
	maxAttribute   = 4 << 10
	maxSignature   = 2 << 10 // RSA-16384
)

var errGarbage = errors.New("the module told an impossible length")

func toError(rv C.ck_ulong) error {
	switch {
	case rv == 0:
		return nil
	case C.long(rv) == C.GARBAGE:
		return errGarbage
	}
	return pkcs11.Error(rv)
}

func (m *module) calls() *C.struct_ck_list {
	return (*C.struct_ck_list)(unsafe.Pointer(m.library.list))
}

// slotList lists all slots, after a look for new readers (PKCS#11 §5.5). A reader
// that arrives between the two calls of C_GetSlotList finds room, where miekg's
// GetSlotList answers CKR_BUFFER_TOO_SMALL (measured: 5 of 40 insertions).
func (m *module) slotList() ([]uint, error) {
	var list [maxSlots]C.ck_ulong
	n := C.ck_ulong(len(list))
	if err := toError(C.kortti_slots(m.calls(), &list[0], &n)); err != nil {
		return nil, err
	}
	return numbers[uint](list[:n]), nil
}

// mechanismTypes lists a slot's mechanisms (PKCS#11 §5.5).
func (m *module) mechanismTypes(slot uint) ([]uint, error) {
	var list [maxMechanisms]C.ck_ulong
	n := C.ck_ulong(len(list))
	if err := toError(C.kortti_mechanisms(m.calls(), C.ck_ulong(slot), &list[0], &n)); err != nil {
		return nil, err
	}
	return numbers[uint](list[:n]), nil
}

func numbers[T ~uint](list []C.ck_ulong) []T {
	out := make([]T, len(list))
	for i, n := range list {
		out[i] = T(n)
	}
	return out
}

// read reads one attribute (PKCS#11 §5.7).
func (m *module) read(session pkcs11.SessionHandle, object pkcs11.ObjectHandle, kind uint) ([]byte, error) {
	n := C.ck_ulong(maxAttribute)
	switch kind {
	case pkcs11.CKA_ID:
		n = maxID
	case pkcs11.CKA_VALUE:
		n = maxCertificate
	}
	s, o, k := C.ck_ulong(session), C.ck_ulong(object), C.ck_ulong(kind)
	if err := toError(C.kortti_attribute(m.calls(), s, o, k, nil, &n)); err != nil || n == 0 {
		return nil, err
	}
	value := make([]byte, n)
	if err := toError(C.kortti_attribute(m.calls(), s, o, k, (*C.uchar)(&value[0]), &n)); err != nil {
		return nil, err
	}
	return value[:n], nil
}

// FindObjects returns at most room objects of a search (PKCS#11 §5.7).
func (m *module) FindObjects(session pkcs11.SessionHandle, room int) ([]pkcs11.ObjectHandle, error) {
	list := make([]C.ck_ulong, room)
	n := C.ck_ulong(room)
	if err := toError(C.kortti_find(m.calls(), C.ck_ulong(session), &list[0], &n)); err != nil {
		return nil, err
	}
	return numbers[pkcs11.ObjectHandle](list[:n]), nil
}

// Sign ends what SignInit began, in one call (PKCS#11 §5.11): there is room for
// every signature, so its size need not be asked for.
func (m *module) Sign(session pkcs11.SessionHandle, data []byte) ([]byte, error) {
	var signature [maxSignature]byte
	n := C.ck_ulong(len(signature))
	rv := C.kortti_sign(m.calls(), C.ck_ulong(session), (*C.uchar)(unsafe.SliceData(data)), C.ck_ulong(len(data)),
		(*C.uchar)(&signature[0]), &n)
	if err := toError(rv); err != nil {
		return nil, err
	}
	return signature[:n:n], nil
}
