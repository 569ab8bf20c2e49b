/* A PKCS#11 library that does wrong as soon as it is asked for its functions:
 * built with -DCRASH it ends the process, with -DHANG it never returns, with
 * -DHOG it takes 4 GiB and ends the process if it does not get them. */
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
#ifdef HOG
	for (int i = 0; i < 64; i++)
		if (!malloc(64 << 20))
			abort();
#endif
	return 5; /* CKR_GENERAL_ERROR */
}
