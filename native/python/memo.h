/* memo.h -- a map from word to word for one walk over a graph. Zero memory is the empty memo. It must
 * stay where it is while it is in use. */
#ifndef DHP_MEMO_H
#define DHP_MEMO_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t key; /* 0: free slot */
    uint64_t value;
} dhp_memo_item;

#define DHP_MEMO_FEW 8u

typedef struct {
    dhp_memo_item *items;
    size_t room; /* power of two, or 0 */
    size_t count;
    dhp_memo_item few[DHP_MEMO_FEW]; /* where the first items stand: most walks need no memory */
} dhp_memo;

/* The value, 0 when the key was not met. */
uint64_t dhp_memo_find(const dhp_memo *memo, uint64_t key);
/* A key not met before, and not 0. 0 or ENOMEM. */
int dhp_memo_add(dhp_memo *memo, uint64_t key, uint64_t value);
void dhp_memo_finish(dhp_memo *memo);

#endif
