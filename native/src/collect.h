/* collect.h -- what collections in one stop and in steps have in common. */
#ifndef DH_COLLECT_H
#define DH_COLLECT_H

#include "mark.h"

#define DHI_MARK_STACK_ROOM 65536u /* refs: half a MiB */

/* Put down what the tracer counted. */
void dhi_collect_note(dh_collect_stats *stats, const dh_mark *mark);
/* Cells have gone: who keeps places looks again, and the bytes until the next one begin at 0. */
void dhi_collect_end(dh_heap *heap);

#endif
