/*
 * A PKCS#11 library that stands in front of SoftHSM and makes its token behave
 * like a card in a reader. Beside this library in the card's directory lie
 *
 *   softhsm2.so    SoftHSM, a copy: its own file, so its own instance, so that
 *                  one process can hold several test cards
 *   softhsm2.conf  its configuration
 *   state          struct state below, mapped by every process that uses the card
 *
 * It shows one reader with one slot (0). Each call is counted. The card can be
 * pulled and inserted: sessions of an earlier insertion are dead and the login
 * is gone. Wrong PINs use up tries, as on a card; SoftHSM itself never locks.
 * Calls are serial, as on a card, also those of several processes, and a
 * signature can be made as slow as one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pkcs11.h"

/* What is counted besides the calls themselves. */
#define RESULTS(R) R(signatures) R(logins_ok) R(logins_refused) R(logins_locked) R(logins_other)

#define INDEX(name, n) I_##name,
#define RESULT_INDEX(name) I_##name,
enum { FUNCTIONS(INDEX, INDEX) RESULTS(RESULT_INDEX) COUNTERS };

#define NAME(name, n) #name,
#define RESULT_NAME(name) #name,
static const char *const counter_names[COUNTERS] = { FUNCTIONS(NAME, NAME) RESULTS(RESULT_NAME) };

/* The layout of the file `state`; state.go has the same. All fields but the
 * names are read and written atomically. */
struct counter {
	char name[32];
	uint64_t value;
};
struct state {
	uint64_t magic;         /* "KORTTI-1" */
	uint64_t insertion;     /* odd: in the reader; each pull and each insertion adds 1 */
	uint64_t tries_max;     /* wrong PINs in a row that lock the card */
	uint64_t tries_left;
	uint64_t sign_delay_ms; /* added to every signature */
	uint64_t reserved[3];
	struct counter counters[COUNTERS];
};
#define STATE_SIZE 4096
#define STATE_MAGIC 0x312d495454524f4bULL
_Static_assert(sizeof(struct state) <= STATE_SIZE, "the state file has one page");

/* lock guards all that follows and every call into SoftHSM: a card is serial,
 * and SoftHSM must not lose a session that another thread works in. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct functions *real; /* NULL: not initialized */
static struct state *state;    /* mapped at the first C_Initialize */
static int guard = -1;         /* SoftHSM's configuration file, for the lock between processes */
static uint64_t seen;          /* the insertion that our sessions belong to */
static word real_slot;
static int real_slot_known;

static void count(int index)
{
	struct state *s = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
	if (s)
		__atomic_fetch_add(&s->counters[index].value, 1, __ATOMIC_RELAXED);
}

static uint64_t insertion(void)
{
	return __atomic_load_n(&state->insertion, __ATOMIC_SEQ_CST);
}

static int present(void)
{
	return insertion() & 1;
}

/* --- finding what lies beside us ---------------------------------------- */

static int beside(char path[PATH_MAX], const char *name)
{
	Dl_info self;
	char own[PATH_MAX];
	if (!dladdr((void *)&lock, &self) || !realpath(self.dli_fname, own))
		return 0;
	char *slash = strrchr(own, '/');
	if (!slash)
		return 0;
	*slash = 0;
	return (size_t)snprintf(path, PATH_MAX, "%s/%s", own, name) < PATH_MAX;
}

static void complain(const char *what, const char *path, const char *why)
{
	fprintf(stderr, "kortti test card: cannot %s %s: %s\n", what, path, why);
}

/* Maps the state file; anew each time, because a card can be deleted and made
 * again under the same name while a process lives. */
static int map_state(void)
{
	char path[PATH_MAX];
	if (!beside(path, "state"))
		return 0;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		complain("open", path, strerror(errno));
		return 0;
	}
	struct state *s = MAP_FAILED;
	if (lseek(fd, 0, SEEK_END) == STATE_SIZE)
		s = mmap(NULL, STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (s == MAP_FAILED || s->magic != STATE_MAGIC) {
		complain("use", path, "not a test card's state");
		if (s != MAP_FAILED)
			munmap(s, STATE_SIZE);
		return 0;
	}
	for (int i = 0; i < COUNTERS; i++)
		memcpy(s->counters[i].name, counter_names[i], strlen(counter_names[i]));
	/* An older mapping stays: another thread may be counting in it. */
	__atomic_store_n(&state, s, __ATOMIC_RELEASE);
	return 1;
}

