/* dirtyheap.h -- the public C interface of the core, and its manual.
 *
 * A heap is one arena of memory that the kernel watches for writes. The core keeps containers in
 * it, takes the set of written pages, and turns it into deltas; it never opens a file by name and
 * never talks to LMDB: the caller stores and returns the bytes. It does not know Python.
 *
 * Errors: every function that can fail returns int: 0 done, > 0 an errno, < 0 a DH_E_* code; the
 * sentence behind it is in dh_heap_error_text(). Values leave through *_out, written on success only.
 *
 * Threads: container operations (container headers) need the world lock (under Python: the GIL).
 * The verbs below need the heap's own lock, which the caller holds; those marked STOPS take the
 * world lock for their critical part through dh_world, the others never touch the arena.
 *
 * Everything between CDEF-BEGIN and CDEF-END is read by the cffi build as it stands.
 */
#ifndef DIRTYHEAP_H
#define DIRTYHEAP_H

#include <stddef.h>
#include <stdint.h>

#define DH_PAGE_BYTES 4096u

/* CDEF-BEGIN */
typedef struct dh_heap dh_heap;
typedef struct dh_capture dh_capture;

enum {
    DH_E_FULL = -1,       /* the arena's capacity is used up                           */
    DH_E_CORRUPT = -2,    /* a damaged structure was met; nothing was followed         */
    DH_E_WATCH = -3,      /* the kernel no longer tracks what it must track            */
    DH_E_FORKED = -4,     /* the heap belongs to the parent process                    */
    DH_E_LIMIT = -5,      /* a size beyond what the format can express                 */
    DH_E_ABSENT = -6,     /* no such key                                               */
    DH_E_FORMAT = -7,     /* bytes that are not a record of this format                */
    DH_E_CLOSED = -8,     /* the heap is closed                                        */
    DH_E_UNHASHABLE = -9, /* the value cannot be a key                               */
    DH_E_TRACKER = -10,   /* the tracker asked for is not available here               */
    DH_E_UNORDERED = -11, /* keys that cannot be compared                              */
    DH_E_READ_ONLY = -12, /* the heap is open for reading only                         */
    DH_E_UNREPORTED = -13 /* proof mode: a page changed and the watch did not report it */
};

enum {
    DH_TRACKER_AUTO = 0,
    DH_TRACKER_UFFD = 1,
    DH_TRACKER_UFFD_DEV = 2,
    DH_TRACKER_COMPARE = 3,
    DH_TRACKER_SCRIPT = 4,
    DH_TRACKER_SHADOW = 5 /* for write watches only: see watch_shadow.c */
};

enum { DH_DIRTY_WATCH = 0, DH_DIRTY_EVERYTHING = 1 };

/* What the caller wants of a new heap object; bytes of address space, not of memory. */
typedef struct {
    uint64_t capacity_bytes; /* address space to reserve                               */
    int tracker;             /* DH_TRACKER_*; AUTO takes the first that works          */
    uint64_t hash_key[2];    /* SipHash key, secret per heap                           */
} dh_options;

/* The part of the heap's state that a commit record carries beside pages. */
typedef struct {
    uint64_t root;        /* word: ref to the root dict                                */
    uint64_t hwm_pages;   /* pages of the arena ever handed out                        */
    uint64_t serial_next; /* next identity number for a container                      */
} dh_state;

/* Where a base file is, and what it must be. */
typedef struct {
    uint64_t version;    /* id of the commit whose image it holds                */
    uint64_t file_bytes; /* its size                                             */
    uint32_t number;     /* of the extent                                        */
    uint32_t checksum;   /* of its trailer                                       */
    char file_name[40];  /* in the directory of base files; ends with a NUL      */
} dh_extent_row;

/* What one commit found and made. Bytes and nanoseconds. */
typedef struct {
    uint64_t pages_count;         /* page entries in the delta, data and table          */
    uint64_t data_pages_count;    /* of these, pages of the arena                       */
    uint64_t scanned_pages_count; /* pages the watch reported                           */
    uint64_t whole_pages_count;   /* entries that hold a whole page                     */
    uint64_t changed_bytes;       /* 8-byte words that differ from the last commit, x 8 */
    uint64_t delta_bytes;         /* bytes of all chunks                                */
    uint64_t stop_ns;             /* how long the world was stopped                     */
    uint64_t scan_ns;             /* of that, the scan                                  */
    uint64_t encode_ns;           /* compare, diff, checksum                            */
} dh_commit_stats;

