/* handles.h -- references that the host language holds to containers.
 *
 * The table maps the offset of a container's head to the one handle for it: roots for the
 * collector, identity for the host ("the same container twice gives the same object"). Volatile,
 * outside the arena. A handle is alive while word != 0; rollback and close make it stale through
 * dh_handles_remove and dh_handles_drop_all, which set word to 0. World lock.
 */
#ifndef DH_HANDLES_H
#define DH_HANDLES_H

#include "word.h"

typedef struct dh_handle {
    dh_word word;    /* ref to the head; 0: stale                                */
    uint64_t serial; /* the head's serial when the handle was made               */
} dh_handle;         /* embedded in the host's object; the table stores pointers */

typedef struct {
    dh_handle **slots; /* open addressing by offset, power of two */
    size_t slots_count;
    size_t used_count; /* with tombstones */
    size_t live_count;
} dh_handles;

int dh_handles_init(dh_handles *handles);
void dh_handles_finish(dh_handles *handles);
/* The handle for the container at this ref, or NULL. */
dh_handle *dh_handles_find(const dh_handles *handles, dh_word word);
/* handle->word and ->serial are filled by the caller. 0 or ENOMEM. */
int dh_handles_add(dh_handles *handles, dh_handle *handle) DH_MUST_USE;
/* Take the handle out and make it stale. Does nothing for a stale handle; legal while iterating. */
void dh_handles_remove(dh_handles *handles, dh_handle *handle);
/* Iterate: *index starts at 0; NULL at the end. Nothing may be added meanwhile. */
dh_handle *dh_handles_next(const dh_handles *handles, size_t *index);
/* Make every handle stale and empty the table. */
void dh_handles_drop_all(dh_handles *handles);

#endif
