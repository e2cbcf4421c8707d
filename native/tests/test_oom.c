/* test_oom.c -- memory runs out at the n-th allocation of a heap's life, for every n.
 *
 * A life opens a heap from what is stored, changes it, commits, rolls back, folds, collects and checks.
 * The linker puts the wrappers below in place of malloc, calloc, realloc and mmap (Makefile); the n-th
 * call of them all fails once. A step that fails must leave things as they were, and succeed when it is
 * tried again. Under ASan this also shows that no failure leaks.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "capture.h"
#include "check.h"
#include "dict.h"

#define CAPACITY_BYTES (32u << 20)
#define EXTENTS_MAX 16u
#define CHUNKS_MAX 256u
#define KEYS_MAX 4096u
#define LARGE_BYTES (3u << 20) /* rewritten wholly, its extent becomes a base file */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);

/* --- the failure ------------------------------------------------------------------------------ */

static long fatal_number = -1; /* -1: none fails */
static long calls_count;
static bool was_met;

static bool is_refused(void)
{
    if (calls_count++ != fatal_number)
        return false;
    was_met = true;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t size) { return is_refused() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size)
{
    return is_refused() ? NULL : __real_calloc(count, size);
}
void *__wrap_realloc(void *old, size_t size)
{
    return is_refused() ? NULL : __real_realloc(old, size);
}
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return is_refused() ? MAP_FAILED : __real_mmap(address, size, protection, flags, fd, offset);
}

/* --- what is stored --------------------------------------------------------------------------- */

typedef struct {
    uint8_t *bytes;
    size_t size;
} stored_chunk;

typedef struct {
    uint32_t number, checksum;
    uint64_t version, file_bytes;
    int fd;
} stored_extent;

typedef struct {
    stored_chunk chunks[CHUNKS_MAX];
    stored_extent extents[EXTENTS_MAX];
    size_t chunks_count, extents_count;
    dh_state state;
    uint64_t commit_id;
    int64_t values[KEYS_MAX]; /* of the dict; 0: no such key */
    uint8_t large_byte;
} store;

static store disk;
static int64_t values[KEYS_MAX]; /* what memory should show */
static uint8_t large_byte;

static void keep_chunks(const dh_capture *capture)
{
    for (size_t i = 0; i < dh_commit_chunks_count(capture); i++) {
        CHECK(disk.chunks_count < CHUNKS_MAX);
        stored_chunk *chunk = &disk.chunks[disk.chunks_count++];
        const uint8_t *bytes = dh_commit_chunk(capture, i, &chunk->size);
        chunk->bytes = __real_malloc(chunk->size);
        memcpy(chunk->bytes, bytes, chunk->size);
    }
}

static void keep_extent(const stored_extent *extent)
{
    size_t i = 0;
    while (i < disk.extents_count && disk.extents[i].number != extent->number)
        i++;
    if (i < disk.extents_count)
        close(disk.extents[i].fd);
    else
        disk.extents_count++;
    CHECK(disk.extents_count <= EXTENTS_MAX);
    disk.extents[i] = *extent;
}

static int write_extents(dh_heap *heap, const dh_capture *capture, const uint32_t *numbers,
                         size_t count, uint64_t version, stored_extent *extents_out)
{
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        stored_extent *extent = &extents_out[i];
        *extent = (stored_extent){.number = numbers[i], .version = version};
        extent->fd = memfd_create("extent", MFD_CLOEXEC);
        CHECK(extent->fd >= 0);
        if (rc == 0)
            rc = dh_extent_write(heap, capture, numbers[i], version, extent->fd,
                                 &extent->file_bytes, &extent->checksum);
    }
    return rc;
}

static int switch_extents(dh_heap *heap, const stored_extent *extents, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int rc = dh_extent_switch(heap, extents[i].number, extents[i].version, extents[i].fd,
                                  extents[i].file_bytes, extents[i].checksum);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static void drop_extents(const stored_extent *extents, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(extents[i].fd);
}

/* --- steps: each returns 0, or a code and has changed nothing ---------------------------------- */

static dh_heap *heap;

static int step_open(void)
{
    dh_options options = {CAPACITY_BYTES, DH_TRACKER_COMPARE, {11, 22}};
    int rc = dh_heap_open(&options, &heap);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < disk.extents_count; i++) {
        const stored_extent *e = &disk.extents[i];
        rc = dh_load_extent(heap, e->number, e->version, e->fd, e->file_bytes, e->checksum);
    }
    for (size_t i = 0; rc == 0 && i < disk.chunks_count; i++)
        rc = dh_load_delta(heap, disk.chunks[i].bytes, disk.chunks[i].size);
    if (rc == 0)
        rc = dh_load_finish(heap, disk.commit_id > 0 ? &disk.state : NULL);
    if (rc != 0)
        dh_heap_close(heap);
    return rc;
}