typedef struct {
    uint64_t live_cells_count;
    uint64_t freed_cells_count;
    uint64_t freed_bytes;
    uint64_t freed_pages_count;    /* pages that became free                           */
    uint64_t released_pages_count; /* pages given back to the kernel                   */
    uint64_t roots_count;          /* the root and the live handles                    */
    uint64_t overflow_rounds_count;
    uint64_t dirty_pages_count;     /* written since the last collection, or in the cycle */
    uint64_t rescanned_cells_count; /* marked cells on these                            */
    uint64_t marked_cells_count;    /* of a young one: what was fresh                    */
    uint64_t rounds_count;          /* of re-marking beside the application             */
    uint64_t stop_ns;               /* of this call                                     */
} dh_collect_stats;

typedef struct {
    int tracker; /* DH_TRACKER_* in use                              */
    uint64_t capacity_pages;
    uint64_t hwm_pages;
    uint64_t free_pages_count; /* pages below the mark that hold nothing           */
    uint64_t allocated_bytes;  /* cells and runs handed out                        */
    uint64_t handles_count;
    uint64_t exports_count;       /* exported buffers                                 */
    uint64_t overlay_pages_count; /* pages whose committed image is not the base's    */
    uint64_t overlay_bytes;       /* memory for these images                          */
    uint64_t base_pages_count;    /* pages in mapped base files                       */
    uint64_t private_pages_count; /* pages of the arena that are memory of our own    */
    int is_lazy;                  /* nothing was stored yet: see dh_store_begin       */
} dh_heap_stats;

/* --- life ------------------------------------------------------------------------------------ */

/* Reserve the arena and everything beside it. The heap is empty and not yet started. */
int dh_heap_open(const dh_options *options, dh_heap **heap_out);
/* Stop tracking and free everything except what exported buffers still need. Handles go stale. */
void dh_heap_close(dh_heap *heap);
/* The sentence behind the last call on this heap that failed. */
const char *dh_heap_error_text(const dh_heap *heap);
/* The sentence behind the last failed dh_heap_open of this thread. */
const char *dh_heap_open_error(void);
const char *dh_error_name(int rc);
/* From now on every store is refused with DH_E_READ_ONLY, and exported memory is read-only. Before
 * dh_load_finish: nothing is watched. For good. */
void dh_heap_set_read_only(dh_heap *heap);
/* Proof mode: from now on each capture of a commit hashes every page, and fails with DH_E_UNREPORTED
 * when one changed that the watch did not report; the page is then in the next commit. Before
 * dh_load_finish. */
int dh_heap_prove(dh_heap *heap);
/* Why a better tracker was not taken; "" when it was. */
const char *dh_heap_tracker_reason(const dh_heap *heap);
/* STOPS. */
void dh_heap_stats_read(dh_heap *heap, dh_heap_stats *stats_out);

/* --- loading: extents first, then deltas in commit order, then start -------------------------- */

/* Map the base files of a directory as the committed image of their extents, privately, into the
 * arena: only their trailers are read. Where one cannot be mapped it is copied. The directory is
 * kept open: the files may be opened again until an extent is switched to another one. */
int dh_load_extents(dh_heap *heap, int directory_fd, const dh_extent_row *rows, size_t rows_count);
/* The same for one file that has no name. */
int dh_load_extent(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd, uint64_t file_bytes,
                   uint32_t checksum);
/* Enter one chunk of a delta: applied when its pages are first looked at. Entries for extents whose
 * version is newer are passed over. */
int dh_load_delta(dh_heap *heap, const uint8_t *bytes, size_t size);
/* Take the commit's state (or make a new root when state is NULL). What was loaded is brought in as
 * it is needed, each page of the allocation table and of a delta by its checksum. */
int dh_load_finish(dh_heap *heap, const dh_state *state);
/* After it: read all base files into memory and check every page. For who will touch everything. */
int dh_load_preload(dh_heap *heap);
/* STOPS. What the first store does, now: load the allocator's state, apply what is left of the
 * deltas, begin to watch. Nothing when it was done, DH_E_READ_ONLY when there can be no store. */
int dh_store_begin(dh_heap *heap);

/* --- commit: capture, encode, then settle with the outcome ------------------------------------ */

/* What to do with an extent after dh_stage_take. */
enum {
    DH_STAGE_NONE = 0,  /* nothing: a delta is cheaper, or its file holds it already           */
    DH_STAGE_WRITE = 1, /* dh_extent_write into a new file, then dh_stage_keep                 */
    DH_STAGE_PATCH = 2  /* dh_extent_patch its staged file, then dh_stage_keep                 */
};

