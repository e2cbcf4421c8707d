/* test_error.c -- names of codes, sentences, fault points, and the arena's limits. */
#include "heap.h"

#include "check.h"

static void every_code_has_its_name(void)
{
    CHECK(strcmp(dh_error_name(0), "OK") == 0);
    CHECK(strcmp(dh_error_name(DH_E_FULL), "DH_E_FULL") == 0);
    CHECK(strcmp(dh_error_name(DH_E_TRACKER), "DH_E_TRACKER") == 0);
    for (int rc = DH_E_UNREPORTED; rc < 0; rc++)
        CHECK(strncmp(dh_error_name(rc), "DH_E_", 5) == 0);
    CHECK(strcmp(dh_error_name(DH_E_UNREPORTED - 1), "unknown code") == 0);
    CHECK(dh_error_name(ENOMEM)[0] == 'E' || dh_error_name(ENOMEM)[0] == 'e');
    CHECK(dh_error_name(123456)[0] != '\0');
}

static void the_sentence_is_kept_cut_and_may_quote_itself(void)
{
    static dh_heap heap;
    char expected[] = "again: page 7 is damaged";

    CHECK_EQ(dhi_fail(&heap, DH_E_CORRUPT, "page %d is %s", 7, "damaged"), DH_E_CORRUPT);
    CHECK_EQ(dhi_fail(&heap, EIO, "again: %s", dh_heap_error_text(&heap)), EIO);
    CHECK(strcmp(dh_heap_error_text(&heap), expected) == 0);
    CHECK_EQ(dhi_fail(&heap, EIO, "%0500d", 1), EIO);
    CHECK_EQ(strlen(dh_heap_error_text(&heap)), sizeof(heap.error_text) - 1);
    CHECK_EQ(dhi_fail(NULL, EIO, "nobody"), EIO);
}

static void a_fault_counts_then_fails_until_reset(void)
{
    char name[32];

    CHECK_EQ(dhi_fault("test.a"), 0);
    CHECK_EQ(dh_fault_set("test.a", 2, EIO), 0);
    CHECK_EQ(dh_fault_set("test.b", 0, 0), 0);
    CHECK_EQ(dhi_fault("test.a"), 0);
    CHECK_EQ(dhi_fault("test.a"), 0);
    CHECK_EQ(dhi_fault("test.a"), EIO);
    CHECK_EQ(dhi_fault("test.a"), EIO);
    CHECK_EQ(dhi_fault("test.b"), 0);
    CHECK_EQ(dhi_fault("test.c"), 0);
    CHECK_EQ(dh_fault_hits("test.a"), 4);
    CHECK_EQ(dh_fault_hits("test.b"), 1);
    CHECK_EQ(dh_fault_hits("test.c"), 0);
    CHECK_EQ(dh_fault_set("test.a", 0, 0), 0);
    CHECK_EQ(dh_fault_hits("test.a"), 0);
    CHECK_EQ(dhi_fault("test.a"), 0);
    CHECK_EQ(dh_fault_set("", 0, 0), 0);
    CHECK_EQ(dhi_faults_armed, 0);
    for (int i = 0; i < 16; i++) {
        snprintf(name, sizeof(name), "test.%d", i);
        CHECK_EQ(dh_fault_set(name, 0, EIO), 0);
    }
    CHECK_EQ(dh_fault_set("test.one-too-many", 0, EIO), ENOSPC);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    CHECK_EQ(dhi_fault("test.1"), 0);
}

static void an_arena_has_limits(void)
{
    dh_arena arena;

    CHECK_EQ(dh_arena_init(&arena, 0), EINVAL);
    CHECK_EQ(dh_arena_init(&arena, UINT64_MAX), DH_E_LIMIT);
    CHECK_EQ(dh_arena_init(&arena, ((uint64_t)DH_PGNO_TABLE + 1) * DH_PAGE_BYTES), DH_E_LIMIT);
    CHECK_EQ(dh_arena_init(&arena, 3 * DH_PAGE_BYTES - 1), 0);
    CHECK_EQ(arena.capacity_pages, 3);
    CHECK_EQ(arena.hwm_pages, 1);
    for (size_t i = 0; i < 3 * DH_PAGE_BYTES; i++)
        CHECK_EQ(arena.base[i], 0);
    CHECK(dh_arena_page(&arena, 2) == arena.base + 2 * DH_PAGE_BYTES);
    dh_arena_finish(&arena);
    dh_arena_finish(&arena);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    every_code_has_its_name();
    the_sentence_is_kept_cut_and_may_quote_itself();
    a_fault_counts_then_fails_until_reset();
    an_arena_has_limits();
    return 0;
}
