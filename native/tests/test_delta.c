/* test_delta.c -- chunks, entries and diffs; and the committed image that is built from them.
 *
 * Encoding then decoding gives the same; a diff gives the page it was made for, within the bounds of
 * its size; every cut and every flipped bit of a chunk is a code, never a wrong page. The image is
 * compared with plain copies of pages. At the end a short run of the fuzzer.
 */
#define DH_FUZZ_NO_MAIN
#include "../fuzz/fuzz_delta.c"
#include "gate.h"

#include <sys/mman.h>
#include <unistd.h>

static void fill_random(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)check_random();
}

/* --- diffs --------------------------------------------------------------------------------------- */

static uint32_t count_words(const uint8_t *from, const uint8_t *to)
{
    uint32_t words = 0;

    for (size_t at = 0; at < DH_PAGE_BYTES; at += 8)
        words += memcmp(from + at, to + at, 8) != 0;
    return words;
}

static uint32_t count_runs(const uint8_t *from, const uint8_t *to)
{
    uint32_t runs = 0, length = 0;

    for (size_t at = 0; at < DH_PAGE_BYTES; at += 8) {
        length = memcmp(from + at, to + at, 8) != 0 ? length + 1 : 0;
        runs += length % DH_DIFF_RUN_WORDS_MAX == 1;
    }
    return runs;
}

static void check_diff(const uint8_t *from, const uint8_t *to)
{
    uint8_t zeros[DH_PAGE_BYTES] = {0}, page[DH_PAGE_BYTES], diff[FUZZ_MERGE_ROOM];
    const uint8_t *base = from != NULL ? from : zeros;
    uint32_t words, expected_words = count_words(base, to);
    size_t expected = expected_words * 8 + count_runs(base, to) * 2;

    CHECK_EQ(dh_diff_encode(from, to, diff, sizeof(diff), &words), expected);
    CHECK_EQ(words, expected_words);
    memcpy(page, base, DH_PAGE_BYTES);
    CHECK_EQ(dh_diff_apply(page, diff, expected), 0);
    CHECK_EQ(memcmp(page, to, DH_PAGE_BYTES), 0);
    if (expected > 0) { /* one byte too little room: says so, and counts all the same */
        uint8_t *tight = malloc(expected);
        CHECK(tight != NULL);
        CHECK_EQ(dh_diff_encode(from, to, tight, expected, &words), expected);
        tight = realloc(tight, expected - 1);
        CHECK(tight != NULL);
        CHECK_EQ(dh_diff_encode(from, to, tight, expected - 1, &words), DH_DIFF_TOO_LARGE);
        CHECK_EQ(words, expected_words);
        free(tight);
    }
}

static void a_diff_gives_the_page_it_was_made_for(void)
{
    uint8_t from[DH_PAGE_BYTES], to[DH_PAGE_BYTES];

    for (int round = 0; round < 3000; round++) {
        fill_random(from, sizeof(from));
        fuzz_change_page(from, to);
        check_diff(from, to);
        check_diff(NULL, to);
    }
    check_diff(from, from);
    fill_random(to, sizeof(to));
    check_diff(from, to);
    memset(to, 0, sizeof(to));
    check_diff(NULL, to);
}

static void single_words_and_alternate_words_are_found(void)
{
    uint8_t from[DH_PAGE_BYTES] = {0}, to[DH_PAGE_BYTES] = {0};

    for (size_t i = 0; i < DH_PAGE_BYTES; i++) {
        to[i] = 1;
        check_diff(from, to);
        to[i] = 0;
    }
    for (size_t at = 0; at < DH_PAGE_BYTES; at += 16)
        to[at] = 1;
    check_diff(from, to); /* the most runs: 256 of one word */
}

static void a_run_beyond_the_page_is_refused(void)
{
    uint8_t page[DH_PAGE_BYTES] = {0}, diff[2 + 128 * 8] = {0};

    for (unsigned first = 0; first < 512; first++) {
        for (unsigned count = 1; count <= 128; count += 1 + count / 3) {
            size_t size = 2 + count * (size_t)8;
            fuzz_put(diff, first | (count - 1) << 9, 2);
            CHECK_EQ(dh_diff_apply(page, diff, size), first + count <= 512 ? 0 : DH_E_FORMAT);
            CHECK_EQ(dh_diff_apply(page, diff, size - 1), DH_E_FORMAT);
        }
    }
    CHECK_EQ(dh_diff_apply(page, diff, 1), DH_E_FORMAT);
    CHECK_EQ(dh_diff_apply(page, diff, 0), 0);
}

/* --- chunks --------------------------------------------------------------------------------------- */

