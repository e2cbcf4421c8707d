/* base.h -- what every file of the core may use: sizes, error helpers, asserts, fault points.
 *
 * Two kinds of failure, never mixed: the world failed (return a code), we are wrong (assert, stop).
 * The asserts have their own switch because packaging defines NDEBUG and would drop plain ones.
 */
#ifndef DH_BASE_H
#define DH_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../include/dirtyheap.h"

typedef uint32_t dh_pgno; /* index of a page in the arena; bit 31 set: a page of the table  */
typedef uint64_t dh_word; /* tagged 8-byte value, word.h                                     */
typedef uint64_t dh_off;  /* byte offset from the arena's base; 0 is never an object         */

#define DH_PGNO_TABLE 0x80000000u
#define DH_PAGE_WORDS (DH_PAGE_BYTES / 8u)
#define DH_PAGE_SHIFT 12u
/* Nothing that grows takes more than this at once: unarmed memory reads as written. */
#define DH_GROW_BYTES_MAX 65536u

#define DH_LIKELY(x) __builtin_expect(!!(x), 1)
#define DH_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define DH_MUST_USE __attribute__((warn_unused_result))
#define DH_PRINTF(f, a) __attribute__((format(printf, f, a)))

_Noreturn void dhi_assert_failed(const char *file, int line, const char *text);

/* Constant time, always compiled in. */
#define DH_ASSERT(x) ((x) ? (void)0 : dhi_assert_failed(__FILE__, __LINE__, #x))
/* Debug builds (-DDH_DEBUG_CHECKS=1) only. */
#if defined(DH_DEBUG_CHECKS) && DH_DEBUG_CHECKS
#define DH_DEBUG(x) DH_ASSERT(x)
#else
#define DH_DEBUG(x) ((void)0)
#endif

/* Remember the sentence behind rc for dh_heap_error_text and return rc. */
int dhi_fail(const dh_heap *heap, int rc, const char *format, ...) DH_PRINTF(3, 4);

/* Named failure and omission points for tests (error.c). Returns 0, or the code to fail with
 * when the test armed this name and its count has run out. Cheap when nothing is armed. */
extern int dhi_faults_armed;
int dhi_fault_check(const char *name);
static inline int dhi_fault(const char *name)
{
    return DH_LIKELY(!dhi_faults_armed) ? 0 : dhi_fault_check(name);
}

/* Does the code say that memory or file descriptors have run out? Then it says nothing of what was
 * asked, and nobody may take something else for it. */
bool dhi_is_shortage(int rc);
/* What to do about it, in text_out; untouched when rc is none, or of memory. */
void dhi_explain_shortage(int rc, char *text_out, size_t text_size);

uint64_t dhi_clock_ns(void);

#endif
