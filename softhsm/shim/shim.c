/*
 * A PKCS#11 library that stands in front of SoftHSM and makes its token behave
 * like a card in a reader. Beside this library in the card's directory lie
 *
 *   softhsm2.so    SoftHSM, a copy: its own file, so its own instance, so that
 *                  one process can hold several test cards
 *   softhsm2.conf  its configuration
 *   state          struct state, mapped by every process that uses the card
 *
 * It shows one reader with one slot (0). Each call is counted. The card can be
 * pulled and inserted: sessions of an earlier insertion are dead and the login
 * is gone. Wrong PINs use up tries, as on a card; SoftHSM itself never locks.
 * Calls are serial, as on a card, also those of several processes, and a
 * signature can be made as slow as one. On command it has the quirks of other
 * modules and goes wrong in all the ways that modules do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
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

#include "state.h"

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

#include "faults.c"

static uint64_t insertion(void)
{
	return __atomic_load_n(&state->insertion, __ATOMIC_SEQ_CST);
}

static int present(void)
{
	return insertion() & 1;
}

/* --- finding what lies beside us --- */

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

/* --- entering and leaving a call --- */

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

static void copy_file(const char *to, const char *from)
{
	char buffer[4096], part[PATH_MAX + 8];
	snprintf(part, sizeof part, "%s.part", to);
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t n = -1;
	while (in >= 0 && out >= 0 && (n = read(in, buffer, sizeof buffer)) > 0 && write(out, buffer, (size_t)n) == n)
		;
	if (n != 0 || rename(part, to))
		complain("copy", from, strerror(errno));
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
}

/* The file in which SoftHSM keeps the PIN, and where it is kept safe. */
static int token_files(char token[PATH_MAX], char safe[PATH_MAX])
{
	char pattern[PATH_MAX];
	glob_t found;
	if (!beside(pattern, "tokens/" "*" "/token.object") || !beside(safe, "token.safe") || glob(pattern, 0, NULL, &found))
		return 0;
	int ok = found.gl_pathc == 1 && (size_t)snprintf(token, PATH_MAX, "%s", found.gl_pathv[0]) < PATH_MAX;
	globfree(&found);
	return ok;
}

/* SoftHSM empties the token's file and then writes it anew: a process that is
 * killed between leaves no token. So the calls that write to it stand in WRITE(),
 * and mend() undoes what could not end. */
#define WRITE(call) (begin_writing(), end_writing(call))

static void begin_writing(void)
{
	char token[PATH_MAX], safe[PATH_MAX];
	if (guard < 0 || !token_files(token, safe))
		return;
	copy_file(safe, token);
	__atomic_store_n(&state->writing, 1, __ATOMIC_SEQ_CST);
}

static word end_writing(word rv)
{
	__atomic_store_n(&state->writing, 0, __ATOMIC_SEQ_CST);
	return rv;
}

static void mend(void)
{
	char token[PATH_MAX], safe[PATH_MAX];
	if (__atomic_load_n(&state->writing, __ATOMIC_SEQ_CST) && token_files(token, safe))
		copy_file(token, safe);
	end_writing(CKR_OK);
}

/* Keeps other processes out of SoftHSM, which reads a token that another one is
 * just writing as half a token and may go on so for ever. Ends with the process
 * that holds it, however that ends. */
static void keep_others_out(void)
{
	if (guard < 0)
		return;
	while (flock(guard, LOCK_EX) && errno == EINTR)
		;
	mend();
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
	word rv = arrive(index);
	if (rv != CKR_OK)
		return rv;
	pthread_mutex_lock(&lock);
	keep_others_out();
	rv = real ? find_real_slot() : CKR_CRYPTOKI_NOT_INITIALIZED;
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

/* --- general --- */

static word C_Initialize(word args)
{
	pthread_mutex_lock(&lock);
	if (!real && !map_state())
		return leave(CKR_GENERAL_ERROR);
	word rv = arrive(I_C_Initialize);
	if (rv != CKR_OK)
		return leave(rv);
	if (real)
		return leave(real->C_Initialize(args)); /* says ALREADY_INITIALIZED */
	open_guard();
	keep_others_out();
	struct functions *list = load_softhsm();
	rv = list ? initialize_softhsm(list, args) : CKR_GENERAL_ERROR;
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
	word rv = arrive(I_C_Finalize);
	if (rv != CKR_OK)
		return rv;
	pthread_mutex_lock(&lock);
	if (!real)
		return leave(CKR_CRYPTOKI_NOT_INITIALIZED);
	keep_others_out();
	rv = real->C_Finalize(reserved);
	if (rv == CKR_OK) {
		real = NULL;
		close_guard(); /* the card may be made anew before the next start */
	}
	return leave(rv);
}

static word C_GetInfo(word info)
{
	word rv = enter(I_C_GetInfo);
	return rv == CKR_OK ? leave(distort_structure(real->C_GetInfo(info), info, sizeof(struct info))) : rv;
}

static word C_WaitForSlotEvent(word flags, word slot, word reserved)
{
	(void)slot, (void)reserved;
	word rv = arrive(I_C_WaitForSlotEvent);
	if (rv != CKR_OK)
		return rv;
	return flags & CKF_DONT_BLOCK ? CKR_NO_EVENT : CKR_FUNCTION_NOT_SUPPORTED;
}

/* --- time --- */

static void wait_unless_pulled(uint64_t ms)
{
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	now = start;
	while (insertion() == seen &&
	       (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < (long)ms) {
		sleep_ms(1);
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
}

#include "token.c"
#include "login.c"

/* --- the one symbol that is exported --- */

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