static void a_chunk_decodes_to_what_was_encoded(void)
{
    static uint8_t chunk[FUZZ_CHUNK_BYTES_MAX];

    for (int round = 0; round < 500; round++) {
        uint8_t entry_bytes[DH_ENTRY_BYTES];
        dh_chunk_header in = {check_random(), check_random(), (uint32_t)check_random(), 3, 100},
                        out;
        dh_delta_entry entry = {(dh_pgno)check_random(), (uint32_t)check_random(),
                                (uint16_t)check_random_below(DH_PAGE_BYTES + 1), DH_PAGE_DIFF};
        dh_delta_entry entry_out;
        size_t body = 3 * DH_ENTRY_BYTES + 100;

        fill_random(chunk, DH_CHUNK_HEADER_BYTES + body);
        dh_chunk_header_encode(chunk, &in, chunk + DH_CHUNK_HEADER_BYTES, body);
        CHECK_EQ(dh_chunk_header_decode(chunk, DH_CHUNK_HEADER_BYTES + body, &out), 0);
        CHECK(in.parent_id == out.parent_id && in.commit_id == out.commit_id);
        CHECK(in.chunk_index == out.chunk_index && in.entries_count == out.entries_count &&
              in.payload_bytes == out.payload_bytes);
        dh_entry_encode(entry_bytes, &entry);
        CHECK_EQ(dh_entry_decode(entry_bytes, &entry_out), 0);
        CHECK(entry.pgno == entry_out.pgno && entry.checksum == entry_out.checksum);
        CHECK(entry.size == entry_out.size && entry.form == entry_out.form);
    }
}

static void forms_and_sizes_that_cannot_be_are_refused(void)
{
    for (unsigned form = 0; form < 256; form++) {
        for (unsigned size = 0; size < 65536; size += size > 4200 ? 997 : 1) {
            uint8_t bytes[DH_ENTRY_BYTES];
            dh_delta_entry entry = {1, 2, (uint16_t)size, (uint8_t)form}, out;
            bool is_good =
                form == DH_PAGE_WHOLE ? size == DH_PAGE_BYTES
                : form == DH_PAGE_FREED
                    ? size == 0
                    : size <= DH_PAGE_BYTES && (form == DH_PAGE_DIFF || form == DH_PAGE_FRESH);
            dh_entry_encode(bytes, &entry);
            CHECK_EQ(dh_entry_decode(bytes, &out), is_good ? 0 : DH_E_FORMAT);
        }
    }
}