/* Before the capture of a big commit, as often as it finds something: re-arm all pages and plan
 * which extents go to base files ahead of the stop. *capture_inout: NULL in the first round, in
 * which it stays NULL, with a count of 0, unless more than window_pages were written. */
int dh_stage_round(dh_heap *heap, uint64_t window_pages, dh_capture **capture_inout,
                   size_t *count_out);
uint32_t dh_stage_extent(const dh_capture *capture, size_t index);
/* Copy one extent's written pages; what is to be done with them: DH_STAGE_*. */
int dh_stage_take(dh_heap *heap, dh_capture *capture, uint32_t extent_no, int *verdict_out);
/* They are in the file now, which nothing names before the record. */
int dh_stage_keep(dh_heap *heap, dh_capture *capture, uint32_t extent_no, int fd,
                  uint64_t file_bytes);
/* Nonzero when the stop captured something of a staged extent: its file is to be patched. */
int dh_stage_is_touched(const dh_capture *capture, uint32_t extent_no);
/* STOPS. Take the dirty set into flight and copy its pages once, beside what was staged. */
int dh_commit_capture(dh_heap *heap, dh_capture **capture_out);
/* Compare with the committed image and encode delta chunks of at most chunk_bytes each. */
int dh_commit_encode(dh_heap *heap, dh_capture *capture, uint64_t parent_id, uint64_t commit_id,
                     size_t chunk_bytes);
size_t dh_commit_chunks_count(const dh_capture *capture);
const uint8_t *dh_commit_chunk(const dh_capture *capture, size_t index, size_t *size_out);
/* Extents that the capture rewrites so fully that a new base file is cheaper than a delta. */
size_t dh_commit_rebased_count(const dh_capture *capture);
uint32_t dh_commit_rebased_extent(const dh_capture *capture, size_t index);
void dh_commit_state(const dh_capture *capture, dh_state *state_out);
void dh_commit_stats_read(const dh_capture *capture, dh_commit_stats *stats_out);
/* The record is durable: captured pages become the committed image. Frees the capture and makes the
 * pointer NULL; on failure (ENOMEM) neither, and the call may be made again. */
int dh_commit_done(dh_heap *heap, dh_capture **capture_inout);
/* Nothing became durable: the dirty set goes back. Frees the capture. */
void dh_commit_failed(dh_heap *heap, dh_capture *capture);

/* --- base files ------------------------------------------------------------------------------- */

/* Write one extent's image to fd: the committed one, or (capture != NULL) the captured one. */
int dh_extent_write(dh_heap *heap, const dh_capture *capture, uint32_t extent_no, uint64_t version,
                    int fd, uint64_t *file_bytes_out, uint32_t *checksum_out);
/* Put the captured pages of an extent into a file that nothing names yet. */
int dh_extent_patch(dh_heap *heap, const dh_capture *capture, uint32_t extent_no, uint64_t version,
                    int fd, uint64_t *file_bytes_inout, uint32_t *checksum_inout);
/* Map a file just written as the extent's base; what it covers leaves the overlay. */
int dh_extent_switch(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd,
                     uint64_t file_bytes, uint32_t checksum);
/* Begin a fold: base files of the last commit's image for every extent that is newer than its base.
 * From now on commits keep what they replace of that image until it is written. Ends what was begun
 * before. *count_out: extents, see dh_fold_extent. */
int dh_fold_begin(dh_heap *heap, size_t *count_out);
uint32_t dh_fold_extent(const dh_heap *heap, size_t index);
/* Write one of them as it was when the fold began, once. ENOMEM: a commit could not keep something;
 * the fold is to be ended. */
int dh_fold_write(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd,
                  uint64_t *file_bytes_out, uint32_t *checksum_out);
/* Map its file as the extent's base; what later commits changed stays in the overlay. Nothing is
 * done where one of them has given the extent a base of its own, or when it was done before. */
int dh_fold_switch(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd, uint64_t file_bytes,
                   uint32_t checksum);
/* The end, whatever came of it; harmless when there is none. */
void dh_fold_end(dh_heap *heap);
/* STOPS. Let the arena show the extent's base file, fd, so that memory of its own goes back; what
 * the file does not hold (uncommitted writes) stays as it is, and is reported as written or not, as
 * before. Not while memory of the extent is exported: then nothing is done. pages_out: given back.
 * No commit may be under way. */
