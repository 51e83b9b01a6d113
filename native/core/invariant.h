/*
 * Invariants that stay on in every build, unlike <assert.h> under NDEBUG: a length or an offset that leaves its buffer ends the
 * process at once, with file, line and text, before a byte is written. Bytes from outside are refused with an error; an
 * invariant is about what this code has computed or checked itself.
 */
#ifndef SUBPAGE_INVARIANT_H
#define SUBPAGE_INVARIANT_H

#include <stdio.h>
#include <stdlib.h>

static __attribute__((noreturn, cold, noinline, unused)) void sp_invariant_failed(const char *file, int line,
                                                                                  const char *text)
{
    fprintf(stderr, "subpage: %s:%d: invariant failed: %s\n", file, line, text);
    abort();
}

#define SP_INVARIANT(condition)                                                                                         \
    (__builtin_expect(!(condition), 0) ? sp_invariant_failed(__FILE__, __LINE__, #condition) : (void)0)

#endif
