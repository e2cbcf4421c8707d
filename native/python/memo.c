/* memo.c -- what a walk over a graph has met: a map from one word to another.
 *
 * Open addressing in plain memory. Holds no references and knows no Python object; who walks
 * decides what the words are and what must be kept alive.
 */
#include "memo.h"

#include <errno.h>
#include <stdlib.h>

/* The slot of the key, or the free one where it would stand. Multiplier: 2^64 / golden ratio. */
static size_t memo_slot(const dhp_memo *memo, uint64_t key)
{
    size_t i = (size_t)(key * 0x9E3779B97F4A7C15u >> 20) & (memo->room - 1);
    while (memo->items[i].key != 0 && memo->items[i].key != key)
        i = (i + 1) & (memo->room - 1);
    return i;
}

uint64_t dhp_memo_find(const dhp_memo *memo, uint64_t key)
{
    return memo->room == 0 ? 0 : memo->items[memo_slot(memo, key)].value;
}

static void memo_free(const dhp_memo *memo, dhp_memo_item *items)
{
    if (items != memo->few)
        free(items);
}

static int memo_grow(dhp_memo *memo)
{
    dhp_memo_item *old = memo->items, *items = memo->few;
    size_t old_room = memo->room, room = DHP_MEMO_FEW;
    if (old != NULL) {
        room = old == memo->few ? 64 : old_room * 2;
        items = calloc(room, sizeof *items);
        if (items == NULL)
            return ENOMEM;
    }
    memo->items = items;
    memo->room = room;
    for (size_t i = 0; i < old_room; i++)
        if (old[i].key != 0)
            items[memo_slot(memo, old[i].key)] = old[i];
    memo_free(memo, old);
    return 0;
}

int dhp_memo_add(dhp_memo *memo, uint64_t key, uint64_t value)
{
    if (memo->count * 2 >= memo->room && memo_grow(memo) != 0)
        return ENOMEM;
    memo->items[memo_slot(memo, key)] = (dhp_memo_item){key, value};
    memo->count++;
    return 0;
}

void dhp_memo_finish(dhp_memo *memo)
{
    memo_free(memo, memo->items);
    *memo = (dhp_memo){0};
}