int dh_arena_switch(dh_heap *heap, uint32_t extent_no, int fd, uint64_t *pages_out);
/* Extents with at least so many private pages and a base file, ascending; as below. */
size_t dh_extents_private(const dh_heap *heap, uint64_t pages_min, uint32_t *extents_out,
                          size_t max);
/* Extents with pages newer than their base, ascending; returns how many, writes at most max. */
size_t dh_extents_unfolded(const dh_heap *heap, uint32_t *extents_out, size_t max);

/* --- the one verb: show state S ---------------------------------------------------------------- */

/* STOPS. Copy what is uncommitted now, to be shown again later; the dirty set is kept. */
int dh_savepoint_take(dh_heap *heap, dh_capture **savepoint_out);
void dh_savepoint_drop(dh_heap *heap, dh_capture *savepoint);
/* STOPS. Make the arena show the last commit (savepoint NULL) or the savepoint; then revalidate
 * handles. pages_out counts the pages written. */
int dh_show_state(dh_heap *heap, dh_capture *savepoint, uint64_t *pages_out, uint64_t *stop_ns_out);

/* STOPS. The same with an older commit: `source` is another heap object, loaded at it from the same
 * store. What differs is dirty afterwards, and so in the next commit. EBUSY: an exported buffer's
 * memory holds something else in that state; nothing was changed. Needs memory before the stop only. */
int dh_show_heap(dh_heap *heap, const dh_heap *source, uint64_t *pages_out, uint64_t *stop_ns_out);
/* How the committed states of two heap objects of one store differ, in pages that hold something in
 * either, and in bytes of whole 8-byte words. */
int dh_compare(const dh_heap *a, const dh_heap *b, uint64_t *pages_out, uint64_t *bytes_out);

/* --- the rest ---------------------------------------------------------------------------------- */

/* STOPS. What a commit would take now; changes nothing. */
int dh_pending(dh_heap *heap, uint64_t *pages_out, uint64_t *changed_bytes_out);
/* STOPS. Precise mark from the root and live handles; unmarked cells become free. A collection in
 * steps that is under way is dropped, or, if it sweeps, completed. */
int dh_collect(dh_heap *heap, dh_collect_stats *stats_out);
/* STOPS. The same for cells allocated since the last collection; all others stay. Traces these, the
 * root, the handles, and cells on pages written since. */
int dh_collect_young(dh_heap *heap, dh_collect_stats *stats_out);
/* A full collection in steps: begin; mark until it is marked; finish; sweep until it is done. All but
 * mark as other verbs. STOPS, shortly: begin, finish, and each sweep for about its budget. EBUSY: one is
 * under way. Numbers of cells are those of the whole cycle so far. */
int dh_cycle_begin(dh_heap *heap, dh_collect_stats *stats_out);
/* Needs no lock: one thread at a time, beside everything but dh_heap_close. Marked is also a cycle that
 * somebody else ended: a rollback, say. */
int dh_cycle_mark(dh_heap *heap, uint64_t budget_ns, int *is_marked_out);
int dh_cycle_finish(dh_heap *heap, dh_collect_stats *stats_out);
int dh_cycle_sweep(dh_heap *heap, uint64_t budget_ns, dh_collect_stats *stats_out,
                   int *is_done_out);
/* STOPS. End it early: nothing is freed by one that still marks. */
int dh_cycle_drop(dh_heap *heap);
/* 0: none, 1: it marks, 2: it sweeps. */
int dh_cycle_phase(const dh_heap *heap);
/* STOPS. Give long free runs back to the kernel, about so many pages. */
int dh_pages_release_some(dh_heap *heap, uint64_t pages_max, uint64_t *pages_out);
/* Where written pages come from: the heap's tracker, or (to compare with) all count as written. */
int dh_collect_source(dh_heap *heap, int source);
/* STOPS. Let the world be told (dh_world.due) once classes and runs took so much room since the last
 * collection; 0: never. */
int dh_collect_due_at(dh_heap *heap, uint64_t bytes);
/* Say that bytes of the arena changed in a way the kernel cannot see. */
int dh_mark_dirty(dh_heap *heap, uint64_t address, uint64_t size);

/* --- verify: everything held against the rules ------------------------------------------------- */

