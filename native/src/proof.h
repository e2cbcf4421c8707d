/* proof.h -- proof mode: does the watch report every page that changed?
 *
 * One 64-bit hash per page, of the bytes that the last commit to look at the page took: copied in
 * its stop or ahead of it (precopy.c), or found there when the heap began to be watched. Each
 * commit hashes every page that is in use. One that is another than it was, and that neither this
 * commit takes nor the next will, was written past the watch: the commit fails, and the page is
 * entered by hand, so that the next commit holds it.
 *
 * Rollbacks, savepoints, folds, collections and the switching of memory need no word of it: what
 * they store is reported, or enters pages by hand, or leaves every byte as it was. That is what is
 * held against the hashes.
 *
 * Must never store to the arena, and must never accuse: a page that somebody writes to while it is
 * hashed is scanned once more before it is judged.
 */
#ifndef DH_PROOF_H
#define DH_PROOF_H

#include "capture.h"

typedef struct dh_proof dh_proof;

/* All but check: nothing where the heap has no proof. */
void dhi_proof_free(dh_heap *heap);
/* The pages in use are as they will be watched: after arming, world stopped. */
void dhi_proof_begin(const dh_heap *heap);
/* These bytes of a page were taken for the commit under way. */
void dhi_proof_take(const dh_heap *heap, dh_pgno pgno, const uint8_t *bytes);
/* World stopped, the capture complete, its cursor's pages in flight. DH_E_UNREPORTED, or 0. */
int dhi_proof_check(dh_heap *heap, const dh_capture *capture) DH_MUST_USE;

#endif
