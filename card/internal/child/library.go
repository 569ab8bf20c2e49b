package child

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

// CK_FUNCTION_LIST (PKCS#11 §3.6) as far as it is used here: the version, then
// the functions in the standard's order.
typedef unsigned long ck_rv;
struct ck_function_list {
	unsigned char major, minor;
	void *function[68];
};
enum { C_INIT_PIN = 10, C_SET_PIN = 11, C_LOGIN = 18 };

// kortti_open loads path. It returns NULL and says why in error, or the
// function list. One that comes out different each time belongs to a proxy that
// makes an instance of its own for every caller (p11-kit-proxy).
static struct ck_function_list *kortti_open(const char *path, char *error, size_t size) {
	void *library = dlopen(path, RTLD_LAZY);
	if (library == NULL) {
		const char *why = dlerror();
		snprintf(error, size, "%s", why != NULL ? why : "unknown reason");
		return NULL;
	}
	ck_rv (*get)(struct ck_function_list **) = (ck_rv (*)(struct ck_function_list **))dlsym(library, "C_GetFunctionList");
	if (get == NULL) {
		snprintf(error, size, "it is not a PKCS#11 library: it has no C_GetFunctionList");
		return NULL;
	}
	struct ck_function_list *first = NULL, *second = NULL;
	ck_rv rv = get(&first);
	if (rv == 0)
		rv = get(&second);
	if (rv != 0 || first == NULL) {
		snprintf(error, size, "its C_GetFunctionList answered 0x%lX", rv);
		return NULL;
	}
	if (first != second) {
		snprintf(error, size, "it is a proxy in front of other modules: name the module itself");
		return NULL;
	}
	return first;
}

static ck_rv kortti_login(struct ck_function_list *list, unsigned long session,
		unsigned long user, unsigned char *pin, unsigned long length) {
	ck_rv (*login)(unsigned long, unsigned long, unsigned char *, unsigned long) =
		(ck_rv (*)(unsigned long, unsigned long, unsigned char *, unsigned long))list->function[C_LOGIN];
	return login(session, user, pin, length);
}

static ck_rv kortti_set_pin(struct ck_function_list *list, unsigned long session,
		unsigned char *old, unsigned long old_length, unsigned char *new, unsigned long new_length) {
	ck_rv (*set)(unsigned long, unsigned char *, unsigned long, unsigned char *, unsigned long) = list->function[C_SET_PIN];
	return set(session, old, old_length, new, new_length);
}

static ck_rv kortti_init_pin(struct ck_function_list *list, unsigned long session, unsigned char *pin, unsigned long length) {
	ck_rv (*init)(unsigned long, unsigned char *, unsigned long) = list->function[C_INIT_PIN];
	return init(session, pin, length);
}
*/
import "C"

import (
	"unsafe"

	"github.com/kortti-id/kortti/card/internal/wire"
	"github.com/miekg/pkcs11"
)

// library is a loaded PKCS#11 library's function list. miekg/pkcs11, which does
// all else, drops the loader's reason when a library cannot be loaded, and
// takes a PIN as a string, of which it leaves a copy behind. The dynamic linker
// gives both the same instance, so they share one C_Initialize.
type library struct {
	list *C.struct_ck_function_list
}

// open loads path. It is never unloaded: that crashes with some modules; the
// process ends instead.
func open(path string) (*library, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var why [512]C.char
	list := C.kortti_open(name, &why[0], C.size_t(len(why)))
	if list == nil {
		return nil, &wire.Fault{Kind: wire.NoModule, Text: C.GoString(&why[0])}
	}
	return &library{list: list}, nil
}

// login calls C_Login (PKCS#11 §5.6) for CKU_USER or CKU_SO with the PIN as it
// lies in memory. A nil PIN lets the reader's PIN pad ask for it.
func (l *library) login(session pkcs11.SessionHandle, user uint, pin []byte) error {
	return result(C.kortti_login(l.list, C.ulong(session), C.ulong(user), first(pin), C.ulong(len(pin))))
}

// setPIN calls C_SetPIN (PKCS#11 §5.5); nil PINs are the PIN pad's.
func (l *library) setPIN(session pkcs11.SessionHandle, old, new []byte) error {
	return result(C.kortti_set_pin(l.list, C.ulong(session), first(old), C.ulong(len(old)), first(new), C.ulong(len(new))))
}

// initPIN calls C_InitPIN (PKCS#11 §5.5); a nil PIN is the PIN pad's.
func (l *library) initPIN(session pkcs11.SessionHandle, pin []byte) error {
	return result(C.kortti_init_pin(l.list, C.ulong(session), first(pin), C.ulong(len(pin))))
}

// first returns the address of b's first byte, NULL if there is none.
func first(b []byte) *C.uchar {
	if len(b) == 0 {
		return nil
	}
	return (*C.uchar)(unsafe.Pointer(&b[0]))
}

func result(rv C.ck_rv) error {
	if rv != 0 {
		return pkcs11.Error(rv)
	}
	return nil
}