typedef struct dh_verify dh_verify;
typedef struct {
    uint64_t containers_count;        /* reached, of these                                    */
    uint64_t cells_count;             /* reached                                              */
    uint64_t cells_bytes;             /* their room                                           */
    uint64_t unreachable_cells_count; /* allocated and not reached: what a collection would free */
    uint64_t unreachable_bytes;
    uint64_t allocated_cells_count; /* what cells_count can come to                   */
    uint64_t pages_count;           /* pages of the arena that hold something              */
    uint64_t problems_count;        /* also those beyond the ones that are kept            */
} dh_verify_stats;

int dh_verify_new(dh_heap *heap, dh_verify **verify_out);
void dh_verify_free(dh_verify *verify);
/* Before the run: a page whose stored bytes are wrong, or gone; the walk names what stands there. */
void dh_verify_bad_page(dh_verify *verify, uint32_t pgno, int is_missing);
/* STOPS. The allocator, clean pages against their committed image, all that root and handles reach.
 * Goes on for about cells_max cells and may be called again: then the heap must not change in
 * between. Problems are no failure: 0, ENOMEM or DH_E_FORKED, DH_E_WATCH. */
int dh_verify_run(dh_verify *verify, uint64_t cells_max, int *is_done_out);
void dh_verify_stats_read(const dh_verify *verify, dh_verify_stats *stats_out);
/* One of the problems that were kept: where in the graph, what, where in the arena. DH_E_ABSENT
 * beyond the last. The texts live as long as the run. */
int dh_verify_problem_read(const dh_verify *verify, size_t index, const char **path_out,
                           const char **what_out, const char **where_out);
/* STOPS. The same in one call; error text names the first problem. */
int dh_check(dh_heap *heap, uint64_t *cells_out, uint64_t *problems_out);

/* --- for people with a leak: what lives, why, and what grew ------------------------------------- */

/* What of the arena is used for what. Bytes are the room of cells (a size class, or whole pages), with
 * what their owners do not use of it. arena_pages is 1 (page 0) + used + free + pinned; the bytes of used
 * pages are those of live, unreachable and free cells, and the rest. */
typedef struct {
    uint64_t objects_count; /* containers, tuples, strings, ...: all that a row counts           */
    uint64_t cells_count;   /* of them: an object may have many                                  */
    uint64_t bytes;
    uint64_t held_cells_count; /* of these, reached from handles only, not from the root          */
    uint64_t held_bytes;
    uint64_t unreachable_cells_count; /* garbage, which a full collection frees                  */
    uint64_t unreachable_bytes;
    uint64_t free_cells_count; /* in pages that hold something                                   */
    uint64_t free_cells_bytes;
    uint64_t rest_bytes; /* of such pages: less than a cell at the end                           */
    uint64_t arena_pages, used_pages_count, free_pages_count;
    uint64_t pinned_pages_count;    /* nobody's, but exported views may write to them            */
    uint64_t free_run_pages_max;    /* the longest run of free pages                             */
    uint64_t broken_count;          /* references that lead nowhere: the heap is damaged         */
    uint64_t overflow_rounds_count; /* times that the stack was too small for what was met       */
    uint64_t stop_ns;
} dh_census_stats;
/* Objects of one type. Their own cells: head and inner cells, not the values in their slots. */
typedef struct {
    const char *kind; /* "dict", "str", ...; "record", "packed"                                  */
    int code;         /* of packed values; 0: damaged                                            */
    const char *name; /* of the class of records (UTF-8, surrogates as they are), else NULL      */
    uint64_t objects_count, cells_count, bytes;
} dh_census_row;
/* Cells of one size, in pages of their own. */
typedef struct {
    uint64_t cell_bytes;
    uint64_t pages_count, used_cells_count, free_cells_count;
} dh_census_size;

typedef struct dh_census dh_census;
enum {
    /* Keep who led to whom, for dh_growth_new: 24 bytes for each container and tuple. Without it a
     * census needs at most 5 % of the heap and 1 MiB. */
    DH_CENSUS_CONTAINERS = 1,
    /* Nobody else uses this heap object: the world need not stop for it. */
    DH_CENSUS_PRIVATE = 2
};
/* STOPS, unless PRIVATE. Count all that the root and the handles reach, and the room between it.
 * DH_E_CORRUPT, DH_E_FORKED, ENOMEM. */
int dh_census_take(dh_heap *heap, int flags, dh_census **census_out);
void dh_census_free(dh_census *census);
void dh_census_stats_read(const dh_census *census, dh_census_stats *stats_out);
/* DH_E_ABSENT beyond the last. Texts live as long as the census. */
int dh_census_row_read(const dh_census *census, size_t index, dh_census_row *row_out);
int dh_census_size_read(const dh_census *census, size_t index, dh_census_size *size_out);

