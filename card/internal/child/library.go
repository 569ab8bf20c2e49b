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
enum { C_LOGIN = 18 };

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

// login calls C_Login (PKCS#11 §5.6) for the user with the PIN as it lies in
// memory. A nil PIN lets the reader's PIN pad ask for it.
func (l *library) login(session pkcs11.SessionHandle, pin []byte) error {
	var first *C.uchar
	if len(pin) > 0 {
		first = (*C.uchar)(unsafe.Pointer(&pin[0]))
	}
	rv := C.kortti_login(l.list, C.ulong(session), C.ulong(pkcs11.CKU_USER), first, C.ulong(len(pin)))
	if rv != 0 {
		return pkcs11.Error(rv)
	}
	return nil
}
