/* bench_dict.c -- nanoseconds per dict operation, hash included; not run by the tests.
 *
 *   make plain, then cc -O2 -std=c11 -D_GNU_SOURCE -Isrc -Iinclude tests/bench_dict.c \
 *       build/plain/libdh.a -o build/bench_dict
 *
 * Best of some rounds, because other jobs share the machine. Compare within one run.
 */
#include "containers.h"

typedef struct {
    uint8_t text[10];
    dh_word word;
} bench_key;

typedef struct {
    dh_heap *heap;
    bench_key *keys;
    size_t *order; /* shuffled */
    size_t count;
    bool is_text;
} bench;

static inline void key_of(const bench *b, size_t i, dh_key *key)
{
    if (b->is_text)
        dh_key_from_str(b->heap, b->keys[i].text, sizeof b->keys[i].text, key);
    else
        dh_key_from_int(b->heap, dh_int_value(b->keys[i].word), key);
}

static void bench_open(bench *b, dh_heap *heap, size_t count, bool is_text)
{
    b->heap = heap;
    b->count = count;
    b->is_text = is_text;
    b->keys = malloc(count * sizeof *b->keys);
    b->order = malloc(count * sizeof *b->order);
    CHECK(b->keys != NULL && b->order != NULL);
    for (size_t i = 0; i < count; i++) {
        char text[16];
        snprintf(text, sizeof text, "key%07zu", i % 10000000);
        memcpy(b->keys[i].text, text, sizeof b->keys[i].text);
        b->keys[i].word = dh_int((int64_t)i);
        b->order[i] = i;
    }
    for (size_t i = count; i > 1; i--) {
        size_t j = check_random_below(i), kept = b->order[i - 1];
        b->order[i - 1] = b->order[j];
        b->order[j] = kept;
    }
}

static void fill(const bench *b, dh_word dict)
{
    for (size_t i = 0; i < b->count; i++) {
        dh_key key;
        bool was_new;
        dh_word word = b->keys[i].word;
        key_of(b, i, &key);
        if (b->is_text)
            CHECK_EQ(dh_str_new(b->heap, b->keys[i].text, sizeof b->keys[i].text, &word), 0);
        CHECK_EQ(dh_dict_set(b->heap, dict, &key, word, dh_int((int64_t)i), &was_new), 0);
    }
}

enum { HASH, GET, SET, ABSENT, ITERATE, KINDS };

static void run(const bench *b, dh_word dict, unsigned kind)
{
    dh_key key;
    dh_word key_word, value;
    dh_dict_pos pos = {0, 0};
    bool was_new;
    uint64_t sum = 0;
    for (size_t i = 0; i < b->count; i++) {
        switch (kind) {
        case HASH:
            key_of(b, b->order[i], &key);
            sum += key.hash;
            break;
        case GET:
            key_of(b, b->order[i], &key);
            CHECK(dh_dict_get(b->heap, dict, &key, &value) == 0);
            sum += value;
            break;
        case SET:
            key_of(b, b->order[i], &key);
            CHECK(dh_dict_set(b->heap, dict, &key, DH_EMPTY, dh_int((int64_t)i), &was_new) == 0);
            break;
        case ABSENT:
            key_of(b, b->order[i], &key);
            key.hash += 0x9e3779b97f4a7c15u;
            key.word = 0;
            CHECK(dh_dict_get(b->heap, dict, &key, &value) == DH_E_ABSENT);
            break;
        default:
            CHECK(dh_dict_next(b->heap, dict, &pos, &key_word, &value) == 1);
            sum += value;
        }
    }
    __asm__ volatile("" : : "r"(sum));
}

static void empty(const bench *b, dh_word dict)
{
    for (size_t i = 0; i < b->count; i++) {
        dh_key key;
        key_of(b, b->order[i], &key);
        CHECK_EQ(dh_dict_delete(b->heap, dict, &key, NULL), 0);
    }
}

static double ns_each(uint64_t since, size_t operations)
{
    return (double)(dhi_clock_ns() - since) / (double)operations;
}

static void measure(dh_heap *heap, size_t count, bool is_text)
{
    bench b;
    dh_word dict;
    double best[KINDS], insert = 1e9, remove = 1e9, bytes = 0;
    size_t repeats = count < 100000 ? 200000 / count : 1, rounds = count < 100000 ? 7 : 3;
    bench_open(&b, heap, count, is_text);
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    for (unsigned k = 0; k < KINDS; k++)
        best[k] = 1e9;
    for (size_t round = 0; round < rounds; round++) {
        double insert_sum = 0, remove_sum = 0;
        size_t times = repeats < 100 ? repeats : 100;
        for (size_t i = 0; i < times; i++) {
            uint64_t before = containers_allocated(heap), since = dhi_clock_ns();
            fill(&b, dict);
            insert_sum += ns_each(since, count);
            bytes = (double)(containers_allocated(heap) - before) / (double)count;
            since = dhi_clock_ns();
            empty(&b, dict);
            remove_sum += ns_each(since, count);
        }
        fill(&b, dict);
        for (unsigned kind = 0; kind < KINDS; kind++) {
            uint64_t since = dhi_clock_ns();
            for (size_t i = 0; i < repeats; i++)
                run(&b, dict, kind);
            double ns = ns_each(since, count * repeats);
            best[kind] = ns < best[kind] ? ns : best[kind];
        }
        empty(&b, dict);
        insert = insert_sum / (double)times < insert ? insert_sum / (double)times : insert;
        remove = remove_sum / (double)times < remove ? remove_sum / (double)times : remove;
    }
    printf("%8zu %-5s %8.1f %8.1f %8.1f %8.1f %8.1f %8.1f %8.1f %8.1f\n", count,
           is_text ? "str10" : "int", best[HASH], best[GET], best[SET], best[ABSENT], insert,
           remove, best[ITERATE], bytes);
    free(b.keys);
    free(b.order);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 30);
    static const size_t counts[] = {8, 60, 500, 2000, 1000000};
    printf("%8s %-5s %8s %8s %8s %8s %8s %8s %8s %8s\n", "keys", "kind", "hash", "get", "set",
           "absent", "insert", "delete", "iterate", "B/key");
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        for (unsigned is_text = 0; is_text < 2; is_text++)
            measure(heap, counts[i], is_text != 0);
    dh_heap_close(heap);
    return 0;
}
