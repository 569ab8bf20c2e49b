/*
 * What needs the PIN. A part of shim.c.
 */

/* --- the PIN --- */

/* A card takes the try off before it compares, so that pulling the power does
 * not win a guess. 0: none was left. */
static int take_try(void)
{
	uint64_t left = __atomic_load_n(&state->tries_left, __ATOMIC_SEQ_CST);
	while (left > 0)
		if (__atomic_compare_exchange_n(&state->tries_left, &left, left - 1, 0,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
			count(I_pins_shown);
			if (left == 1)
				count(I_final_tries);
			return 1;
		}
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

/* The person at the reader's PIN pad: what they type, and how it goes. Others
 * need not wait for them. */
static word ask_pad(char typed[sizeof state->pad_pin])
{
	memcpy(typed, state->pad_pin, sizeof state->pad_pin);
	count(I_logins_pad);
	let_others_in();
	wait_unless_pulled(__atomic_load_n(&state->pad_delay_ms, __ATOMIC_SEQ_CST));
	keep_others_out();
	switch (__atomic_load_n(&state->pad_answer, __ATOMIC_SEQ_CST)) {
	case PAD_WRONG:
		typed[0] ^= 1;
		break;
	case PAD_CANCELLED:
		return CKR_FUNCTION_CANCELED;
	}
	return CKR_OK;
}

static word C_Login(word session, word user, word pin, word len)
{
	word rv = enter_session(I_C_Login, &session);
	if (rv != CKR_OK) {
		count(I_logins_other);
		return rv;
	}
	if (user == CKU_SO) {
		count(I_puks_shown);
		return leave_session(WRITE(real->C_Login(session, user, pin, len)));
	}
	char typed[sizeof state->pad_pin];
	if (has(PIN_PAD)) {
		rv = pin ? CKR_ARGUMENTS_BAD : ask_pad(typed);
		pin = (word)typed;
		len = strlen(typed);
	} else if (pin && (len < PIN_MIN || len > PIN_MAX)) {
		rv = CKR_PIN_LEN_RANGE;
	}
	if (rv != CKR_OK) {
		count(I_logins_other);
		return leave_session(rv);
	}
	if (!take_try()) {
		count(I_logins_locked);
		return leave(CKR_PIN_LOCKED);
	}
	rv = WRITE(real->C_Login(session, user, pin, len));
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
		return leave_session(WRITE(real->C_SetPIN(session, old, old_len, new, new_len)));
	char typed[sizeof state->pad_pin], backwards[sizeof typed] = "";
	if (has(PIN_PAD)) { /* the old PIN is typed, then the same backwards as the new one */
		rv = old || new ? CKR_ARGUMENTS_BAD : ask_pad(typed);
		old_len = new_len = strnlen(state->pad_pin, sizeof typed - 1);
		for (size_t n = 0; n < new_len; n++)
			backwards[n] = state->pad_pin[new_len - 1 - n];
		old = (word)typed;
		new = (word)backwards;
	} else if (new_len < PIN_MIN || new_len > PIN_MAX) {
		rv = CKR_PIN_LEN_RANGE;
	}
	if (rv != CKR_OK)
		return leave_session(rv);
	if (!take_try())
		return leave(CKR_PIN_LOCKED);
	rv = settle_try(WRITE(real->C_SetPIN(session, old, old_len, new, new_len)));
	if (rv == CKR_OK && has(PIN_PAD))
		memcpy(state->pad_pin, backwards, sizeof backwards);
	return leave_session(rv);
}

/* Unblocks: the security officer sets a new PIN. */
static word C_InitPIN(word session, word pin, word len)
{
	word rv = enter_session(I_C_InitPIN, &session);
	if (rv != CKR_OK)
		return rv;
	if (len < PIN_MIN || len > PIN_MAX)
		return leave(CKR_PIN_LEN_RANGE);
	rv = WRITE(real->C_InitPIN(session, pin, len));
	if (rv == CKR_OK)
		reset_tries();
	return leave_session(rv);
}

/* --- signing --- */

/* Works as long as a card would. SoftHSM is not called meanwhile, so others
 * need not wait. */
static void sign_slowly(void)
{
	let_others_in();
	wait_unless_pulled(__atomic_load_n(&state->sign_delay_ms, __ATOMIC_SEQ_CST));
	keep_others_out();
}

/* The mechanism of the last C_SignInit: our programs sign in one session. */
static unsigned long mechanism;

static word C_SignInit(word session, word how, word key)
{
	word rv = enter_session(I_C_SignInit, &session);
	if (rv != CKR_OK)
		return rv;
	mechanism = how ? *(unsigned long *)how : 0;
	if (missing(mechanism))
		return leave_session(CKR_MECHANISM_INVALID);
	return leave_session(real->C_SignInit(session, how, key));
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
	if (mechanism == CKM_ECDSA && has(WHOLE_DIGESTS) && len < P384_BYTES) {
		unsigned char nowhere[2 * P384_BYTES];
		unsigned long room = sizeof nowhere;
		real->C_Sign(session, data, len, (word)nowhere, (word)&room); /* ends what C_SignInit began */
		return leave_session(CKR_DATA_LEN_RANGE);
	}
	if (signature)
		sign_slowly();
	rv = real->C_Sign(session, data, len, signature, signature_len);
	return leave_signature(distort_length(rv, signature, (unsigned long *)signature_len), signature);
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
