/* mapping.c -- base files into memory: at open, at the first store, and under a running heap.
 *
 * Contract: mapping.h. Must never leave a hole where memory was: who reads there would die. Where a
 * file cannot be mapped (no mappings left, a file system that cannot) its pages are copied. A file
 * that somebody truncates later is SIGBUS; its size is checked when it is opened, not afterwards.
 */
#include "mapping.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "cycle.h"
#include "extent.h"
#include "fold.h"
#include "gate.h"
#include "lazy.h"

#define PRIVATE_FIXED (MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE)

/* --- views --------------------------------------------------------------------------------------- */

uint32_t dh_view_checksum(const dh_extent *extent, uint32_t index)
{
    uint32_t checksum;
    memcpy(&checksum,
           extent->view + extent->pages_count * (size_t)DH_PAGE_BYTES + DH_TRAILER_HEAD_BYTES +
               index * (size_t)4,
           4);
    return checksum;
}

void dhi_view_unmap(dh_extent *extent)
{
    if (extent->view != NULL)
        munmap((void *)(uintptr_t)extent->view, extent->view_bytes);
    extent->view = NULL;
}

static int map_view(dh_heap *heap, dh_extent *extent, int fd)
{
    size_t bytes = extent->pages_count * (size_t)DH_PAGE_BYTES;
    int rc = dhi_fault("extent.view");

    if (bytes == 0)
        return rc;
    bytes += dh_trailer_bytes(extent->pages_count);
    void *view = rc == 0 ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    if (view == MAP_FAILED) {
        rc = rc != 0 ? rc : errno;
        return dhi_fail(heap, rc,
                        "a base file cannot be mapped (%s): the heap has as many mappings as this "
                        "process may have? See the sysctl vm.max_map_count",
                        strerror(rc));
    }
    extent->view = view;
    extent->view_bytes = bytes;
    return 0;
}

/* Open a base file by its name. What stands in the way of a sound one is damage of the heap. */
static int open_file(dh_heap *heap, const char *name, int *fd_out)
{
    int fd = strchr(name, '/') != NULL
                 ? (errno = ELOOP, -1)
                 : openat(heap->base_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0) {
        *fd_out = fd;
        return 0;
    }
    switch (errno) {
    case ENOENT:
        return dhi_fail(heap, ENOENT, "the base file %s is missing", name);
    case ELOOP:
        return dhi_fail(heap, DH_E_CORRUPT, "the base file %s is a symbolic link: refused", name);
    default:
        return errno;
    }
}

static int map_named_view(dh_heap *heap, dh_extent *extent)
{
    int fd;
    int rc = open_file(heap, extent->file_name, &fd);

    if (rc != 0)
        return rc;
    rc = map_view(heap, extent, fd);
    close(fd);
    return rc;
}

int dh_views_map(dh_heap *heap)
{
    dh_image *image = &heap->image;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < image->data_count; i++) {
        if (image->data[i].pages_count > 0 && image->data[i].view == NULL)
            rc = map_named_view(heap, &image->data[i]);
    }
    return rc;
}

/* --- memory -------------------------------------------------------------------------------------- */

/* Where the pages of an extent live in this process. NULL: beyond the capacity. */
static uint8_t *extent_memory(dh_heap *heap, uint32_t extent_no, uint32_t pages)
{
    uint64_t first = (uint64_t)extent_no * DH_EXTENT_PAGES;
    if (extent_no < DH_EXTENT_TABLE)
        return first + pages <= heap->arena.capacity_pages
                   ? dh_arena_page(&heap->arena, (dh_pgno)first)
                   : NULL;
    first -= (uint64_t)DH_EXTENT_TABLE * DH_EXTENT_PAGES;
    return (first + pages) * DH_PAGE_BYTES <= heap->table.reserved_bytes
               ? dh_table_page(&heap->table, (uint32_t)first)
               : NULL;
}

static int map_memory(uint8_t *memory, uint32_t pages, int fd)
{
    int rc = dhi_fault("extent.map");

    if (rc != 0 || pages == 0)
        return rc;
    if (mmap(memory, pages * (size_t)DH_PAGE_BYTES, PROT_READ | PROT_WRITE, PRIVATE_FIXED, fd, 0) ==
        MAP_FAILED)
        return errno;
    (void)madvise(memory, pages * (size_t)DH_PAGE_BYTES, MADV_NOHUGEPAGE);
    return 0;
}