/* A way from a root to a container, step by step: one of those with the fewest containers on it. */
typedef struct dh_path dh_path;
typedef struct {
    const char *origin;   /* what it begins with: "root", or the type of what Python holds     */
    int is_from_root;     /* 0: no way leads from the root; Python holds it, or what leads to it */
    uint64_t steps_count; /* that are told, see dh_path_step                                  */
    uint64_t omitted_count; /* in the middle: as many steps were told before as behind          */
} dh_path_info;
/* STOPS. What keeps the container alive; word: a reference to its head, with a handle. Needs 16 bytes
 * for each container that is as near to the root. DH_E_ABSENT: there is no such container. */
int dh_why(dh_heap *heap, uint64_t word, dh_path **path_out);
void dh_path_free(dh_path *path);
void dh_path_read(const dh_path *path, dh_path_info *info_out);
/* The text of a step and the type of what it leads to (the name, of a record's class); DH_E_ABSENT. */
int dh_path_step(const dh_path *path, size_t index, const char **text_out, const char **type_out);

/* What grew from one census to another of two heap objects of one store, both with their containers
 * and not changed since. Every cell is counted for the nearest container above it that is in both. */
typedef struct dh_growth dh_growth;
typedef struct {
    int64_t bytes;     /* of the container and of all below it, as a tree of shortest ways       */
    int64_t own_bytes; /* of these, not of other containers that are in both                    */
    int64_t objects;   /* containers below it and tuples: come less gone                        */
} dh_growth_row;
/* STOPS the newer one, unless it is PRIVATE. The max_count containers that grew most, but for those whose growth is that of one
 * container below them, but for a hundredth, and those that grew by less than a hundredth of the first.
 * ENOMEM. */
int dh_growth_new(const dh_census *old, const dh_census *new_, size_t max_count,
                  dh_growth **growth_out);
void dh_growth_free(dh_growth *growth);
/* In the order of their bytes; DH_E_ABSENT beyond the last. The path lives as long as the growth. */
int dh_growth_read(const dh_growth *growth, size_t index, dh_growth_row *row_out,
                   const dh_path **path_out, const char **type_out);

/* A base file by its trailer and, page by page, its checksums; no heap is needed. 0: *bad_count_out
 * pages are wrong, the first max_count of them in bad_out. DH_E_CORRUPT: the file as a whole is no
 * version of that extent, text_out says why. Else an errno. */
int dh_base_check(int fd, uint64_t file_bytes, uint32_t extent_no, uint64_t version,
                  uint32_t checksum, uint32_t *bad_out, size_t max_count, size_t *bad_count_out,
                  char *text_out, size_t text_size);

/* Deltas played back over base files without a heap: every page that they touch, at the commit come
 * to. Memory: 4 KiB for each. Commits in ascending order; base files of a version before its deltas. */
typedef struct dh_replay dh_replay;
int dh_replay_new(dh_replay **replay_out);
void dh_replay_free(dh_replay *replay);
/* From now on an extent rests on this file (fd may be closed), or on nothing (-1); what was played
 * back of it is forgotten. file_pages: what the file is said to hold; less is mapped if it is short. */
int dh_replay_base(dh_replay *replay, uint32_t extent_no, uint64_t version, int fd,
                   uint32_t file_pages);
/* Every delta up to here is in base files: forget the pages. */
void dh_replay_fold(dh_replay *replay);
/* Apply one chunk of a commit. 0, also where pages came out wrong: see dh_replay_bad_read.
 * DH_E_CORRUPT: it cannot be read, or is another commit's, and text_out says so. */
int dh_replay_chunk(dh_replay *replay, uint64_t commit_id, uint32_t chunk_index,
                    const uint8_t *bytes, size_t size, char *text_out, size_t text_size);
/* Page and commit of the index-th wrong result since the last fold; DH_E_ABSENT beyond the last that
 * was kept. A wrong page is told once until a whole page mends it. */
int dh_replay_bad_read(const dh_replay *replay, size_t index, uint32_t *pgno_out,
                       uint64_t *commit_out);
uint64_t dh_replay_bad_count(const dh_replay *replay);
uint64_t dh_replay_pages_count(const dh_replay *replay);
/* Move what was replayed, bases and pages, into a heap that is being loaded, wrong pages too: to look
 * at what is left of a damaged heap. Base files are mapped: what is not touched costs nothing. The
 * replay can only be freed then. */
