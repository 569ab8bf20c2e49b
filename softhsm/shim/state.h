/*
 * The layout of the file `state`, which every process that uses the card maps;
 * state.go and faults.go have the same. All fields but names and the pad's PIN
 * are read and written atomically.
 */

/* What is counted besides the calls themselves. */
#define RESULTS(R) R(signatures) R(logins_ok) R(logins_refused) R(logins_locked) R(logins_other) R(logins_pad) \
	R(pins_shown) R(final_tries) R(puks_shown)

#define INDEX(name, n) I_##name,
#define RESULT_INDEX(name) I_##name,
enum { FUNCTIONS(INDEX, INDEX) RESULTS(RESULT_INDEX) COUNTERS };

#define NAME(name, n) #name,
#define RESULT_NAME(name) #name,
static const char *const counter_names[COUNTERS] = { FUNCTIONS(NAME, NAME) RESULTS(RESULT_NAME) };

struct counter {
	char name[32];
	uint64_t value;
};

/* Something that goes wrong: from the first to the last call of a function,
 * counted from when the fault was set. */
struct fault {
	char function[24];
	uint64_t action; /* 0: none; written last */
	uint64_t value;
	uint64_t first, last; /* last 0: for ever */
	uint64_t calls;
};

enum action { SEGFAULT = 1, ABORT, EXIT, HANG, DELAY, ANSWER, FORGET, PRINT, ANNOUNCE, DELIVER, SCRAMBLE };

/* Ways of modules that are no faults: bits of `quirks`. */
enum quirk {
	NO_PSS = 1,
	NO_RAW_RSA = 2,
	NO_PKCS1 = 4,
	PIN_PAD = 8,
	WRITE_PROTECTED = 16,
	NO_LABEL_SEARCH = 32,
	WHOLE_DIGESTS = 64,
	NUL_PADDING = 128,
};

enum pad { PAD_RIGHT, PAD_WRONG, PAD_CANCELLED };

struct state {
	uint64_t magic;         /* "KORTTI-2" */
	uint64_t insertion;     /* odd: in the reader; each pull and each insertion adds 1 */
	uint64_t tries_max;     /* wrong PINs in a row that lock the card */
	uint64_t tries_left;
	uint64_t sign_delay_ms; /* added to every signature */
	uint64_t quirks;
	uint64_t pad_answer;    /* what the person at the PIN pad does, */
	uint64_t pad_delay_ms;  /* and how long that takes */
	char pad_pin[16];       /* the PIN that the person there knows */
	struct counter counters[100];
	struct fault faults[16];
	uint64_t writing; /* SoftHSM writes to the token: the lock's next holder looks whether it could end */
};
#define STATE_SIZE 8192
#define STATE_MAGIC 0x322d495454524f4bULL
_Static_assert(sizeof(struct state) <= STATE_SIZE && COUNTERS <= 100, "the state file has two pages");
