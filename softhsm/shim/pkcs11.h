/*
 * What the shim needs of PKCS#11 2.40, in our own words. All parameters of all
 * functions are CK_ULONG, CK_BBOOL or pointers, so on the LP64 systems that
 * this is for each of them is one machine word.
 */
#include <stdint.h>

typedef uintptr_t word;
_Static_assert(sizeof(unsigned long) == 8 && sizeof(word) == 8, "LP64 systems only");

enum {
	CKR_OK = 0x0,
	CKR_SLOT_ID_INVALID = 0x3,
	CKR_GENERAL_ERROR = 0x5,
	CKR_ARGUMENTS_BAD = 0x7,
	CKR_NO_EVENT = 0x8,
	CKR_ATTRIBUTE_VALUE_INVALID = 0x13,
	CKR_DATA_LEN_RANGE = 0x21,
	CKR_DEVICE_REMOVED = 0x32,
	CKR_FUNCTION_CANCELED = 0x50,
	CKR_FUNCTION_NOT_SUPPORTED = 0x54,
	CKR_MECHANISM_INVALID = 0x70,
	CKR_PIN_INCORRECT = 0xA0,
	CKR_PIN_LEN_RANGE = 0xA2,
	CKR_PIN_LOCKED = 0xA4,
	CKR_SESSION_HANDLE_INVALID = 0xB3,
	CKR_TOKEN_NOT_PRESENT = 0xE0,
	CKR_TOKEN_WRITE_PROTECTED = 0xE2,
	CKR_BUFFER_TOO_SMALL = 0x150,
	CKR_CRYPTOKI_NOT_INITIALIZED = 0x190,

	CKF_DONT_BLOCK = 0x1,
	CKF_TOKEN_PRESENT = 0x1,
	CKF_REMOVABLE_DEVICE = 0x2,
	CKF_WRITE_PROTECTED = 0x2,
	CKF_RW_SESSION = 0x2,
	CKF_PROTECTED_AUTHENTICATION_PATH = 0x100,
	CKF_TOKEN_INITIALIZED = 0x400,
	CKF_USER_PIN_COUNT_LOW = 0x10000,
	CKF_USER_PIN_FINAL_TRY = 0x20000,
	CKF_USER_PIN_LOCKED = 0x40000,

	CKM_RSA_PKCS = 0x1,
	CKM_RSA_X_509 = 0x3,
	CKM_RSA_PKCS_PSS = 0xD,
	CKM_ECDSA = 0x1041,
	CKA_LABEL = 0x3,

	CKU_SO = 0,
	CKS_RW_SO_FUNCTIONS = 4,

	PIN_MIN = 4, /* as FINEID cards; softhsm.go checks new cards' PINs by them too */
	PIN_MAX = 12,
	P384_BYTES = 48,
};

struct info {
	unsigned char cryptoki[2];
	char manufacturer[32];
	unsigned long flags;
	char description[32];
	unsigned char library[2];
};

struct slot_info {
	char description[64], manufacturer[32];
	unsigned long flags;
	unsigned char hardware[2], firmware[2];
};

struct token_info {
	char label[32], manufacturer[32], model[16], serial[16];
	unsigned long flags;
	unsigned long max_sessions, sessions, max_rw_sessions, rw_sessions;
	unsigned long max_pin, min_pin;
	unsigned long total_public, free_public, total_private, free_private;
	unsigned char hardware[2], firmware[2];
	char utc_time[16];
};

struct session_info {
	unsigned long slot, state, flags, device_error;
};

struct attribute {
	unsigned long type;
	word value;
	unsigned long length;
};

/* Every function of CK_FUNCTION_LIST 2.40 in its order: SESSION for those whose
 * first parameter is a session and that need nothing but passing on, SPECIAL
 * for those written out below; with the number of parameters. */