int dh_replay_show(dh_replay *replay, dh_heap *heap);
/* fds that must not live on in a forked child (the writer lock). */
int dh_fork_guard_fd(dh_heap *heap, int fd);
/* A descriptor that only the process that opened it may close: in a forked child the fork guard has
 * closed it, and the number may be another file's. */
typedef struct {
    int fd; /* -1: none */
    int pid;
} dh_owned_fd;
/* Closes and forgets it, in one step for the caller; harmless when done before. */
void dh_owned_fd_close(dh_owned_fd *owned);

/* --- a write watch over any memory of the process ----------------------------------------------- */

/* Pages are numbered from the beginning of the memory watched, 4096 bytes each, also where the system
 * has larger ones. A page is told when it was written since the watch was opened or since the last
 * reset of that page by the same cursor; more may be told (huge pages, after an error), never less.
 * Any thread may call; not during the close. In a forked child every call is DH_E_FORKED; of a heap's
 * memory, DH_E_CLOSED once the heap is closed. */
typedef struct dh_write_watch dh_write_watch;
typedef struct {
    uint64_t start; /* page number */
    uint64_t stop;  /* exclusive   */
} dh_page_run;
typedef struct {
    dh_page_run *runs; /* ascending, none touches the next */
    size_t runs_count;
    size_t runs_room;
    uint64_t pages_count;
    uint64_t next_page; /* where to go on when pages_max was reached, else DH_PAGES_COMPLETE */
} dh_pages;
enum { DH_PAGES_COMPLETE = -1 };

/* Writable memory at a page boundary, for as long as the watch is open. tracker: AUTO, UFFD, UFFD_DEV
 * or SHADOW. EEXIST: another watch tracks some of it. Memory of a heap: a cursor of the heap's watch.
 * Arms every page. why_out: why it failed, or why AUTO passed over a better technique. */
int dh_write_watch_open(uint64_t address, uint64_t pages_count, int tracker,
                        dh_write_watch **watch_out, char *why_out, size_t why_size);
void dh_write_watch_close(dh_write_watch *w);
/* Close what is there, if anything is: for who may be interrupted as soon as it is open. */
void dh_write_watch_release(dh_write_watch **watch);
int dh_write_watch_tracker(const dh_write_watch *w);
const char *dh_write_watch_reason(const dh_write_watch *w);
/* The cursor that is open as long as the watch. */
int dh_write_watch_cursor(const dh_write_watch *w);
/* Another one, for which nothing was written yet. DH_E_LIMIT: there are too many. */
int dh_write_watch_cursor_open(dh_write_watch *w, int *cursor_out);
void dh_write_watch_cursor_close(dh_write_watch *w, int cursor);
/* The pages of [first, limit) that were written, ascending, at most pages_max (> 0); is_reset: these,
 * and no others, are not written any more, in the same step. After a failure all are as before. */
int dh_write_watch_get(dh_write_watch *w, int cursor, uint64_t first, uint64_t limit,
                       uint64_t pages_max, int is_reset, dh_pages **pages_out);
/* Take back a get that reset: its pages count as written again. */
void dh_write_watch_return(dh_write_watch *w, int cursor, const dh_pages *pages);
int dh_write_watch_reset(dh_write_watch *w, int cursor, uint64_t first, uint64_t limit);
/* For writes that nobody sees: they count as written for every cursor. */
int dh_write_watch_mark(dh_write_watch *w, uint64_t first, uint64_t limit);
void dh_pages_free(dh_pages *pages);
/* Free what is there, if anything is; see dh_write_watch_release. */
void dh_pages_drop(dh_pages **pages);
/* pages_count numbers. */
void dh_pages_numbers(const dh_pages *pages, uint64_t *numbers_out);
/* Bit i of zeroed bytes: page first + i. */
void dh_pages_bitmap(const dh_pages *pages, uint64_t first, uint8_t *bits_out);

/* --- the kernel's page map ------------------------------------------------------------------------ */

typedef struct {
    uint64_t start; /* address */
    uint64_t end;
    uint64_t categories;
} dh_page_region;
/* As in the kernel's struct pm_scan_arg. */
typedef struct {
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t max_pages; /* 0: no limit                                                     */
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
    uint64_t vec_len; /* one call of the kernel for so many regions; 0: as many calls as it takes */
} dh_pagemap_query;
typedef struct {
    dh_page_region *regions;
    size_t regions_count;
    size_t regions_room;
    uint64_t pages_count;
    uint64_t walk_end; /* all is told up to here          */
    int is_stuck;      /* the last call came no further    */
} dh_page_regions;

