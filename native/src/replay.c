/* replay.c -- deltas played back over base files without a heap, as far as they can be read.
 *
 * For verify: where load.c refuses a heap whole, this goes on, remembers which pages came out wrong
 * and shows what is left. Holds 4 KiB for each page that deltas touch; base files are mapped
 * read-only and never beyond what they have. Must trust nothing that it is given.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "delta.h"
#include "heap.h"

#define BAD_KEPT_MAX 4096u
#define ROOM_MIN 64u

typedef struct {
    uint32_t extent_no;
    uint64_t version;
    uint8_t *view;  /* NULL: zeros */
    uint32_t pages; /* mapped      */
} replay_base;

typedef struct {
    dh_pgno pgno;
    bool is_bad;
    uint8_t *bytes;
} replay_page;

typedef struct {
    dh_pgno pgno;
    uint64_t commit_id;
} replay_bad;

struct dh_replay {
    replay_base *bases; /* sorted by extent */
    size_t bases_count, bases_room;
    replay_page *pages; /* open addressing, power of two; bytes NULL: empty */
    size_t pages_count, pages_room;
    replay_bad bad[BAD_KEPT_MAX];
    uint64_t bad_count;
};

/* --- bases ------------------------------------------------------------------------------------ */

/* Where the extent stands, or where it would be put. */
static size_t base_place(const dh_replay *replay, uint32_t extent_no)
{
    size_t low = 0, high = replay->bases_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (replay->bases[middle].extent_no < extent_no)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static replay_base *base_find(const dh_replay *replay, uint32_t extent_no)
{
    size_t at = base_place(replay, extent_no);
    bool is_there = at < replay->bases_count && replay->bases[at].extent_no == extent_no;
    return is_there ? &replay->bases[at] : NULL;
}

static int base_make(dh_replay *replay, uint32_t extent_no, replay_base **base_out)
{
    size_t at = base_place(replay, extent_no);
    if (at == replay->bases_count || replay->bases[at].extent_no != extent_no) {
        if (replay->bases_count == replay->bases_room) {
            size_t room = replay->bases_room ? replay->bases_room * 2 : ROOM_MIN;
            replay_base *bases = realloc(replay->bases, room * sizeof *bases);
            if (bases == NULL)
                return ENOMEM;
            replay->bases = bases;
            replay->bases_room = room;
        }
        memmove(replay->bases + at + 1, replay->bases + at,
                (replay->bases_count - at) * sizeof *replay->bases);
        replay->bases_count++;
        replay->bases[at] = (replay_base){extent_no, 0, NULL, 0};
    }
    *base_out = &replay->bases[at];
    return 0;
}

static void base_unmap(replay_base *base)
{
    if (base->view != NULL)
        munmap(base->view, base->pages * (size_t)DH_PAGE_BYTES);
    base->view = NULL;
    base->pages = 0;
}

/* As much of the pages as the file has. */
static int base_map(replay_base *base, int fd, uint32_t file_pages)
{
    struct stat file;

    if (fd < 0 || file_pages == 0)
        return 0;
    if (fstat(fd, &file) != 0)
        return errno;
    uint64_t there = (uint64_t)file.st_size / DH_PAGE_BYTES;
    uint32_t pages = there < file_pages ? (uint32_t)there : file_pages;
    if (pages == 0)
        return 0;
    /* Writable, though nothing writes to it here: dh_replay_show moves it into a heap. */
    void *view =
        mmap(NULL, pages * (size_t)DH_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (view == MAP_FAILED)
        return errno;
    base->view = view;
    base->pages = pages;
    return 0;
}

/* --- pages ------------------------------------------------------------------------------------ */

static size_t page_home(size_t room, dh_pgno pgno)
{
    return (size_t)((pgno * (uint64_t)0x9E3779B97F4A7C15u) >> 32) & (room - 1);
}

/* Its slot, or the empty one where it would be put. */
static replay_page *page_slot(const dh_replay *replay, dh_pgno pgno)
{
    size_t mask = replay->pages_room - 1, i = page_home(replay->pages_room, pgno);
    while (replay->pages[i].bytes != NULL && replay->pages[i].pgno != pgno)
        i = (i + 1) & mask;
    return &replay->pages[i];
}

static int pages_grow(dh_replay *replay)
{
    dh_replay larger = {.pages_room = replay->pages_room ? replay->pages_room * 2 : ROOM_MIN};

    larger.pages = calloc(larger.pages_room, sizeof *larger.pages);
    if (larger.pages == NULL)
        return ENOMEM;
    for (size_t i = 0; i < replay->pages_room; i++)
        if (replay->pages[i].bytes != NULL)
            *page_slot(&larger, replay->pages[i].pgno) = replay->pages[i];
    free(replay->pages);
    replay->pages = larger.pages;
    replay->pages_room = larger.pages_room;
    return 0;
}

/* What the base says of a page, NULL: zeros. */
static const uint8_t *base_page(const dh_replay *replay, dh_pgno pgno)
{
    const replay_base *base = base_find(replay, dh_extent_of(pgno));
    uint32_t index = pgno % DH_EXTENT_PAGES;
    return base != NULL && base->view != NULL && index < base->pages
               ? base->view + index * (size_t)DH_PAGE_BYTES
               : NULL;
}

/* The page as it is so far, to be changed. */
static int page_make(dh_replay *replay, dh_pgno pgno, replay_page **page_out)
{
    if (2 * (replay->pages_count + 1) > replay->pages_room) {
        int rc = pages_grow(replay);
        if (rc != 0)
            return rc;
    }
    replay_page *page = page_slot(replay, pgno);
    if (page->bytes == NULL) {
        const uint8_t *from = base_page(replay, pgno);
        page->bytes = malloc(DH_PAGE_BYTES);
        if (page->bytes == NULL)
            return ENOMEM;
        memcpy(page->bytes, from != NULL ? from : dh_zero_page, DH_PAGE_BYTES);
        page->pgno = pgno;
        page->is_bad = false;
        replay->pages_count++;
    }
    *page_out = page;
    return 0;
}

/* Forget the pages of one extent; the table is built anew, for rows may stand on its way. */
static int pages_drop(dh_replay *replay, uint32_t extent_no)
{
    replay_page *old = replay->pages;
    size_t room = replay->pages_room;

    if (replay->pages_count == 0)
        return 0;
    replay->pages = calloc(room, sizeof *replay->pages);
    if (replay->pages == NULL) {
        replay->pages = old;
        return ENOMEM;
    }
    replay->pages_count = 0;
    for (size_t i = 0; i < room; i++) {
        if (old[i].bytes == NULL)
            continue;
        if (dh_extent_of(old[i].pgno) == extent_no) {
            free(old[i].bytes);
            continue;
        }
        *page_slot(replay, old[i].pgno) = old[i];
        replay->pages_count++;
    }
    free(old);
    return 0;
}

/* --- chunks ----------------------------------------------------------------------------------- */

static int apply_payload(uint8_t *bytes, const dh_delta_entry *entry, const uint8_t *payload)
{
    switch (entry->form) {
    case DH_PAGE_WHOLE:
        memcpy(bytes, payload, DH_PAGE_BYTES);
        return 0;
    case DH_PAGE_FREED:
        memset(bytes, 0, DH_PAGE_BYTES);
        return 0;
    case DH_PAGE_FRESH:
        memset(bytes, 0, DH_PAGE_BYTES);
        return dh_diff_apply(bytes, payload, entry->size);
    default:
        return dh_diff_apply(bytes, payload, entry->size);
    }
}

/* A diff against a page that was bad cannot come out right: that is told once. */
static void page_judge(dh_replay *replay, replay_page *page, const dh_delta_entry *entry,
                       uint64_t commit_id, int applied)
{
    bool was_bad = page->is_bad;
    page->is_bad = applied != 0 || (entry->form != DH_PAGE_FREED &&
                                    dh_page_checksum(page->bytes) != entry->checksum);
    if (!page->is_bad || was_bad)
        return;
    if (replay->bad_count++ < BAD_KEPT_MAX)
        replay->bad[replay->bad_count - 1] = (replay_bad){page->pgno, commit_id};
}

static int apply_entry(dh_replay *replay, uint64_t commit_id, const dh_delta_entry *entry,
                       const uint8_t *payload)
{
    const replay_base *base = base_find(replay, dh_extent_of(entry->pgno));
    replay_page *page;

    if (base != NULL && base->version >= commit_id)
        return 0; /* the base file is newer than this delta */
    int rc = page_make(replay, entry->pgno, &page);
    if (rc == 0)
        page_judge(replay, page, entry, commit_id, apply_payload(page->bytes, entry, payload));
    return rc;
}

static int say(char *text_out, size_t text_size, const char *text)
{
    snprintf(text_out, text_size, "%s", text);
    return DH_E_CORRUPT;
}

int dh_replay_chunk(dh_replay *replay, uint64_t commit_id, uint32_t chunk_index,
                    const uint8_t *bytes, size_t size, char *text_out, size_t text_size)
{
    dh_chunk_header header;

    if (dh_chunk_header_decode(bytes, size, &header) != 0)
        return say(text_out, text_size, "its header or checksum is damaged");
    if (header.commit_id != commit_id || header.parent_id != commit_id - 1 ||
        header.chunk_index != chunk_index)
        return say(text_out, text_size, "it belongs to another commit or place");
    const uint8_t *entries = bytes + DH_CHUNK_HEADER_BYTES;
    const uint8_t *payload = entries + (size_t)header.entries_count * DH_ENTRY_BYTES;
    size_t payload_left = header.payload_bytes;
    for (uint32_t i = 0; i < header.entries_count; i++) {
        dh_delta_entry entry;
        if (dh_entry_decode(entries + (size_t)i * DH_ENTRY_BYTES, &entry) != 0 ||
            entry.size > payload_left || entry.pgno == 0)
            return say(text_out, text_size, "an entry is damaged");
        int rc = apply_entry(replay, commit_id, &entry, payload);
        if (rc != 0)
            return rc;
        payload += entry.size;
        payload_left -= entry.size;
    }
    return payload_left == 0 ? 0 : say(text_out, text_size, "bytes are left over");
}

/* --- the replay as a whole -------------------------------------------------------------------- */

int dh_replay_new(dh_replay **replay_out)
{
    *replay_out = calloc(1, sizeof **replay_out);
    return *replay_out != NULL ? 0 : ENOMEM;
}

void dh_replay_free(dh_replay *replay)
{
    for (size_t i = 0; i < replay->bases_count; i++)
        base_unmap(&replay->bases[i]);
    dh_replay_fold(replay);
    free(replay->bases);
    free(replay->pages);
    free(replay);
}

int dh_replay_base(dh_replay *replay, uint32_t extent_no, uint64_t version, int fd,
                   uint32_t file_pages)
{
    replay_base *base;
    int rc = pages_drop(replay, extent_no);
    if (rc == 0)
        rc = base_make(replay, extent_no, &base);
    if (rc != 0)
        return rc;
    base_unmap(base);
    base->version = version;
    return base_map(base, fd, file_pages);
}

void dh_replay_fold(dh_replay *replay)
{
    for (size_t i = 0; i < replay->pages_room; i++)
        free(replay->pages[i].bytes);
    if (replay->pages_room > 0)
        memset(replay->pages, 0, replay->pages_room * sizeof *replay->pages);
    replay->pages_count = 0;
    replay->bad_count = 0;
}

int dh_replay_bad_read(const dh_replay *replay, size_t index, uint32_t *pgno_out,
                       uint64_t *commit_out)
{
    if (index >= replay->bad_count || index >= BAD_KEPT_MAX)
        return DH_E_ABSENT;
    *pgno_out = replay->bad[index].pgno;
    *commit_out = replay->bad[index].commit_id;
    return 0;
}

uint64_t dh_replay_bad_count(const dh_replay *replay) { return replay->bad_count; }
uint64_t dh_replay_pages_count(const dh_replay *replay) { return replay->pages_count; }

/* --- what is left of a heap ------------------------------------------------------------------- */

/* Where a page stands in this process; NULL beyond the capacity. */
static uint8_t *memory_of(dh_heap *heap, uint64_t pgno, uint64_t pages)
{
    if (pgno & DH_PGNO_TABLE) {
        pgno &= ~(uint64_t)DH_PGNO_TABLE;
        return (pgno + pages) * DH_PAGE_BYTES <= heap->table.reserved_bytes
                   ? dh_table_page(&heap->table, (uint32_t)pgno)
                   : NULL;
    }
    return pgno + pages <= heap->arena.capacity_pages ? dh_arena_page(&heap->arena, (dh_pgno)pgno)
                                                      : NULL;
}

static int too_large(const dh_heap *heap)
{
    return dhi_fail(heap, DH_E_FULL, "the heap does not fit its capacity: pass a larger capacity=");
}

static int show_base(dh_heap *heap, replay_base *base)
{
    uint64_t first = (uint64_t)base->extent_no * DH_EXTENT_PAGES;
    uint8_t *to = memory_of(heap, first, base->pages);
    size_t bytes = base->pages * (size_t)DH_PAGE_BYTES;

    if (base->view == NULL)
        return 0;
    if (to == NULL)
        return too_large(heap);
    if (mremap(base->view, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
        return errno;
    base->view = NULL;
    base->pages = 0;
    return 0;
}

int dh_replay_show(dh_replay *replay, dh_heap *heap)
{
    int rc = 0;

    DH_ASSERT(heap->phase == DH_LOADING);
    for (size_t i = 0; rc == 0 && i < replay->bases_count; i++)
        rc = show_base(heap, &replay->bases[i]);
    for (size_t i = 0; rc == 0 && i < replay->pages_room; i++) {
        const replay_page *page = &replay->pages[i];
        if (page->bytes == NULL)
            continue;
        uint8_t *to = memory_of(heap, page->pgno, 1);
        if (to == NULL)
            rc = too_large(heap);
        else
            memcpy(to, page->bytes, DH_PAGE_BYTES);
    }
    return rc;
}
