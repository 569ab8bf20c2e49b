/*
 * What goes wrong on command. arrive() comes first in every function and does
 * what can be done before the call; distort() comes last in those whose answers
 * have a length or a structure. A part of shim.c.
 */

/* The fault that is to distort the answer of the call under way. */
static __thread struct fault *distortion;

static void sleep_ms(uint64_t ms)
{
	const struct timespec slice = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };
	nanosleep(&slice, NULL);
}

static void print(uint64_t lines)
{
	while (lines-- > 0) {
		printf("kortti test card: output on stdout\n");
		fprintf(stderr, "kortti test card: output on stderr\n");
	}
	fflush(stdout);
}

/* What the call answers at once, or CKR_OK to go on with it. */
static word misbehave(struct fault *f, uint64_t action)
{
	volatile int *volatile nowhere = NULL;
	switch (action) {
	case SEGFAULT:
		*nowhere = 0;
		break;
	case ABORT:
		abort();
	case EXIT:
		_exit((int)f->value);
	case HANG: /* until the fault is cleared */
		while (__atomic_load_n(&f->action, __ATOMIC_ACQUIRE) == HANG)
			sleep_ms(1);
		break;
	case DELAY:
		sleep_ms(f->value);
		break;
	case ANSWER:
		return f->value;
	case FORGET: /* as if the card had been out: enter() sees it */
		__atomic_fetch_add(&state->insertion, 2, __ATOMIC_SEQ_CST);
		break;
	case PRINT:
		print(f->value);
		break;
	default:
		distortion = f;
	}
	return CKR_OK;
}

static word arrive(int index)
{
	struct state *s = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
	distortion = NULL;
	count(index);
	if (!s)
		return CKR_OK;
	for (struct fault *f = s->faults; f < s->faults + sizeof s->faults / sizeof *s->faults; f++) {
		uint64_t action = __atomic_load_n(&f->action, __ATOMIC_ACQUIRE);
		if (!action || strcmp(f->function, counter_names[index]))
			continue;
		uint64_t call = __atomic_add_fetch(&f->calls, 1, __ATOMIC_RELAXED);
		if (call < f->first || (f->last && call > f->last))
			continue;
		word rv = misbehave(f, action);
		if (rv != CKR_OK)
			return rv;
	}
	return CKR_OK;
}

/* Tells a wrong length: ANNOUNCE where only the length was asked for, DELIVER
 * where the answer itself was. */
static word distort_length(word rv, word answer, unsigned long *length)
{
	struct fault *f = distortion;
	if (f && rv == CKR_OK && f->action == (answer ? DELIVER : ANNOUNCE))
		*length = f->value;
	return rv;
}

/* Fills a structure with one byte. */
static word distort_structure(word rv, word out, size_t size)
{
	struct fault *f = distortion;
	if (f && rv == CKR_OK && f->action == SCRAMBLE)
		memset((void *)out, (int)f->value, size);
	return rv;
}

static int has(enum quirk quirk)
{
	return (__atomic_load_n(&state->quirks, __ATOMIC_RELAXED) & quirk) != 0;
}