/* fd: the pagemap of a process. 0 or an errno; after one of a scan that protects, pages may be
 * protected that were not told. */
int dh_pagemap_query_run(int fd, const dh_pagemap_query *query, dh_page_regions **found_out);
void dh_page_regions_free(dh_page_regions *found);
/* The categories that this kernel tells. fd: the pagemap of this process. */
int dh_pagemap_categories(int fd, uint64_t *known_out);

/* A functional test of the kernel feature: 0, or why not in text_out. */
int dh_probe(int tracker, char *text_out, size_t text_size);

/* What the kernel can do beside that. */
enum {
    DH_ABILITY_UFFD_SYSCALL = 0, /* userfaultfd by system call                                 */
    DH_ABILITY_UFFD_DEVICE,      /* by device node                                             */
    DH_ABILITY_WP_ASYNC,         /* asynchronous write protection                              */
    DH_ABILITY_PAGEMAP,          /* the process may open its own pagemap                       */
    DH_ABILITY_PAGEMAP_SCAN,     /* the ioctl                                                  */
    DH_ABILITY_WPALLOWED,        /* its category WPALLOWED                                     */
    DH_ABILITY_GUARD,            /* guard pages, and their category                            */
    DH_ABILITY_SOFT_DIRTY,       /* bit 55 of pagemap, cleared and set                         */
    DH_ABILITY_DROPPED_PAGES,    /* 2 MiB of armed pages given back are reported               */
    DH_ABILITY_DROPPED_HUGE,     /* the same, of an armed huge page                            */
    DH_ABILITY_RICH_MASKS,       /* scans for more than WRITTEN find the same written pages    */
    DH_ABILITY_UNREGISTERED,     /* memory that is not watched reads as written                */
    DH_ABILITIES_COUNT
};
/* A functional test of one of them: 1 yes, 0 no, -1 it cannot be tested here; text_out, of at least
 * one byte, says what was seen. Milliseconds. */
int dh_ability(int ability, char *text_out, size_t text_size);

/* --- the laboratory: techniques of write tracking side by side (native/lab/lab.h) --------------- */

/* What a technique is, says of itself, and may not promise. Static strings. */
typedef struct {
    const char *name;
    const char *idea;
    const char *cannot_see; /* stores and changes that it does not report            */
    const char *breaks;     /* in the rest of the process                            */
    int is_for_heaps;       /* heaps may use it; the others are here to be measured */
} dh_lab_technique;
size_t dh_lab_techniques_count(void);
/* NULL beyond the end. */
const dh_lab_technique *dh_lab_technique_at(size_t index);
/* The number of its tracker, -1 beyond the end. */
int dh_lab_technique_tracker(size_t index);
/* As dh_write_watch_open, with a tracker that is not for heaps; never over a heap's memory. */
int dh_lab_watch_open(uint64_t address, uint64_t pages_count, int tracker,
                      dh_write_watch **watch_out, char *why_out, size_t why_size);
/* A functional test: 0, or why it does not work here in text_out. May be called by any thread. */
int dh_lab_probe(size_t index, char *text_out, size_t text_size);

/* Is it safe to let LMDB open this data file? Walks every B-tree that can be reached from the newest
 * commit, without mapping the file; values are not read. 0: sound. DH_E_CORRUPT: text_out says what
 * and where. DH_E_FORMAT: not an LMDB 0.9 file, or one that no heap makes. EAGAIN: somebody wrote
 * meanwhile. Else an errno. Any thread. */
int dh_index_check(int fd, uint64_t file_bytes, char *text_out, size_t text_size);

/* Hooks for tests: named places that can be made to fail or be left out, or where the process dies
 * (rc DH_FAULT_KILL, by SIGKILL). Zero resets all. */
enum { DH_FAULT_KILL = -1000 };
int dh_fault_set(const char *name, uint64_t after_count, int rc);
uint64_t dh_fault_hits(const char *name);
/* CDEF-END */

/* How the core stops the world; set once after open. NULL functions mean nobody else runs. */
typedef struct {
    void (*stop)(void *context);
    void (*resume)(void *context);
    void *context;
    /* NULL, or told in an allocation that a collection is due: returns 0 when it was heard. Must not
     * touch the heap. */
    int (*due)(void *context);
} dh_world;
void dh_heap_set_world(dh_heap *heap, const dh_world *world);

#endif