static int step_change(void)
{
    int rc = dh_store_begin(heap); /* whoever stores passes the gate: lazy.h, L2 */
    if (rc != 0)
        return rc;
    for (int i = 0; i < 40; i++) {
        uint64_t k = check_random_below(KEYS_MAX);
        int64_t value = (int64_t)(1 + check_random_below(1000));
        bool was_new;
        dh_key key;
        dh_key_from_int(heap, (int64_t)k, &key);
        rc = dh_dict_set(heap, heap->root, &key, dh_int((int64_t)k), dh_int(value), &was_new);
        if (rc != 0)
            return rc;
        values[k] = value;
    }
    return 0;
}

/* The large buffer under a key of its own; NULL: there is none. */
static uint8_t *large_data(void)
{
    dh_word buffer = DH_EMPTY;
    uint8_t *data;
    uint64_t size;
    dh_key key;

    dh_key_from_int(heap, KEYS_MAX, &key);
    if (dh_dict_get(heap, heap->root, &key, &buffer) != 0 || buffer == DH_EMPTY)
        return NULL;
    CHECK_EQ(dh_buffer_read(heap, buffer, &data, &size), 0);
    CHECK_EQ(size, LARGE_BYTES);
    return data;
}

static int make_large(void)
{
    dh_word buffer;
    bool was_new;
    dh_key key;
    int rc = dh_buffer_new(heap, LARGE_BYTES, &buffer);

    if (rc != 0)
        return rc;
    dh_key_from_int(heap, KEYS_MAX, &key);
    return dh_dict_set(heap, heap->root, &key, dh_int(KEYS_MAX), buffer, &was_new);
}

static int step_change_large(void)
{
    int rc = dh_store_begin(heap);
    if (rc != 0)
        return rc;
    if (large_data() == NULL) {
        rc = make_large();
        if (rc != 0)
            return rc;
    }
    large_byte = (uint8_t)(large_byte % 255 + 1); /* 0: there is none */
    memset(large_data(), large_byte, LARGE_BYTES);
    return 0;
}

static int take(dh_capture **capture_out)
{
    int rc = dh_commit_capture(heap, capture_out);
    return rc != 0
               ? rc
               : dh_commit_encode(heap, *capture_out, disk.commit_id, disk.commit_id + 1, 1u << 20);
}

static int step_commit(void)
{
    dh_capture *capture = NULL;
    stored_extent extents[EXTENTS_MAX];
    uint32_t numbers[EXTENTS_MAX] = {0};
    size_t count = 0;
    int rc = take(&capture);

    if (rc == 0) {
        count = dh_commit_rebased_count(capture);
        CHECK(count <= EXTENTS_MAX);
        for (size_t i = 0; i < count; i++)
            numbers[i] = dh_commit_rebased_extent(capture, i);
        rc = write_extents(heap, capture, numbers, count, disk.commit_id + 1, extents);
    }
    if (rc != 0) {
        drop_extents(extents, count);
        if (capture != NULL)
            dh_commit_failed(heap, capture);
        return rc;
    }
    keep_chunks(capture); /* from here on it is durable */
    dh_commit_state(capture, &disk.state);
    disk.commit_id++;
    memcpy(disk.values, values, sizeof(values));
    disk.large_byte = large_byte;
    for (size_t i = 0; i < count; i++)
        keep_extent(&extents[i]);
    rc = switch_extents(heap, extents, count);
    if (rc == 0)
        rc = dh_commit_done(heap, &capture);
    if (rc != 0) { /* settling can be begun again */
        CHECK(capture != NULL);
        CHECK_EQ(switch_extents(heap, extents, count), 0);
        CHECK_EQ(dh_commit_done(heap, &capture), 0);
    }
    CHECK(capture == NULL);
    return 0;
}