#define FUNCTIONS(SPECIAL, SESSION) \
	SPECIAL(C_Initialize, 1) SPECIAL(C_Finalize, 1) SPECIAL(C_GetInfo, 1) \
	SPECIAL(C_GetFunctionList, 1) SPECIAL(C_GetSlotList, 3) SPECIAL(C_GetSlotInfo, 2) \
	SPECIAL(C_GetTokenInfo, 2) SPECIAL(C_GetMechanismList, 3) SPECIAL(C_GetMechanismInfo, 3) \
	SPECIAL(C_InitToken, 4) SPECIAL(C_InitPIN, 3) SPECIAL(C_SetPIN, 5) \
	SPECIAL(C_OpenSession, 5) SESSION(C_CloseSession, 1) SPECIAL(C_CloseAllSessions, 1) \
	SESSION(C_GetSessionInfo, 2) SESSION(C_GetOperationState, 3) SESSION(C_SetOperationState, 5) \
	SPECIAL(C_Login, 4) SESSION(C_Logout, 1) SESSION(C_CreateObject, 4) SESSION(C_CopyObject, 5) \
	SESSION(C_DestroyObject, 2) SESSION(C_GetObjectSize, 3) SPECIAL(C_GetAttributeValue, 4) \
	SESSION(C_SetAttributeValue, 4) SPECIAL(C_FindObjectsInit, 3) SPECIAL(C_FindObjects, 4) \
	SESSION(C_FindObjectsFinal, 1) SESSION(C_EncryptInit, 3) SESSION(C_Encrypt, 5) \
	SESSION(C_EncryptUpdate, 5) SESSION(C_EncryptFinal, 3) SESSION(C_DecryptInit, 3) \
	SESSION(C_Decrypt, 5) SESSION(C_DecryptUpdate, 5) SESSION(C_DecryptFinal, 3) \
	SESSION(C_DigestInit, 2) SESSION(C_Digest, 5) SESSION(C_DigestUpdate, 3) \
	SESSION(C_DigestKey, 2) SESSION(C_DigestFinal, 3) SPECIAL(C_SignInit, 3) SPECIAL(C_Sign, 5) \
	SESSION(C_SignUpdate, 3) SPECIAL(C_SignFinal, 3) SESSION(C_SignRecoverInit, 3) \
	SESSION(C_SignRecover, 5) SESSION(C_VerifyInit, 3) SESSION(C_Verify, 5) \
	SESSION(C_VerifyUpdate, 3) SESSION(C_VerifyFinal, 3) SESSION(C_VerifyRecoverInit, 3) \
	SESSION(C_VerifyRecover, 5) SESSION(C_DigestEncryptUpdate, 5) SESSION(C_DecryptDigestUpdate, 5) \
	SESSION(C_SignEncryptUpdate, 5) SESSION(C_DecryptVerifyUpdate, 5) SESSION(C_GenerateKey, 5) \
	SESSION(C_GenerateKeyPair, 8) SESSION(C_WrapKey, 6) SESSION(C_UnwrapKey, 8) \
	SESSION(C_DeriveKey, 6) SESSION(C_SeedRandom, 3) SESSION(C_GenerateRandom, 3) \
	SESSION(C_GetFunctionStatus, 1) SESSION(C_CancelFunction, 1) SPECIAL(C_WaitForSlotEvent, 3)

#define PARAMS1 word a
#define PARAMS2 PARAMS1, word b
#define PARAMS3 PARAMS2, word c
#define PARAMS4 PARAMS3, word d
#define PARAMS5 PARAMS4, word e
#define PARAMS6 PARAMS5, word f
#define PARAMS8 PARAMS6, word g, word h
#define ARGS1 a
#define ARGS2 ARGS1, b
#define ARGS3 ARGS2, c
#define ARGS4 ARGS3, d
#define ARGS5 ARGS4, e
#define ARGS6 ARGS5, f
#define ARGS8 ARGS6, g, h

#define MEMBER(name, n) word (*name)(PARAMS##n);
struct functions {
	unsigned char version[2];
	FUNCTIONS(MEMBER, MEMBER)
};