static void every_cut_and_every_flip_is_found(void)
{
    static uint8_t chunk[FUZZ_CHUNK_BYTES_MAX];
    dh_chunk_header header;
    size_t size;

    do {
        size = fuzz_make_chunk(chunk);
    } while (size < 500 || size > 3000);
    CHECK_EQ(dh_chunk_header_decode(chunk, size, &header), 0);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *copy = malloc(cut > 0 ? cut : 1);
        CHECK(copy != NULL);
        memcpy(copy, chunk, cut);
        CHECK_EQ(dh_chunk_header_decode(copy, cut, &header), DH_E_FORMAT);
        free(copy);
    }
    for (size_t bit = 0; bit < size * 8; bit++) {
        chunk[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_EQ(dh_chunk_header_decode(chunk, size, &header), DH_E_FORMAT);
        chunk[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK_EQ(dh_chunk_header_decode(chunk, size, &header), 0);
}

static void sizes_that_overflow_are_refused(void)
{
    uint8_t chunk[DH_CHUNK_HEADER_BYTES + 20] = {0};
    dh_chunk_header in = {1, 2, 0, 0, 20}, out;

    dh_chunk_header_encode(chunk, &in, chunk + DH_CHUNK_HEADER_BYTES, 20);
    CHECK_EQ(dh_chunk_header_decode(chunk, sizeof(chunk), &out), 0);
    for (uint64_t entries = 1; entries <= UINT32_MAX; entries = entries * 2 + 1) {
        in.entries_count = (uint32_t)entries;
        in.payload_bytes = (uint32_t)(20 - entries * DH_ENTRY_BYTES); /* right modulo 2^32 */
        dh_chunk_header_encode(chunk, &in, chunk + DH_CHUNK_HEADER_BYTES, 20);
        CHECK_EQ(dh_chunk_header_decode(chunk, sizeof(chunk), &out),
                 entries * DH_ENTRY_BYTES <= 20 ? 0 : DH_E_FORMAT);
    }
}

/* --- the committed image ---------------------------------------------------------------------------- */

#define IMAGE_PAGES 64u

static uint8_t model[IMAGE_PAGES][DH_PAGE_BYTES];

static void check_image(const dh_heap *heap)
{
    uint8_t scratch[DH_PAGE_BYTES];

    for (dh_pgno pgno = 1; pgno < IMAGE_PAGES; pgno++)
        CHECK_EQ(memcmp(dh_image_read(heap, pgno, scratch), model[pgno], DH_PAGE_BYTES), 0);
}

static void store_page(dh_heap *heap, dh_pgno pgno)
{
    uint8_t diff[FUZZ_MERGE_ROOM], to[DH_PAGE_BYTES];
    uint32_t words;
    size_t size;

    if (check_random_below(6) == 0) {
        memset(model[pgno], 0, DH_PAGE_BYTES);
        CHECK_EQ(dh_image_store(heap, pgno, NULL), 0);
        return;
    }
    fuzz_change_page(model[pgno], to);
    size = dh_diff_encode(model[pgno], to, diff, sizeof(diff), &words);
    memcpy(model[pgno], to, DH_PAGE_BYTES);
    if (check_random_below(2) == 0)
        CHECK_EQ(dh_image_store(heap, pgno, to), 0);
    else
        CHECK_EQ(dh_image_advance(heap, pgno, diff, size, to), 0);
}

/* Write the extent to a file and make that its base: the overlay must be empty, the image the same. */
static void fold(dh_heap *heap, uint64_t version)
{
    uint64_t file_bytes;
    uint32_t checksum;
    int fd = memfd_create("base", MFD_CLOEXEC);

    CHECK(fd >= 0);
    CHECK_EQ(dh_extent_write(heap, NULL, 0, version, fd, &file_bytes, &checksum), 0);
    CHECK_EQ(dh_extent_switch(heap, 0, version, fd, file_bytes, checksum), 0);
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(heap->image.overlay_count, 0);
    CHECK_EQ(heap->image.overlay_bytes, 0);
}

static void the_image_is_what_was_committed(void)
{
    dh_options options = {.capacity_bytes = 1u << 20, .tracker = DH_TRACKER_COMPARE};
    dh_heap *heap;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    dhi_lazy_finish(heap); /* nothing was loaded, nothing is left to bring in */
    heap->phase = DH_RUNNING;
    dhi_gate_update(heap);
    heap->committed.hwm_pages = IMAGE_PAGES;
    memset(model, 0, sizeof(model));
    check_image(heap);
    for (uint64_t round = 1; round <= 60; round++) {
        for (int i = 0; i < 40; i++)
            store_page(heap, (dh_pgno)(1 + check_random_below(IMAGE_PAGES - 1)));
        check_image(heap);
        if (round % 7 == 0) {
            fold(heap, round);
            check_image(heap);
        }
    }
    dh_heap_close(heap);
}

static void an_image_that_equals_its_base_takes_no_memory(void)
{
    dh_options options = {.capacity_bytes = 1u << 20, .tracker = DH_TRACKER_COMPARE};
    uint8_t page[DH_PAGE_BYTES];
    dh_heap *heap;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    fill_random(page, sizeof(page));
    for (dh_pgno pgno = 1; pgno < 200; pgno++)
        CHECK_EQ(dh_image_store(heap, pgno, page), 0);
    CHECK_EQ(heap->image.overlay_count, 199);
    CHECK_EQ(heap->image.overlay_bytes, 199u * DH_PAGE_BYTES);
    CHECK(!dh_image_same(heap, 7));
    memcpy(dh_arena_page(&heap->arena, 7), page, sizeof(page));
    CHECK(dh_image_same(heap, 7));
    memset(page, 0, sizeof(page));
    for (dh_pgno pgno = 1; pgno < 100; pgno++)
        CHECK_EQ(dh_image_store(heap, pgno, page), 0);
    for (dh_pgno pgno = 100; pgno < 200; pgno++)
        CHECK_EQ(dh_image_store(heap, pgno, NULL), 0);
    CHECK_EQ(heap->image.overlay_count, 0);
    CHECK_EQ(heap->image.overlay_bytes, 0);
    dh_heap_close(heap);
}

/* --- hostile bytes ----------------------------------------------------------------------------------- */

static void damage_is_a_code_at_every_depth(void)
{
    fuzz_rounds(2000);
    fuzz_print();
    CHECK(fuzz_met.chunks_read > 0 && fuzz_met.chunks_refused > 0);
    CHECK(fuzz_met.entries_refused > 0);
    CHECK(fuzz_met.diffs_applied > 0 && fuzz_met.diffs_refused > 0);
    CHECK(fuzz_met.heaps_loaded > 0 && fuzz_met.heaps_refused > 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    a_diff_gives_the_page_it_was_made_for();
    single_words_and_alternate_words_are_found();
    a_run_beyond_the_page_is_refused();
    a_chunk_decodes_to_what_was_encoded();
    forms_and_sizes_that_cannot_be_are_refused();
    every_cut_and_every_flip_is_found();
    sizes_that_overflow_are_refused();
    the_image_is_what_was_committed();
    an_image_that_equals_its_base_takes_no_memory();
    damage_is_a_code_at_every_depth();
    return 0;
}
