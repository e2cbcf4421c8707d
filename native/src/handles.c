/* handles.c -- the table from container heads to the host's handles.
 *
 * Linear probing over offsets. A slot is NULL, a tombstone or a handle that is alive: a handle
 * leaves the table in the same step in which its word becomes 0, for its memory belongs to the
 * host, which may free it at once. Nobody else may set the word of a handle in the table.
 */
#include "handles.h"

#include <stdlib.h>

#define HANDLES_SLOTS_MIN 64u

static dh_handle tombstone;

static bool slot_is_live(const dh_handle *slot) { return slot != NULL && slot != &tombstone; }

/* Heads are 32-byte cells: neighbours differ in bit 5. The multiplier is 2^64 / golden ratio
 * (Knuth, The Art of Computer Programming 3, 6.4). */
static size_t handles_home(size_t slots_count, dh_off off)
{
    return (size_t)(((off >> 3) * 0x9E3779B97F4A7C15u) >> 32) & (slots_count - 1);
}

/* Index of the container's slot, or slots_count. */
static size_t handles_index(const dh_handles *handles, dh_off off)
{
    size_t mask = handles->slots_count - 1;
    size_t i = handles_home(handles->slots_count, off);

    for (; handles->slots[i] != NULL; i = (i + 1) & mask)
        if (slot_is_live(handles->slots[i]) && dh_ref_off(handles->slots[i]->word) == off)
            return i;
    return handles->slots_count;
}

static void handles_place(dh_handle **slots, size_t slots_count, dh_handle *handle)
{
    size_t i = handles_home(slots_count, dh_ref_off(handle->word));

    while (slots[i] != NULL)
        i = (i + 1) & (slots_count - 1);
    slots[i] = handle;
}

/* A table without tombstones in which at most a quarter of the slots is used. */
static int handles_rebuild(dh_handles *handles)
{
    size_t slots_count = HANDLES_SLOTS_MIN;
    dh_handle **slots;

    while (slots_count < 4 * (handles->live_count + 1))
        slots_count *= 2;
    slots = calloc(slots_count, sizeof(*slots));
    if (slots == NULL)
        return ENOMEM;
    for (size_t i = 0; i < handles->slots_count; i++)
        if (slot_is_live(handles->slots[i]))
            handles_place(slots, slots_count, handles->slots[i]);
    free(handles->slots);
    handles->slots = slots;
    handles->slots_count = slots_count;
    handles->used_count = handles->live_count;
    return 0;
}

int dh_handles_init(dh_handles *handles)
{
    *handles = (dh_handles){0};
    return handles_rebuild(handles);
}

void dh_handles_finish(dh_handles *handles)
{
    free(handles->slots);
    *handles = (dh_handles){0};
}

dh_handle *dh_handles_find(const dh_handles *handles, dh_word word)
{
    size_t i;

    if (handles->live_count == 0)
        return NULL;
    i = handles_index(handles, dh_ref_off(word));
    return i < handles->slots_count ? handles->slots[i] : NULL;
}

int dh_handles_add(dh_handles *handles, dh_handle *handle)
{
    DH_ASSERT(handle->word != 0);
    DH_DEBUG(dh_handles_find(handles, handle->word) == NULL);
    if (2 * (handles->used_count + 1) > handles->slots_count) {
        int rc = handles_rebuild(handles);
        if (rc != 0)
            return rc;
    }
    handles_place(handles->slots, handles->slots_count, handle);
    handles->used_count++;
    handles->live_count++;
    return 0;
}

void dh_handles_remove(dh_handles *handles, dh_handle *handle)
{
    size_t i;

    if (handle->word == 0)
        return;
    i = handles_index(handles, dh_ref_off(handle->word));
    DH_ASSERT(i < handles->slots_count && handles->slots[i] == handle);
    handle->word = 0;
    handles->live_count--;
    if (handles->slots[(i + 1) & (handles->slots_count - 1)] != NULL) {
        handles->slots[i] = &tombstone;
    } else { /* nothing was probed past here: no tombstone is needed */
        handles->slots[i] = NULL;
        handles->used_count--;
    }
}

dh_handle *dh_handles_next(const dh_handles *handles, size_t *index)
{
    while (*index < handles->slots_count) {
        dh_handle *slot = handles->slots[(*index)++];

        if (slot_is_live(slot))
            return slot;
    }
    return NULL;
}

void dh_handles_drop_all(dh_handles *handles)
{
    for (size_t i = 0; i < handles->slots_count; i++) {
        if (slot_is_live(handles->slots[i]))
            handles->slots[i]->word = 0;
        handles->slots[i] = NULL;
    }
    handles->used_count = 0;
    handles->live_count = 0;
}