static struct functions *load_softhsm(void)
{
	char path[PATH_MAX];
	if (!beside(path, "softhsm2.so"))
		return NULL;
	/* Never closed: libraries that use OpenSSL do not survive unloading. */
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		complain("load", path, dlerror());
		return NULL;
	}
	word (*get_list)(struct functions **) =
		(word(*)(struct functions **))dlsym(library, "C_GetFunctionList");
	struct functions *list = NULL;
	if (!get_list || get_list(&list) != CKR_OK) {
		complain("use", path, "no C_GetFunctionList");
		return NULL;
	}
	return list;
}

/* SoftHSM finds its configuration by an environment variable, which belongs to
 * the whole process: set it only for the call, and let two cards that are
 * opened at once by one program wait for each other. The lock on the program's
 * file is a lock between copies of this library, which share nothing else. */
static word initialize_softhsm(struct functions *list, word args)
{
	char config[PATH_MAX];
	if (!beside(config, "softhsm2.conf"))
		return CKR_GENERAL_ERROR;
	int turn = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (turn >= 0)
		while (flock(turn, LOCK_EX) && errno == EINTR)
			;
	const char *old = getenv("SOFTHSM2_CONF");
	char *saved = old ? strdup(old) : NULL;
	setenv("SOFTHSM2_CONF", config, 1);
	word rv = list->C_Initialize(args);
	if (saved)
		setenv("SOFTHSM2_CONF", saved, 1);
	else
		unsetenv("SOFTHSM2_CONF");
	free(saved);
	if (turn >= 0)
		close(turn);
	return rv;
}

/* --- entering and leaving a call ----------------------------------------- */

/* SoftHSM shows the token in a slot with a number made from its serial, and
 * always one empty slot more, which is where a new token is made. */
static word find_real_slot(void)
{
	unsigned long slots[16], n = 16;
	if (real_slot_known)
		return CKR_OK;
	real->C_GetSlotList(0, 0, (word)&n); /* makes SoftHSM look again */
	n = 16;
	word rv = real->C_GetSlotList(0, (word)slots, (word)&n);
	if (rv != CKR_OK)
		return rv;
	for (unsigned long i = 0; i < n && !real_slot_known; i++) {
		struct token_info info;
		real_slot = slots[i];
		real_slot_known = real->C_GetTokenInfo(slots[i], (word)&info) == CKR_OK &&
				  (info.flags & CKF_TOKEN_INITIALIZED);
	}
	return n ? CKR_OK : CKR_GENERAL_ERROR;
}

/* Keeps other processes out of SoftHSM, which reads a token that another one is
 * just writing as half a token and may go on so for ever. Ends with the process
 * that holds it, however that ends. */
static void keep_others_out(void)
{
	while (guard >= 0 && flock(guard, LOCK_EX) && errno == EINTR)
		;
}

static void open_guard(void)
{
	char path[PATH_MAX];
	if (guard < 0 && beside(path, "softhsm2.conf"))
		guard = open(path, O_RDONLY | O_CLOEXEC);
}

static void close_guard(void)
{
	if (guard >= 0)
		close(guard);
	guard = -1;
}

static void let_others_in(void)
{
	if (guard >= 0)
		flock(guard, LOCK_UN);
}

static word leave(word rv)
{
	let_others_in();
	pthread_mutex_unlock(&lock);
	return rv;
}

/* Takes the locks; on CKR_OK leave() must follow, otherwise they are free. */
static word enter(int index)
{
	count(index);
	pthread_mutex_lock(&lock);
	keep_others_out();
	word rv = real ? find_real_slot() : CKR_CRYPTOKI_NOT_INITIALIZED;
	uint64_t current = rv == CKR_OK ? insertion() : 0;
	if (rv == CKR_OK && current != seen) {
		seen = current;
		real->C_CloseAllSessions(real_slot); /* ends the login too */
	}
	return rv == CKR_OK ? rv : leave(rv);
}