static int step_fold(void)
{
    stored_extent extents[EXTENTS_MAX];
    uint32_t numbers[EXTENTS_MAX];
    size_t count = dh_extents_unfolded(heap, numbers, EXTENTS_MAX);

    CHECK(count <= EXTENTS_MAX);
    int rc = write_extents(heap, NULL, numbers, count, disk.commit_id, extents);
    if (rc != 0) {
        drop_extents(extents, count);
        return rc;
    }
    for (size_t i = 0; i < disk.chunks_count; i++)
        free(disk.chunks[i].bytes);
    disk.chunks_count = 0;
    for (size_t i = 0; i < count; i++)
        keep_extent(&extents[i]);
    rc = switch_extents(heap, extents, count);
    return rc != 0 ? switch_extents(heap, extents, count) : 0;
}

static int write_folded(const uint32_t *numbers, size_t from, size_t to, uint64_t version,
                        stored_extent *extents_out)
{
    int rc = 0;
    for (size_t i = from; i < to; i++) {
        stored_extent *extent = &extents_out[i];
        *extent = (stored_extent){.number = numbers[i], .version = version};
        extent->fd = memfd_create("extent", MFD_CLOEXEC);
        CHECK(extent->fd >= 0);
        if (rc == 0)
            rc = dh_fold_write(heap, numbers[i], version, extent->fd, &extent->file_bytes,
                               &extent->checksum);
    }
    return rc;
}

/* Where a commit beside the fold has made a newer base, that stays. */
static int switch_folded(const stored_extent *extents, size_t count)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = dh_fold_switch(heap, extents[i].number, extents[i].version, extents[i].fd,
                            extents[i].file_bytes, extents[i].checksum);
    return rc;
}

static uint64_t base_version(uint32_t number)
{
    for (size_t i = 0; i < disk.extents_count; i++)
        if (disk.extents[i].number == number)
            return disk.extents[i].version;
    return 0;
}

/* Its first file is written before a commit, the others behind it. */
static int step_fold_beside(void)
{
    stored_extent extents[EXTENTS_MAX];
    uint32_t numbers[EXTENTS_MAX] = {0};
    size_t count, chunks_count = disk.chunks_count, written = 0;
    uint64_t version = disk.commit_id;
    int rc = dh_fold_begin(heap, &count);

    CHECK(count <= EXTENTS_MAX);
    for (size_t i = 0; rc == 0 && i < count; i++)
        numbers[i] = dh_fold_extent(heap, i);
    if (rc == 0 && count > 0) {
        rc = write_folded(numbers, 0, 1, version, extents);
        written = 1;
    }
    if (rc == 0)
        rc = step_change_large();
    if (rc == 0)
        rc = step_commit();
    if (rc == 0) {
        rc = write_folded(numbers, written, count, version, extents);
        written = count;
    }
    if (rc != 0) {
        drop_extents(extents, written);
        dh_fold_end(heap);
        return rc;
    }
    for (size_t i = 0; i < chunks_count; i++)
        free(disk.chunks[i].bytes);
    disk.chunks_count -= chunks_count;
    memmove(disk.chunks, disk.chunks + chunks_count, disk.chunks_count * sizeof disk.chunks[0]);
    rc = switch_folded(extents, count);
    if (rc != 0)
        CHECK_EQ(switch_folded(extents, count), 0);
    dh_fold_end(heap);
    for (size_t i = 0; i < count; i++) {
        if (base_version(extents[i].number) > version)
            close(extents[i].fd);
        else
            keep_extent(&extents[i]);
    }
    return 0;
}

static int step_rollback(void)
{
    uint64_t pages, stop_ns;
    int rc = dh_show_state(heap, NULL, &pages, &stop_ns);
    if (rc == 0) {
        memcpy(values, disk.values, sizeof(values));
        large_byte = disk.large_byte;
    }
    return rc;
}

static int step_savepoint(void)
{
    static int64_t saved[KEYS_MAX];
    dh_capture *savepoint = NULL;
    uint64_t pages, stop_ns;
    int rc = dh_savepoint_take(heap, &savepoint);

    if (rc != 0)
        return rc;
    memcpy(saved, values, sizeof(values));
    rc = step_change();
    CHECK_EQ(dh_show_state(heap, savepoint, &pages, &stop_ns), 0); /* needs no memory: R4 */
    dh_savepoint_drop(heap, savepoint);
    memcpy(values, saved, sizeof(values));
    return rc;
}

static int step_collect(void)
{
    dh_collect_stats stats;
    return dh_collect(heap, &stats);
}

static int step_collect_young(void)
{
    dh_collect_stats stats;
    return dh_collect_young(heap, &stats);
}

