/* test_handles.c -- the handle table against a plain array. */
#include "handles.h"

#include "check.h"

#define CONTAINERS_COUNT 3000u

static dh_handle pool[CONTAINERS_COUNT];

static dh_word word_of(size_t i) { return dh_ref(DH_T_DICT, 32 * (i + 1)); }

static void check_table(const dh_handles *handles, const bool *is_in)
{
    static bool is_seen[CONTAINERS_COUNT];
    size_t index = 0, count = 0;
    dh_handle *handle;

    memset(is_seen, 0, sizeof(is_seen));
    while ((handle = dh_handles_next(handles, &index)) != NULL) {
        CHECK(!is_seen[handle - pool]);
        is_seen[handle - pool] = true;
    }
    for (size_t i = 0; i < CONTAINERS_COUNT; i++) {
        CHECK_EQ(is_seen[i], is_in[i]);
        CHECK(dh_handles_find(handles, word_of(i)) == (is_in[i] ? &pool[i] : NULL));
        CHECK_EQ(pool[i].word != 0, is_in[i]);
        count += is_in[i];
    }
    CHECK_EQ(handles->live_count, count);
}

static void toggle(dh_handles *handles, bool *is_in, size_t i)
{
    if (is_in[i]) {
        dh_handles_remove(handles, &pool[i]);
        dh_handles_remove(handles, &pool[i]); /* stale: nothing happens */
    } else {
        pool[i] = (dh_handle){.word = word_of(i), .serial = i};
        CHECK_EQ(dh_handles_add(handles, &pool[i]), 0);
    }
    is_in[i] = !is_in[i];
}

static void random_adds_and_removes_agree_with_the_model(void)
{
    static bool is_in[CONTAINERS_COUNT];
    dh_handles handles;

    CHECK_EQ(dh_handles_init(&handles), 0);
    CHECK(dh_handles_find(&handles, word_of(1)) == NULL);
    for (int round = 0; round < 40; round++) {
        size_t span = 1 + check_random_below(CONTAINERS_COUNT);

        for (int i = 0; i < 1000; i++)
            toggle(&handles, is_in, check_random_below(span));
        check_table(&handles, is_in);
    }
    dh_handles_drop_all(&handles);
    memset(is_in, 0, sizeof(is_in));
    check_table(&handles, is_in);
    toggle(&handles, is_in, 5);
    check_table(&handles, is_in);
    dh_handles_finish(&handles);
}

static void coming_and_going_does_not_fill_the_table(void)
{
    dh_handles handles;

    CHECK_EQ(dh_handles_init(&handles), 0);
    for (size_t i = 0; i < 1000000; i++) {
        dh_handle *handle = &pool[i % CONTAINERS_COUNT];

        *handle = (dh_handle){.word = word_of(i)};
        CHECK_EQ(dh_handles_add(&handles, handle), 0);
        if (i % 8 != 0) {
            dh_handles_remove(&handles, handle);
            continue;
        }
        CHECK(dh_handles_find(&handles, word_of(i)) == handle);
        dh_handles_remove(&handles, handle);
    }
    CHECK_EQ(handles.live_count, 0);
    CHECK(handles.slots_count <= 128);
    dh_handles_finish(&handles);
}

static void removing_while_iterating_misses_nobody(void)
{
    dh_handles handles;
    size_t index = 0, seen_count = 0;
    dh_handle *handle;

    CHECK_EQ(dh_handles_init(&handles), 0);
    for (size_t i = 0; i < 500; i++) {
        pool[i] = (dh_handle){.word = word_of(i)};
        CHECK_EQ(dh_handles_add(&handles, &pool[i]), 0);
    }
    while ((handle = dh_handles_next(&handles, &index)) != NULL) {
        seen_count++;
        if (check_random_below(2) != 0)
            dh_handles_remove(&handles, handle);
    }
    CHECK_EQ(seen_count, 500);
    for (size_t i = 0; i < 500; i++)
        CHECK_EQ(dh_handles_find(&handles, word_of(i)) == &pool[i], pool[i].word != 0);
    dh_handles_drop_all(&handles);
    dh_handles_finish(&handles);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    random_adds_and_removes_agree_with_the_model();
    coming_and_going_does_not_fill_the_table();
    removing_while_iterating_misses_nobody();
    return 0;
}
