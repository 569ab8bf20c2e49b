/* A PKCS#11 library that does wrong as soon as it is asked for its functions:
 * built with -DCRASH it ends the process, with -DHANG it never returns. */
#include <stdlib.h>
#include <unistd.h>

unsigned long C_GetFunctionList(void **list);

unsigned long C_GetFunctionList(void **list)
{
	(void)list;
#ifdef CRASH
	abort();
#endif
#ifdef HANG
	for (;;)
		pause();
#endif
	return 5; /* CKR_GENERAL_ERROR */
}