/* Changes fall into it: frees that wait need memory, or are left to the next collection. */
static int step_collect_in_steps(void)
{
    dh_collect_stats stats;
    int is_over = 0, rc = dh_cycle_begin(heap, &stats);

    if (rc == EBUSY) /* tried again after a change failed */
        rc = 0;
    if (rc == 0)
        rc = step_change();
    while (rc == 0 && !is_over)
        rc = dh_cycle_mark(heap, 1000, &is_over);
    if (rc == 0)
        rc = dh_cycle_finish(heap, &stats);
    if (rc == 0)
        rc = step_change();
    for (is_over = 0; rc == 0 && !is_over;)
        rc = dh_cycle_sweep(heap, 1, &stats, &is_over);
    return rc;
}

static int step_pending(void)
{
    uint64_t pages, bytes;
    return dh_pending(heap, &pages, &bytes);
}

static int step_check(void)
{
    uint64_t cells, problems;
    int rc = dh_check(heap, &cells, &problems);
    if (rc == 0)
        CHECK_EQ(problems, 0);
    return rc;
}

/* A container below the root, with a way to it that has a step; else the root. */
static dh_word some_container(void)
{
    dh_dict_pos pos = {0};
    dh_word key, value;
    while (dh_dict_next(heap, heap->root, &pos, &key, &value) == 1)
        if (dh_is_container(value))
            return value;
    return heap->root;
}

static int step_survey(void)
{
    dh_census *stacked = NULL, *lined = NULL;
    dh_growth *growth = NULL;
    dh_path *path = NULL;

    int rc = dh_census_take(heap, 0, &stacked);
    if (rc == 0)
        rc = dh_census_take(heap, DH_CENSUS_CONTAINERS, &lined);
    if (rc == 0)
        rc = dh_growth_new(lined, lined, 5, &growth);
    if (rc == 0)
        rc = dh_why(heap, some_container(), &path);
    if (path != NULL)
        dh_path_free(path);
    if (growth != NULL)
        dh_growth_free(growth);
    if (lined != NULL)
        dh_census_free(lined);
    if (stacked != NULL)
        dh_census_free(stacked);
    return rc;
}

/* --- a life ----------------------------------------------------------------------------------- */

static void expect_values(void)
{
    for (uint64_t k = 0; k < KEYS_MAX; k++) {
        dh_word value = DH_EMPTY;
        dh_key key;
        dh_key_from_int(heap, (int64_t)k, &key);
        int rc = dh_dict_get(heap, heap->root, &key, &value);
        CHECK(values[k] == 0 ? rc != 0 || value == DH_EMPTY
                             : rc == 0 && value == dh_int(values[k]));
    }
    const uint8_t *bytes = large_data();
    CHECK((bytes != NULL) == (large_byte != 0));
    if (bytes != NULL)
        CHECK(bytes[0] == large_byte && memcmp(bytes, bytes + 1, LARGE_BYTES - 1) == 0);
}

/* Returns whether the step met the failure. */
static bool run(int (*step)(void))
{
    bool was_met_before = was_met;
    int rc = step();

    if (rc != 0) {
        CHECK(was_met && !was_met_before);
        if (rc != ENOMEM && rc != DH_E_FULL)
            fprintf(stderr, "allocation %ld: %s\n", fatal_number, dh_error_name(rc));
        CHECK(rc == ENOMEM || rc == DH_E_FULL);
        CHECK_EQ(step(), 0);
    }
    if (was_met && !was_met_before) {
        expect_values();
        CHECK_EQ(step_check(), 0);
    }
    return rc != 0;
}

static void live(void)
{
    static int (*const steps[])(void) = {
        step_change,    step_commit,        step_change,           step_pending, step_rollback,
        step_savepoint, step_change_large,  step_commit,           step_change,  step_commit,
        step_collect,   step_collect_young, step_collect_in_steps, step_fold,    step_check,
        step_change,    step_commit,        step_change,           step_commit,  step_fold_beside,
        step_survey,    step_check,
    };

    run(step_open);
    memcpy(values, disk.values, sizeof(values));
    large_byte = disk.large_byte;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        run(steps[i]);
    expect_values();
    dh_heap_close(heap);
}

int main(int argc, char **argv)
{
    long failures = 0;

    check_begin(argc, argv);
    live(); /* so that a life has something to open */
    for (long n = 0;; n++) {
        calls_count = 0;
        was_met = false;
        fatal_number = n;
        live();
        fatal_number = -1;
        if (!was_met)
            break;
        failures++;
    }
    CHECK(failures > 20);
    printf("memory ran out at %ld places\n", failures);
    return 0;
}