static word enter_slot(int index, word slot)
{
	word rv = enter(index);
	if (rv == CKR_OK && slot != 0)
		return leave(CKR_SLOT_ID_INVALID);
	if (rv == CKR_OK && !present())
		return leave(CKR_TOKEN_NOT_PRESENT);
	return rv;
}

/* A session handle of ours is SoftHSM's with the insertion above it, so that
 * one of an earlier insertion can never be taken for a live one. */
static word enter_session(int index, word *session)
{
	word rv = enter(index);
	if (rv == CKR_OK && !present())
		return leave(CKR_DEVICE_REMOVED);
	if (rv == CKR_OK && *session >> 32 != (seen & 0xffffffff))
		return leave(CKR_SESSION_HANDLE_INVALID);
	*session &= 0xffffffff;
	return rv;
}

static word leave_session(word rv)
{
	return leave(insertion() == seen ? rv : CKR_DEVICE_REMOVED);
}

#define NOTHING(name, n)
#define PASS(name, n) \
	static word name(PARAMS##n) \
	{ \
		word rv = enter_session(I_##name, &a); \
		return rv == CKR_OK ? leave_session(real->name(ARGS##n)) : rv; \
	}
FUNCTIONS(NOTHING, PASS)

/* --- general ------------------------------------------------------------- */

static word C_Initialize(word args)
{
	pthread_mutex_lock(&lock);
	if (real) {
		count(I_C_Initialize);
		return leave(real->C_Initialize(args)); /* says ALREADY_INITIALIZED */
	}
	if (!map_state())
		return leave(CKR_GENERAL_ERROR);
	count(I_C_Initialize);
	open_guard();
	keep_others_out();
	struct functions *list = load_softhsm();
	word rv = list ? initialize_softhsm(list, args) : CKR_GENERAL_ERROR;
	if (rv == CKR_OK) {
		real = list;
		real_slot_known = 0;
		seen = insertion();
	} else {
		close_guard();
	}
	return leave(rv);
}

static word C_Finalize(word reserved)
{
	count(I_C_Finalize);
	pthread_mutex_lock(&lock);
	if (!real)
		return leave(CKR_CRYPTOKI_NOT_INITIALIZED);
	keep_others_out();
	word rv = real->C_Finalize(reserved);
	if (rv == CKR_OK) {
		real = NULL;
		close_guard(); /* the card may be made anew before the next start */
	}
	return leave(rv);
}

static word C_GetInfo(word info)
{
	word rv = enter(I_C_GetInfo);
	return rv == CKR_OK ? leave(real->C_GetInfo(info)) : rv;
}

static word C_WaitForSlotEvent(word flags, word slot, word reserved)
{
	(void)slot, (void)reserved;
	count(I_C_WaitForSlotEvent);
	return flags & CKF_DONT_BLOCK ? CKR_NO_EVENT : CKR_FUNCTION_NOT_SUPPORTED;
}

/* --- the slot and the token ---------------------------------------------- */

static word C_GetSlotList(word token_present, word list, word n)
{
	word rv = enter(I_C_GetSlotList);
	if (rv != CKR_OK)
		return rv;
	unsigned long *got = (unsigned long *)n, room;
	if (!got)
		return leave(CKR_ARGUMENTS_BAD);
	room = *got;
	*got = (token_present & 0xff) && !present() ? 0 : 1;
	if (!list || *got == 0)
		return leave(CKR_OK);
	if (room < 1)
		return leave(CKR_BUFFER_TOO_SMALL);
	*(unsigned long *)list = 0;
	return leave(CKR_OK);
}

static void pad(char *field, size_t size, const char *text)
{
	size_t n = strlen(text);
	memset(field, ' ', size);
	memcpy(field, text, n < size ? n : size);
}

static word C_GetSlotInfo(word slot, word out)
{
	word rv = enter(I_C_GetSlotInfo);
	if (rv != CKR_OK)
		return rv;
	struct slot_info *info = (struct slot_info *)out;
	if (slot != 0 || !info)
		return leave(slot ? CKR_SLOT_ID_INVALID : CKR_ARGUMENTS_BAD);
	char directory[PATH_MAX], text[PATH_MAX + 32];
	if (!beside(directory, ""))
		return leave(CKR_GENERAL_ERROR);
	directory[strlen(directory) - 1] = 0;
	snprintf(text, sizeof text, "Kortti test reader %s", strrchr(directory, '/') + 1);
	memset(info, 0, sizeof *info);
	pad(info->description, sizeof info->description, text);
	pad(info->manufacturer, sizeof info->manufacturer, "Kortti");
	info->flags = CKF_REMOVABLE_DEVICE | (present() ? CKF_TOKEN_PRESENT : 0);
	return leave(CKR_OK);
}

static unsigned long pin_flags(void)
{
	uint64_t left = __atomic_load_n(&state->tries_left, __ATOMIC_SEQ_CST);
	if (left == 0)
		return CKF_USER_PIN_LOCKED;
	if (left == 1)
		return CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_COUNT_LOW;
	return left < state->tries_max ? CKF_USER_PIN_COUNT_LOW : 0;
}

static word C_GetTokenInfo(word slot, word out)
{
	word rv = enter_slot(I_C_GetTokenInfo, slot);
	if (rv != CKR_OK)
		return rv;
	rv = real->C_GetTokenInfo(real_slot, out);
	struct token_info *info = (struct token_info *)out;
	if (rv == CKR_OK) {
		info->flags &= ~(unsigned long)(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
		info->flags |= pin_flags();
		info->min_pin = PIN_MIN;
		info->max_pin = PIN_MAX;
	}
	return leave(rv);
}

static word C_GetMechanismList(word slot, word list, word n)
{
	word rv = enter_slot(I_C_GetMechanismList, slot);
	return rv == CKR_OK ? leave(real->C_GetMechanismList(real_slot, list, n)) : rv;
}

static word C_GetMechanismInfo(word slot, word type, word info)
{
	word rv = enter_slot(I_C_GetMechanismInfo, slot);
	return rv == CKR_OK ? leave(real->C_GetMechanismInfo(real_slot, type, info)) : rv;
}

static word C_InitToken(word slot, word pin, word len, word label)
{
	word rv = enter_slot(I_C_InitToken, slot);
	if (rv != CKR_OK)
		return rv;
	rv = real->C_InitToken(real_slot, pin, len, label);
	real_slot_known = 0; /* SoftHSM moves the new token to another slot */
	return leave(rv);
}

static word C_OpenSession(word slot, word flags, word app, word notify, word out)
{
	word rv = enter_slot(I_C_OpenSession, slot);
	if (rv != CKR_OK)
		return rv;
	rv = real->C_OpenSession(real_slot, flags, app, notify, out);
	if (rv == CKR_OK)
		*(unsigned long *)out |= seen << 32;
	return leave_session(rv);
}

static word C_CloseAllSessions(word slot)
{
	word rv = enter_slot(I_C_CloseAllSessions, slot);
	return rv == CKR_OK ? leave(real->C_CloseAllSessions(real_slot)) : rv;
}

/* --- the PIN -------------------------------------------------------------- */

/* A card takes the try off before it compares, so that pulling the power does
 * not win a guess. 0: none was left. */
static int take_try(void)
{
	uint64_t left = __atomic_load_n(&state->tries_left, __ATOMIC_SEQ_CST);
	while (left > 0)
		if (__atomic_compare_exchange_n(&state->tries_left, &left, left - 1, 0,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return 1;
	return 0;
}

static void reset_tries(void)
{
	__atomic_store_n(&state->tries_left, state->tries_max, __ATOMIC_SEQ_CST);
}

/* Settles a try by the result of the comparison, and says what a card would:
 * the wrong PIN that uses up the last try is answered CKR_PIN_LOCKED. */
static word settle_try(word rv)
{
	if (rv == CKR_OK) {
		reset_tries();
	} else if (rv == CKR_PIN_INCORRECT) {
		if (__atomic_load_n(&state->tries_left, __ATOMIC_SEQ_CST) == 0)
			return CKR_PIN_LOCKED;
	} else { /* the PIN was not looked at */
		uint64_t left = __atomic_load_n(&state->tries_left, __ATOMIC_SEQ_CST);
		while (left < state->tries_max &&
		       !__atomic_compare_exchange_n(&state->tries_left, &left, left + 1, 0,
						    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			;
	}
	return rv;
}

static word C_Login(word session, word user, word pin, word len)
{
	word rv = enter_session(I_C_Login, &session);
	if (rv != CKR_OK) {
		count(I_logins_other);
		return rv;
	}
	if (user == CKU_SO)
		return leave_session(real->C_Login(session, user, pin, len));
	if (pin && (len < PIN_MIN || len > PIN_MAX)) {
		count(I_logins_other);
		return leave(CKR_PIN_LEN_RANGE);
	}
	if (!take_try()) {
		count(I_logins_locked);
		return leave(CKR_PIN_LOCKED);
	}
	rv = real->C_Login(session, user, pin, len);
	count(rv == CKR_OK ? I_logins_ok : rv == CKR_PIN_INCORRECT ? I_logins_refused : I_logins_other);
	return leave_session(settle_try(rv));
}

static word C_SetPIN(word session, word old, word old_len, word new, word new_len)
{
	word rv = enter_session(I_C_SetPIN, &session);
	if (rv != CKR_OK)
		return rv;
	struct session_info info;
	rv = real->C_GetSessionInfo(session, (word)&info);
	if (rv != CKR_OK)
		return leave(rv);
	if (info.state == CKS_RW_SO_FUNCTIONS)
		return leave_session(real->C_SetPIN(session, old, old_len, new, new_len));
	if (new_len < PIN_MIN || new_len > PIN_MAX)
		return leave(CKR_PIN_LEN_RANGE);
	if (!take_try())
		return leave(CKR_PIN_LOCKED);
	return leave_session(settle_try(real->C_SetPIN(session, old, old_len, new, new_len)));
}

/* Unblocks: the security officer sets a new PIN. */
static word C_InitPIN(word session, word pin, word len)
{
	word rv = enter_session(I_C_InitPIN, &session);
	if (rv != CKR_OK)
		return rv;
	if (len < PIN_MIN || len > PIN_MAX)
		return leave(CKR_PIN_LEN_RANGE);
	rv = real->C_InitPIN(session, pin, len);
	if (rv == CKR_OK)
		reset_tries();
	return leave_session(rv);
}

/* --- signing -------------------------------------------------------------- */

/* Works as long as a card would, unless it is pulled. SoftHSM is not called
 * meanwhile, so others need not wait. */
static void sign_slowly(void)
{
	let_others_in();
	uint64_t ms = __atomic_load_n(&state->sign_delay_ms, __ATOMIC_SEQ_CST);
	const struct timespec slice = { 0, 1000000 };
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	now = start;
	while (insertion() == seen &&
	       (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < (long)ms) {
		nanosleep(&slice, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
	keep_others_out();
}

/* A real signature is one that was handed out: not a size query (signature is
 * NULL), not a buffer too small, not one whose card was pulled meanwhile. */
static word leave_signature(word rv, word signature)
{
	rv = leave_session(rv);
	if (rv == CKR_OK && signature)
		count(I_signatures);
	return rv;
}

static word C_Sign(word session, word data, word len, word signature, word signature_len)
{
	word rv = enter_session(I_C_Sign, &session);
	if (rv != CKR_OK)
		return rv;
	if (signature)
		sign_slowly();
	return leave_signature(real->C_Sign(session, data, len, signature, signature_len), signature);
}

static word C_SignFinal(word session, word signature, word signature_len)
{
	word rv = enter_session(I_C_SignFinal, &session);
	if (rv != CKR_OK)
		return rv;
	if (signature)
		sign_slowly();
	return leave_signature(real->C_SignFinal(session, signature, signature_len), signature);
}

/* --- the one symbol that is exported --------------------------------------- */

__attribute__((visibility("default"))) word C_GetFunctionList(word out)
{
#define LISTED(name, n) name,
	static const struct functions list = { { 2, 40 }, FUNCTIONS(LISTED, LISTED) };
	count(I_C_GetFunctionList);
	if (!out)
		return CKR_ARGUMENTS_BAD;
	*(const struct functions **)out = &list;
	return CKR_OK;
}
