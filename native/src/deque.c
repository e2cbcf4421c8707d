/* deque.c -- Deque: what a bounded list does at its ends.
 *
 * Contract: deque.h. Everything goes through list.c. What comes in is put there first, because only
 * that can fail; so a Deque is longer than its maxlen inside one call, never after it.
 */
#include "deque.h"

#include <stdlib.h>

#include "value.h"

enum { DEQUE_MAXLEN = LIST_HEAD_WORDS, DEQUE_CHANGES = LIST_CHANGES, DEQUE_HEAD_WORDS };

#define ROTATE_WORDS_MAX 64u /* as many stand on the stack */

/* maxlen has the 63 bits of an int word, unsigned: sys.maxsize is one that people use. */
static inline dh_word maxlen_word(uint64_t maxlen) { return (dh_word)(maxlen << 1) | 1u; }
static inline uint64_t maxlen_value(dh_word w) { return w >> 1; }

static int deque_corrupt(const dh_heap *heap, dh_word deque)
{
    (void)dhi_fail(heap, DH_E_CORRUPT, "deque %#llx is damaged", (unsigned long long)deque);
    return DH_E_CORRUPT;
}

int dh_deque_new(dh_heap *heap, uint64_t maxlen, dh_word *deque_out)
{
    int rc = dhi_list_head_new(heap, DH_T_DEQUE, DEQUE_HEAD_WORDS * sizeof(dh_word), deque_out);
    if (rc != 0)
        return rc;
    dh_word *head = dh_at(heap, dh_ref_off(*deque_out));
    head[DEQUE_MAXLEN] = maxlen == DH_DEQUE_UNBOUNDED ? DH_NONE : maxlen_word(maxlen);
    head[DEQUE_CHANGES] = dh_int(0);
    return 0;
}

int dh_deque_read(const dh_heap *heap, dh_word deque, dh_deque_state *state_out)
{
    const dh_word *head = dh_deref(heap, deque, DH_T_DEQUE, DEQUE_HEAD_WORDS * sizeof *head);
    if (head == NULL)
        return deque_corrupt(heap, deque);
    dh_word maxlen = head[DEQUE_MAXLEN];
    if (maxlen != DH_NONE && !dh_is_int(maxlen))
        return deque_corrupt(heap, deque);
    state_out->maxlen = maxlen == DH_NONE ? DH_DEQUE_UNBOUNDED : maxlen_value(maxlen);
    state_out->changes = head[DEQUE_CHANGES];
    state_out->changes_at = &head[DEQUE_CHANGES];
    return dh_list_length(heap, deque, &state_out->length);
}

static void drop_words(dh_heap *heap, const dh_word *words, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        dh_value_drop(heap, words[i]);
}

int dh_deque_extend(dh_heap *heap, dh_word deque, const dh_word *words, uint64_t count)
{
    dh_deque_state state;
    int rc = dh_deque_read(heap, deque, &state);
    if (rc != 0)
        return rc;
    uint64_t kept = count < state.maxlen ? count : state.maxlen, lost = count - kept;
    rc = dh_list_splice(heap, deque, state.length, 0, words + lost, kept);
    if (rc != 0)
        return rc;
    drop_words(heap, words, lost);
    if (state.length + kept > state.maxlen)
        rc = dh_list_splice(heap, deque, 0, state.length + kept - state.maxlen, NULL, 0);
    return rc;
}

int dh_deque_extend_left(dh_heap *heap, dh_word deque, const dh_word *words, uint64_t count)
{
    dh_deque_state state;
    int rc = dh_deque_read(heap, deque, &state);
    if (rc != 0)
        return rc;
    uint64_t kept = count < state.maxlen ? count : state.maxlen;
    rc = dh_list_splice(heap, deque, 0, 0, words, kept);
    if (rc != 0)
        return rc;
    drop_words(heap, words + kept, count - kept);
    if (state.length + kept > state.maxlen)
        rc = dh_list_splice(heap, deque, state.maxlen, state.length + kept - state.maxlen, NULL, 0);
    return rc;
}

/* --- rotate ----------------------------------------------------------------------------------- */

/* Move count elements from `from` to `to`, both numbered as they are now. The copies come first;
 * then their originals go, without being dropped. */
static int deque_move(dh_heap *heap, dh_word deque, uint64_t from, uint64_t to, uint64_t count,
                      dh_word *words)
{
    uint64_t span;
    for (uint64_t i = 0; i < count; i += span) {
        const dh_word *slots = dh_list_span(heap, deque, from + i, &span);
        if (slots == NULL)
            return deque_corrupt(heap, deque);
        if (span > count - i)
            span = count - i;
        memcpy(words + i, slots, (size_t)span * sizeof *words);
    }
    int rc = dh_list_splice(heap, deque, to, 0, words, count);
    return rc != 0 ? rc : dhi_list_take(heap, deque, to <= from ? from + count : from, count);
}

int dh_deque_rotate(dh_heap *heap, dh_word deque, int64_t steps)
{
    dh_deque_state state;
    dh_word few[ROTATE_WORDS_MAX], *words = few;
    int rc = dh_deque_read(heap, deque, &state);
    if (rc != 0 || state.length < 2)
        return rc;
    int64_t length = (int64_t)state.length, right = steps % length;
    if (right < 0)
        right += length;
    if (right == 0)
        return 0;
    uint64_t count = (uint64_t)(right <= length / 2 ? right : length - right);
    if (count > ROTATE_WORDS_MAX)
        words = malloc(count * sizeof *words);
    if (words == NULL)
        return ENOMEM;
    rc = right <= length / 2 ? deque_move(heap, deque, state.length - count, 0, count, words)
                             : deque_move(heap, deque, 0, state.length, count, words);
    if (words != few)
        free(words);
    return rc;
}

int dh_deque_check(const dh_heap *heap, dh_word deque)
{
    dh_deque_state state;
    int rc = dh_deque_read(heap, deque, &state);
    if (rc == 0 && (state.length > state.maxlen || !dh_is_int(state.changes)))
        return deque_corrupt(heap, deque);
    return rc != 0 ? rc : dh_list_check(heap, deque);
}