/* Fresh zeros. */
static int map_nothing(uint8_t *memory, uint32_t pages)
{
    if (pages == 0)
        return 0;
    if (mmap(memory, pages * (size_t)DH_PAGE_BYTES, PROT_READ | PROT_WRITE,
             PRIVATE_FIXED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
        return errno;
    (void)madvise(memory, pages * (size_t)DH_PAGE_BYTES, MADV_NOHUGEPAGE);
    return 0;
}

static bool is_mapped(uint8_t *memory, uint32_t pages)
{
    unsigned char residency[DH_EXTENT_PAGES];
    return mincore(memory, pages * (size_t)DH_PAGE_BYTES, residency) == 0;
}

static int read_pages(dh_heap *heap, uint32_t extent_no, int fd, uint32_t pages, uint8_t *memory)
{
    size_t done = 0, size = pages * (size_t)DH_PAGE_BYTES;
    size_t trailer_size = dh_trailer_bytes(pages);
    int rc = 0;

    while (done < size) {
        ssize_t n = pread(fd, memory + done, size - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        done += (size_t)n;
    }
    uint8_t *trailer = malloc(trailer_size);
    if (trailer == NULL)
        return ENOMEM;
    if (pread(fd, trailer, trailer_size, (off_t)size) != (ssize_t)trailer_size)
        rc = EIO;
    for (uint32_t i = 0; rc == 0 && i < pages; i++) {
        uint32_t checksum;
        memcpy(&checksum, trailer + DH_TRAILER_HEAD_BYTES + i * 4u, 4);
        if (checksum != dh_page_checksum(memory + i * (size_t)DH_PAGE_BYTES))
            rc = dhi_fail(heap, DH_E_CORRUPT, "base file of extent %u: page %u is damaged",
                          extent_no, i);
    }
    free(trailer);
    return rc;
}

static void note_private(dh_heap *heap, uint32_t extent_no, uint32_t pages)
{
    if (extent_no < DH_EXTENT_TABLE)
        dh_bits_set_run(&heap->private_pages, (uint64_t)extent_no * DH_EXTENT_PAGES, pages);
}

/* --- opening ------------------------------------------------------------------------------------- */

/* A failed mapping may have taken away what was there. One that was refused for want of mappings
 * left the memory of the reservation, which is as good. */
static int copy_instead(dh_heap *heap, uint32_t extent_no, int fd, uint32_t pages, uint8_t *memory)
{
    int rc = map_nothing(memory, pages);
    if (rc != 0 && is_mapped(memory, pages))
        rc = 0;
    if (rc == 0)
        rc = read_pages(heap, extent_no, fd, pages, memory);
    if (rc == 0)
        note_private(heap, extent_no, pages);
    return rc;
}

static int load_memory(dh_heap *heap, uint32_t extent_no, int fd, dh_extent *extent)
{
    uint32_t pages = extent->pages_count;
    uint8_t *memory = extent_memory(heap, extent_no, pages);

    if (memory == NULL)
        return dhi_fail(heap, DH_E_FULL,
                        "the heap does not fit its capacity: pass a larger capacity=");
    if (map_memory(memory, pages, fd) != 0)
        return copy_instead(heap, extent_no, fd, pages, memory);
    extent->shown_pages = pages;
    return 0;
}

static int count_pages(dh_heap *heap, const dh_extent_row *row, int fd, uint32_t *pages_out)
{
    uint8_t *trailer;
    int rc = dhi_trailer_read(heap, row->number, row->version, fd, row->file_bytes, row->checksum,
                              &trailer, pages_out);
    if (rc == 0)
        free(trailer);
    return rc;
}

/* name NULL: there is no way back to the file but this descriptor. */
static int load_extent(dh_heap *heap, const dh_extent_row *row, int fd, const char *name)
{
    dh_extent *extent;
    uint32_t pages;
    int rc = count_pages(heap, row, fd, &pages);

    if (rc == 0)
        rc = dh_image_extent_make(heap, row->number, &extent);
    if (rc != 0)
        return rc;
    dhi_view_unmap(extent);
    heap->image.base_pages_count += pages - extent->pages_count;
    extent->version = row->version;
    extent->pages_count = pages;
    if (name != NULL)
        snprintf(extent->file_name, sizeof extent->file_name, "%s", name);
    rc = load_memory(heap, row->number, fd, extent);
    /* Pages of the table are checked one by one, against the trailer. */
    if (rc == 0 && (name == NULL || row->number >= DH_EXTENT_TABLE))
        rc = map_view(heap, extent, fd);
    return rc;
}

int dh_load_extent(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd, uint64_t file_bytes,
                   uint32_t checksum)
{
    dh_extent_row row = {
        .version = version, .file_bytes = file_bytes, .number = extent_no, .checksum = checksum};
    DH_ASSERT(heap->phase == DH_LOADING);
    return load_extent(heap, &row, fd, NULL);
}

static int load_row(dh_heap *heap, const dh_extent_row *row)
{
    struct stat status;
    int fd;

    if (memchr(row->file_name, 0, sizeof row->file_name) == NULL)
        return dhi_fail(heap, DH_E_CORRUPT, "the row of extent %u is damaged", row->number);
    int rc = open_file(heap, row->file_name, &fd);
    if (rc != 0)
        return rc;
    if (fstat(fd, &status) != 0)
        rc = errno;
    else if (!S_ISREG(status.st_mode))
        rc = dhi_fail(heap, DH_E_CORRUPT, "the base file %s is no regular file", row->file_name);
    else if ((uint64_t)status.st_size != row->file_bytes)
        rc = dhi_fail(heap, DH_E_CORRUPT, "the base file %s has a wrong size", row->file_name);
    else
        rc = load_extent(heap, row, fd, row->file_name);
    close(fd);
    return rc;
}

int dh_load_extents(dh_heap *heap, int directory_fd, const dh_extent_row *rows, size_t rows_count)
{
    int rc = 0;

    DH_ASSERT(heap->phase == DH_LOADING && heap->base_fd < 0);
    heap->base_fd = fcntl(directory_fd, F_DUPFD_CLOEXEC, 0);
    if (heap->base_fd < 0)
        return errno;
    for (size_t i = 0; rc == 0 && i < rows_count; i++)
        rc = load_row(heap, &rows[i]);
    return rc;
}

/* --- reading all of it --------------------------------------------------------------------------- */

static int populate(uint8_t *memory, uint32_t pages)
{
    volatile uint8_t sum = 0;

    if (madvise(memory, pages * (size_t)DH_PAGE_BYTES, MADV_POPULATE_READ) == 0)
        return 0;
    if (errno != EINVAL)
        return errno == EFAULT ? EIO : errno;
    for (uint32_t i = 0; i < pages; i++) /* before Linux 5.14 */
        sum = (uint8_t)(sum + memory[i * (size_t)DH_PAGE_BYTES]);
    return 0;
}

static int preload_extent(dh_heap *heap, uint32_t extent_no)
{
    const dh_extent *extent = &heap->image.data[extent_no];
    dh_pgno first = extent_no * DH_EXTENT_PAGES;
    int rc = extent->shown_pages > 0
                 ? populate(dh_arena_page(&heap->arena, first), extent->shown_pages)
                 : 0;

    for (uint32_t i = 0; rc == 0 && i < extent->shown_pages; i++) {
        if (!dh_bits_test(&heap->private_pages, first + i) &&
            dh_page_checksum(dh_arena_page(&heap->arena, first + i)) != dh_view_checksum(extent, i))
            rc = dhi_fail(heap, DH_E_CORRUPT, "base file of extent %u: page %u is damaged",
                          extent_no, i);
    }
    return rc;
}

int dh_load_preload(dh_heap *heap)
{
    DH_ASSERT(heap->phase == DH_RUNNING);
    if (heap->lazy == NULL)
        return 0; /* empty */
    uint64_t free_pages, allocated_bytes;
    int rc = dhi_lazy_count(heap, &free_pages, &allocated_bytes); /* checks the table */
    if (rc == 0)
        rc = dh_views_map(heap);
    for (size_t i = 0; rc == 0 && i < heap->image.data_count; i++)
        rc = preload_extent(heap, (uint32_t)i);
    return rc;
}

/* --- switching under a running heap --------------------------------------------------------------- */

int dhi_view_open(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd, uint64_t file_bytes,
                  uint32_t checksum, dh_extent *fresh_out)
{
    dh_extent_row row = {version, file_bytes, extent_no, checksum, ""};
    *fresh_out = (dh_extent){.version = version};
    int rc = count_pages(heap, &row, fd, &fresh_out->pages_count);

    return rc != 0 ? rc : map_view(heap, fresh_out, fd);
}

void dhi_view_take(dh_heap *heap, dh_extent *extent, const dh_extent *fresh)
{
    uint32_t shown_pages = extent->shown_pages, overlay_count = extent->overlay_count;
    dhi_view_unmap(extent);
    heap->image.base_pages_count += fresh->pages_count - extent->pages_count;
    *extent = *fresh;
    extent->shown_pages = shown_pages; /* the arena still shows what it did */
    extent->overlay_count = overlay_count;
}

int dh_extent_switch(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd,
                     uint64_t file_bytes, uint32_t checksum)
{
    dh_extent *extent, fresh;
    int rc = dh_image_extent_make(heap, extent_no, &extent);

    if (rc == 0)
        rc = dhi_view_open(heap, extent_no, version, fd, file_bytes, checksum, &fresh);
    if (rc != 0)
        return rc;
    dhi_fold_replaced(heap, extent_no);
    dh_image_drop_overlay(heap, extent_no);
    dhi_view_take(heap, extent, &fresh);
    return 0;
}

bool dh_is_file_backed(const dh_heap *heap, dh_pgno pgno)
{
    const dh_extent *extent = dh_image_extent(heap, dh_extent_of(pgno));
    return extent != NULL && pgno % DH_EXTENT_PAGES < extent->shown_pages;
}

/* Pages of the arena that the file does not hold as they are: uncommitted, or in the overlay. */
typedef struct {
    uint8_t *bytes;
    uint16_t *index;
    uint32_t count;
} kept_pages;

static bool is_kept(dh_heap *heap, const dh_bits *written, dh_pgno pgno)
{
    /* Also when it is free: a rollback may find it used again, and does not look at pages that were
     * not written. */
    if (dh_image_is_newer(heap, pgno))
        return true;
    return heap->alloc.kind[pgno] != DH_KIND_FREE &&
           (dh_bits_test(written, pgno) || dh_bits_test(&heap->alloc.changed, pgno)) &&
           !dh_image_same(heap, pgno); /* K4: written is not changed */
}

static void keep_pages(dh_heap *heap, const dh_bits *written, dh_pgno first, uint32_t pages,
                       kept_pages *kept)
{
    kept->count = 0;
    for (uint32_t i = 0; i < pages && first + i < heap->arena.hwm_pages; i++) {
        if (!is_kept(heap, written, first + i))
            continue;
        kept->index[kept->count] = (uint16_t)i;
        memcpy(kept->bytes + kept->count++ * (size_t)DH_PAGE_BYTES,
               dh_arena_page(&heap->arena, first + i), DH_PAGE_BYTES);
    }
}

/* After a failed mapping: memory with what the image says. One that left a hole gave back the
 * mapping that memory of our own needs; one that was refused for want of mappings left the old
 * memory, which is as good, but gives the bytes of some file when it is dropped. Returns how many
 * pages may. */
static uint32_t restore_from_image(dh_heap *heap, dh_pgno first, uint32_t pages)
{
    uint8_t scratch[DH_PAGE_BYTES];
    bool is_own = map_nothing(dh_arena_page(&heap->arena, first), pages) == 0;

    DH_ASSERT(is_own || is_mapped(dh_arena_page(&heap->arena, first), pages));
    for (uint32_t i = 0; i < pages; i++)
        memcpy(dh_arena_page(&heap->arena, first + i), dh_image_read(heap, first + i, scratch),
               DH_PAGE_BYTES);
    dh_bits_set_run(&heap->private_pages, first, pages);
    return is_own ? 0 : pages;
}

/* What the arena shows now: [0, pages_count) the file, [pages_count, was) zeros. */
static int remap(dh_heap *heap, dh_extent *extent, dh_pgno first, int fd)
{
    uint32_t pages = extent->pages_count, was = extent->shown_pages;
    uint8_t *memory = dh_arena_page(&heap->arena, first);
    uint32_t reach = pages > was ? pages : was;
    int rc = map_memory(memory, pages, fd);

    if (rc == 0 && was > pages)
        rc = map_nothing(memory + pages * (size_t)DH_PAGE_BYTES, was - pages);
    if (rc != 0) {
        extent->shown_pages = restore_from_image(heap, first, reach);
    } else {
        for (uint64_t p = first; p < (uint64_t)first + reach; p++)
            dh_bits_clear(&heap->private_pages, p);
        extent->shown_pages = pages;
    }
    for (uint64_t p = first; p < (uint64_t)first + reach; p++)
        heap->alloc.flags[p] &= (uint8_t)~(DH_PAGE_ZERO | DH_PAGE_RELEASED);
    int watched = dh_watch_remapped(heap->watch, first, reach);
    return rc != 0 ? rc : watched;
}

static void put_back(dh_heap *heap, dh_pgno first, const kept_pages *kept)
{
    for (uint32_t i = 0; i < kept->count; i++) {
        dh_pgno pgno = first + kept->index[i];
        memcpy(dh_arena_page(&heap->arena, pgno), kept->bytes + i * (size_t)DH_PAGE_BYTES,
               DH_PAGE_BYTES);
        dh_bits_set(&heap->private_pages, pgno);
    }
}

static bool is_pinned(const dh_alloc *alloc, uint64_t first, uint64_t pages)
{
    for (size_t i = 0; i < alloc->pins_count; i++) {
        if (alloc->pins[i].first < first + pages &&
            first < (uint64_t)alloc->pins[i].first + alloc->pins[i].pages_count)
            return true;
    }
    return false;
}

/* World stopped. A page that is written between the scan and the mapping does not exist: who stores
 * without the world lock does so through an exported buffer, and those pin their extents. */
static int switch_arena(dh_heap *heap, dh_extent *extent, dh_pgno first, int fd, dh_bits *written,
                        kept_pages *kept)
{
    uint32_t reach =
        extent->pages_count > extent->shown_pages ? extent->pages_count : extent->shown_pages;
    if (is_pinned(&heap->alloc, first, DH_EXTENT_PAGES))
        return 0;
    int rc = dh_watch_scan_range(heap->watch, first, reach);
    if (rc != 0) /* the pages count as written, and stay where they are */
        return dhi_fail(heap, rc, "the kernel could not say which pages were written");
    dh_watch_copy(heap->watch, heap->commit_cursor, written, heap->arena.hwm_pages);
    keep_pages(heap, written, first, reach, kept);
    rc = remap(heap, extent, first, fd);
    put_back(heap, first, kept);
    return rc;
}

static uint64_t count_private(const dh_heap *heap, dh_pgno first)
{
    uint64_t count = 0;
    for (uint64_t p = first; p < (uint64_t)first + DH_EXTENT_PAGES && p < heap->arena.hwm_pages;
         p++)
        count += dh_bits_test(&heap->private_pages, p);
    return count;
}

int dh_arena_switch(dh_heap *heap, uint32_t extent_no, int fd, uint64_t *pages_out)
{
    dh_extent *extent = dh_image_extent(heap, extent_no);
    dh_pgno first = extent_no * DH_EXTENT_PAGES;
    dh_bits written = {0};
    kept_pages kept = {0};
    int rc = dhi_verb_gate(heap);

    *pages_out = 0;
    if (rc != 0 || extent == NULL || extent_no >= DH_EXTENT_TABLE || heap->in_flight != NULL ||
        extent->view == NULL)
        return rc;
    rc = dh_bits_init(&written, heap->arena.capacity_pages);
    kept.bytes = malloc(DH_EXTENT_PAGES * (size_t)DH_PAGE_BYTES);
    kept.index = malloc(DH_EXTENT_PAGES * sizeof *kept.index);
    if (rc == 0 && (kept.bytes == NULL || kept.index == NULL))
        rc = ENOMEM;
    if (rc == 0) {
        dhi_world_stop(heap);
        dhi_cycle_halt(heap);
        uint64_t before = count_private(heap, first);
        rc = switch_arena(heap, extent, first, fd, &written, &kept);
        uint64_t after = count_private(heap, first);
        dhi_cycle_go_on(heap);
        *pages_out = before > after ? before - after : 0;
        dhi_world_resume(heap);
    }
    dh_bits_finish(&written);
    free(kept.bytes);
    free(kept.index);
    return rc;
}

size_t dh_extents_private(const dh_heap *heap, uint64_t pages_min, uint32_t *extents_out,
                          size_t max)
{
    size_t count = 0;
    for (uint32_t i = 0; i < heap->image.data_count; i++) {
        if (heap->image.data[i].view != NULL &&
            count_private(heap, i * DH_EXTENT_PAGES) >= pages_min && count++ < max)
            extents_out[count - 1] = i;
    }
    return count;
}
