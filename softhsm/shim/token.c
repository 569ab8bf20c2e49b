/*
 * The slot, the token in it and its objects. A part of shim.c.
 */

/* --- the slot and the token --- */

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
	if (list && *got) {
		if (room < 1)
			return leave(CKR_BUFFER_TOO_SMALL);
		*(unsigned long *)list = 0;
	}
	return leave(distort_length(CKR_OK, list, got));
}

static void pad(char *field, size_t size, const char *text)
{
	size_t n = strlen(text);
	memset(field, has(NUL_PADDING) ? 0 : ' ', size);
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
	return leave(distort_structure(CKR_OK, out, sizeof *info));
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

static void pad_with_nuls(char *field, size_t size)
{
	while (size > 0 && field[size - 1] == ' ')
		field[--size] = 0;
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
		info->flags |= has(PIN_PAD) ? CKF_PROTECTED_AUTHENTICATION_PATH : 0;
		info->flags |= has(WRITE_PROTECTED) ? CKF_WRITE_PROTECTED : 0;
		info->min_pin = PIN_MIN;
		info->max_pin = PIN_MAX;
		if (has(NUL_PADDING)) {
			pad_with_nuls(info->label, sizeof info->label);
			pad_with_nuls(info->manufacturer, sizeof info->manufacturer);
			pad_with_nuls(info->model, sizeof info->model);
			pad_with_nuls(info->serial, sizeof info->serial);
		}
	}
	return leave(distort_structure(rv, out, sizeof *info));
}

static int missing(unsigned long mechanism)
{
	return (mechanism == CKM_RSA_PKCS_PSS && has(NO_PSS)) ||
	       (mechanism == CKM_RSA_X_509 && has(NO_RAW_RSA)) ||
	       (mechanism == CKM_RSA_PKCS && has(NO_PKCS1));
}

/* The number asked for without a list may be larger than the list. */
static word C_GetMechanismList(word slot, word list, word n)
{
	word rv = enter_slot(I_C_GetMechanismList, slot);
	if (rv != CKR_OK)
		return rv;
	rv = real->C_GetMechanismList(real_slot, list, n);
	unsigned long *all = (unsigned long *)list, *length = (unsigned long *)n, kept = 0;
	if (rv == CKR_OK && all) {
		for (unsigned long i = 0; i < *length; i++)
			if (!missing(all[i]))
				all[kept++] = all[i];
		*length = kept;
	}
	return leave(distort_length(rv, list, length));
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
	if (has(WRITE_PROTECTED) && (flags & CKF_RW_SESSION))
		return leave(CKR_TOKEN_WRITE_PROTECTED);
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

/* --- objects --- */

static word C_FindObjectsInit(word session, word template, word n)
{
	word rv = enter_session(I_C_FindObjectsInit, &session);
	if (rv != CKR_OK)
		return rv;
	const struct attribute *wanted = (const struct attribute *)template;
	for (word i = 0; i < n && has(NO_LABEL_SEARCH); i++)
		if (wanted[i].type == CKA_LABEL)
			return leave_session(CKR_ATTRIBUTE_VALUE_INVALID);
	return leave_session(real->C_FindObjectsInit(session, template, n));
}

static word C_FindObjects(word session, word objects, word room, word n)
{
	word rv = enter_session(I_C_FindObjects, &session);
	if (rv != CKR_OK)
		return rv;
	rv = real->C_FindObjects(session, objects, room, n);
	return leave_session(distort_length(rv, objects, (unsigned long *)n));
}

static word C_GetAttributeValue(word session, word object, word template, word n)
{
	word rv = enter_session(I_C_GetAttributeValue, &session);
	if (rv != CKR_OK)
		return rv;
	rv = real->C_GetAttributeValue(session, object, template, n);
	struct attribute *asked = (struct attribute *)template;
	for (word i = 0; i < n; i++)
		distort_length(rv, asked[i].value, &asked[i].length);
	return leave_session(rv);
}
