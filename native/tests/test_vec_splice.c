/* test_vec_splice.c -- a vector under changes in the middle, against an array: relaxed trees.
 *
 * Also built with leaves and nodes of 16 words (test_vec_small.c), which makes trees of five levels
 * from a few thousand words.
 */
#include "containers.h"
#include "vec_private.h"

#define LEAF DH_VEC_LEAF_WORDS

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 6u
#else
#define SCALE 1u
#endif

typedef struct {
    dh_heap *heap;
    dh_word *vec; /* words 1..3 of a cell of its own */
    dh_word *words;
    uint64_t length, room;
    uint64_t next; /* words are numbered as they are made */
} model;

static void model_open(model *m, dh_heap *heap, uint64_t room)
{
    dh_off off;
    CHECK_EQ(dh_cell_new(heap, DH_HEAD_BYTES, DH_REFS, &off), 0);
    dh_word *head = dh_at(heap, off);
    head[0] = head[1 + DH_VEC_LENGTH] = head[1 + DH_VEC_DEPTH] = dh_int(0);
    *m = (model){heap, head + 1, malloc(room * sizeof *m->words), 0, room, 1};
    CHECK(m->words != NULL);
}

static void model_close(model *m)
{
    dh_vec_clear(m->heap, m->vec);
    dh_cell_free(m->heap, (dh_off)((uint8_t *)(m->vec - 1) - m->heap->arena.base));
    free(m->words);
}

static void model_check(const model *m)
{
    uint64_t span;
    CHECK_EQ(dh_vec_check(m->heap, m->vec), 0);
    CHECK_EQ(dh_vec_length(m->vec), m->length);
    for (uint64_t i = 0; i < m->length;) {
        dh_vec_run run;
        const dh_word *slots = dh_vec_slot(m->heap, m->vec, i, &span);
        CHECK(slots != NULL && span > 0);
        CHECK(dh_vec_run_at(m->heap, m->vec, i, &run));
        CHECK(run.start <= i && run.limit == i + span && run.first + (i - run.start) == slots);
        for (uint64_t end = i + span; i < end && i < m->length; i++)
            CHECK_EQ(*slots++, m->words[i]);
    }
    CHECK(dh_vec_slot(m->heap, m->vec, UINT64_MAX, &span) == NULL);
}

static int model_insert(model *m, uint64_t index, uint64_t count)
{
    dh_word *words = malloc((count + 1) * sizeof *words);
    CHECK(words != NULL && m->length + count <= m->room);
    for (uint64_t i = 0; i < count; i++)
        words[i] = dh_int((int64_t)m->next++);
    int rc = dh_vec_insert(m->heap, m->vec, index, words, count);
    if (rc == 0) {
        memmove(m->words + index + count, m->words + index, (m->length - index) * sizeof *words);
        memcpy(m->words + index, words, count * sizeof *words);
        m->length += count;
    }
    free(words);
    return rc;
}

static int model_remove(model *m, uint64_t index, uint64_t count)
{
    int rc = dh_vec_remove(m->heap, m->vec, index, count);
    if (rc == 0) {
        m->length -= count;
        memmove(m->words + index, m->words + index + count, (m->length - index) * sizeof *m->words);
    }
    return rc;
}

static void model_push(model *m)
{
    m->words[m->length] = dh_int((int64_t)m->next++);
    CHECK_EQ(dh_vec_push(m->heap, m->vec, m->words[m->length]), 0);
    m->length++;
}

/* Mostly one, now and then as many as are there. */
static uint64_t random_count(uint64_t most)
{
    switch (check_random_below(8)) {
    case 0:
        return check_random_below(most + 1);
    case 1:
        return check_random_below((most < 3 * LEAF ? most : 3 * LEAF) + 1);
    case 2:
        return check_random_below((most < LEAF ? most : LEAF) + 1);
    default:
        return most > 0;
    }
}

static uint64_t random_place(uint64_t length)
{
    switch (check_random_below(6)) {
    case 0:
        return 0;
    case 1:
        return length;
    case 2:
        return check_random_below(length + 1) / LEAF * LEAF;
    default:
        return check_random_below(length + 1);
    }
}

/* The tree takes no more than a few times what its words do. */
static void check_size(const model *m, uint64_t allocated_before)
{
    uint64_t bytes = containers_allocated(m->heap) - allocated_before;
    uint64_t leaves = m->length / (LEAF / 4) + 3;
    CHECK(bytes <= 2 * leaves * LEAF * 8 + leaves * DH_PAGE_BYTES * 8 / LEAF + 40960);
}

static void test_splices(dh_heap *heap, uint64_t around, unsigned rounds)
{
    model m;
    uint64_t before = containers_allocated(heap);
    model_open(&m, heap, 4 * around + 16 * LEAF);
    while (m.length < around)
        model_push(&m);
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t index = random_place(m.length), behind = m.length - index;
        bool grows = check_random_below(2 * around + 1) >= m.length;
        if (check_random_below(16) == 0)
            model_push(&m);
        else if (grows)
            CHECK_EQ(model_insert(&m, index, random_count(around / 4 + 1)), 0);
        else
            CHECK_EQ(model_remove(&m, index, random_count(behind)), 0);
        if (m.length > 3 * around)
            CHECK_EQ(model_remove(&m, 5, m.length - around), 0);
        if (i % 32 == 0 || m.length < 20 * LEAF)
            model_check(&m);
    }
    model_check(&m);
    for (uint64_t i = 0; i + 1 < m.length; i += 1 + m.length / 7) { /* moves in a relaxed tree */
        uint64_t count = check_random_below(m.length - i),
                 to = check_random_below(m.length - count);
        CHECK_EQ(dh_vec_move(heap, m.vec, to, i, count), 0);
        memmove(m.words + to, m.words + i, count * sizeof *m.words);
        model_check(&m);
    }
    while (m.length > 0) {
        uint64_t count = 1 + check_random_below(1 + m.length / 8);
        CHECK_EQ(model_remove(&m, check_random_below(m.length - count + 1), count), 0);
        if (check_random_below(4) == 0)
            model_check(&m);
        check_size(&m, before);
    }
    CHECK_EQ(containers_allocated(heap), before + DH_HEAD_BYTES);
    model_close(&m);
    CHECK_EQ(containers_allocated(heap), before);
}

/* One by one at one place: in front, behind, between, at random; then out again, one by one. */
static void test_one_by_one(dh_heap *heap, uint64_t length, unsigned where)
{
    model m;
    uint64_t before = containers_allocated(heap);
    model_open(&m, heap, 2 * length + 20 * LEAF);
    while (m.length < 16 * LEAF + 5)
        model_push(&m);
    uint64_t at = where == 0 ? 0 : where == 1 ? m.length : m.length / 2 - 3;
    for (uint64_t i = 0; i < length; i++) {
        if (where == 3)
            at = check_random_below(m.length + 1);
        CHECK_EQ(model_insert(&m, at, 1), 0);
        at += where == 1 || where == 2;
        if (i % 512 == 0)
            model_check(&m);
    }
    model_check(&m);
    check_size(&m, before);
    if (where < 2) /* at the ends leaves and nodes are filled, but for few */
        CHECK(containers_allocated(heap) - before <=
              m.length * 8 * 5 / 4 +
                  (m.length / LEAF / VEC_CHILDREN_MAX * 3 / 2 + 30) * DH_PAGE_BYTES);
    while (m.length > 0) {
        at = where == 0   ? 0
             : where == 1 ? m.length - 1
             : where == 2 ? m.length / 2
                          : check_random_below(m.length);
        CHECK_EQ(model_remove(&m, at, 1), 0);
        if (m.length % 512 == 0)
            model_check(&m);
        if (m.length % 64 == 0)
            check_size(&m, before);
    }
    model_close(&m);
    CHECK_EQ(containers_allocated(heap), before);
}

/* A tree of the given shape: plain, relaxed at random, or nothing but the front relaxed. */
static void model_build(model *m, uint64_t length, unsigned shape)
{
    CHECK_EQ(model_insert(m, 0, length), 0);
    if (shape == 1)
        for (unsigned i = 0; i < 200; i++) {
            CHECK_EQ(model_insert(m, check_random_below(m->length + 1), 1 + i % 3), 0);
            CHECK_EQ(model_remove(m, check_random_below(m->length - 2), 1 + i % 3), 0);
        }
    if (shape == 2)
        CHECK_EQ(model_remove(m, 0, LEAF + LEAF / 2), 0);
}

/* Memory runs out at every step in turn: the content is as it was; removing does without. */
static void test_no_memory(dh_heap *heap, uint64_t length, unsigned shape, uint64_t index,
                           uint64_t removed, uint64_t inserted)
{
    for (uint64_t n = 0;; n++) {
        model m;
        uint64_t before = containers_allocated(heap);
        model_open(&m, heap, length + inserted + 1024);
        model_build(&m, length, shape);
        index = index < m.length ? index : m.length;
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = removed > 0 ? model_remove(&m, index, removed) : model_insert(&m, index, inserted);
        uint64_t hits = dh_fault_hits("alloc.cell");
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        model_check(&m);
        CHECK_EQ(model_insert(&m, m.length / 2, 3), 0); /* and goes on from there */
        model_check(&m);
        model_close(&m);
        CHECK_EQ(containers_allocated(heap), before);
        CHECK(rc == 0 || (removed == 0 && rc == DH_E_FULL));
        if (hits <= n)
            return;
    }
}

/* --- damage ----------------------------------------------------------------------------------- */

static dh_word *relaxed_root(const model *m)
{
    return dh_deref(m->heap, m->vec[DH_VEC_ROOT], DH_T_RNODE, DH_PAGE_BYTES);
}

/* Whatever is wrong with a relaxed node is found. */
static void test_check_finds(void)
{
    model m;
    dh_heap *heap = containers_heap((uint64_t)64 << 20);
    model_open(&m, heap, 100 * LEAF);
    model_build(&m, 40 * LEAF, 1);
    dh_word *root = relaxed_root(&m);
    CHECK(root != NULL && dh_vec_check(heap, m.vec) == 0);
    unsigned count = (unsigned)dh_int_value(root[RNODE_COUNT]);
    struct {
        unsigned at;
        dh_word word;
    } wrong[] = {
        {RNODE_COUNT, dh_int(0)},
        {RNODE_COUNT, dh_int(count + 1)},
        {RNODE_COUNT, dh_int(count - 1)},
        {RNODE_COUNT, dh_int(-1)},
        {RNODE_COUNT, DH_NONE},
        {RNODE_COUNT, dh_int((int64_t)1 << 32 | count)},
        {RNODE_REFS, DH_EMPTY},
        {RNODE_REFS, m.vec[DH_VEC_ROOT]},
        {RNODE_REFS + 1, dh_int(7)},
        {RNODE_REFS + count, m.vec[DH_VEC_ROOT]},
        {RNODE_STARTS, dh_int(1)},
        {RNODE_STARTS + 1, dh_int(0)},
        {RNODE_STARTS + 1, dh_int(-5)},
        {RNODE_STARTS + 1, root[RNODE_STARTS + 1] + 2},
        {RNODE_STARTS + 1, root[RNODE_STARTS + 1] - 2},
        {RNODE_STARTS + 1, dh_int((int64_t)1 << 61)},
        {RNODE_STARTS + count, dh_int(5)},
        {RNODE_DENSITY, DH_EMPTY},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dh_word was = root[wrong[i].at];
        root[wrong[i].at] = wrong[i].word;
        CHECK_EQ(dh_vec_check(heap, m.vec), DH_E_CORRUPT);
        root[wrong[i].at] = was;
        CHECK_EQ(dh_vec_check(heap, m.vec), 0);
    }
    dh_word start = root[RNODE_STARTS + 1]; /* compares as large, and counts as 1 */
    root[RNODE_STARTS + 1] = dh_int(1) | (uint64_t)1 << 62;
    CHECK_EQ(dh_vec_insert(heap, m.vec, 6, &start, 1), DH_E_CORRUPT);
    CHECK_EQ(dh_vec_remove(heap, m.vec, 6, 1), DH_E_CORRUPT);
    root[RNODE_STARTS + 1] = start;
    model_check(&m);
    dh_vec_run run; /* a word where no slot is */
    uint64_t at = 0;
    while (dh_vec_run_at(heap, m.vec, at, &run) && run.limit - run.start == LEAF)
        at = run.limit;
    CHECK(at < m.length);
    run.first[run.limit - run.start] = dh_int(1);
    CHECK_EQ(dh_vec_check(heap, m.vec), DH_E_CORRUPT);
    run.first[run.limit - run.start] = DH_EMPTY;
    model_check(&m);
    model_close(&m);
    dh_heap_close(heap);
}

/* A relaxed node somewhere in the tree, or what is found on the way there. */
static dh_word *random_node(const model *m)
{
    dh_word *node = relaxed_root(m);
    while (node != NULL && check_random_below(4) > 0) {
        dh_word ref = node[RNODE_REFS + check_random_below(VEC_CHILDREN_MAX)];
        dh_word *below = dh_deref(m->heap, ref, DH_T_RNODE, DH_PAGE_BYTES);
        if (below == NULL)
            break;
        node = below;
    }
    return node;
}

static dh_word random_ref(const model *m)
{
    static const dh_type types[] = {DH_T_LEAF, DH_T_RNODE, DH_T_NODE, DH_T_LIST, DH_T_STR};
    uint64_t granules = m->heap->arena.hwm_pages * (DH_PAGE_BYTES / DH_GRANULE_BYTES);
    uint64_t granule = check_random_below(granules);
    if (check_random_below(4) > 0)
        granule -= granule % (DH_PAGE_BYTES / DH_GRANULE_BYTES);
    return dh_ref(types[check_random_below(5)], granule * DH_GRANULE_BYTES);
}

static dh_word random_wrong(const model *m, dh_word was)
{
    switch (check_random_below(8)) {
    case 0:
        return was ^ (uint64_t)1 << check_random_below(64);
    case 1:
        return check_random();
    case 2:
        return dh_int((int64_t)check_random_below(VEC_CHILDREN_MAX + 2));
    case 3:
        return dh_int((int64_t)check_random_below(m->length * 2));
    case 4:
        return dh_int(-(int64_t)check_random_below(m->length * 2));
    case 5:
        return dh_int(((int64_t)1 << (40 + check_random_below(22))) - 1 -
                      (int64_t)check_random_below(3));
    case 6:
        return m->vec[DH_VEC_ROOT];
    default:
        return random_ref(m);
    }
}

static void damage(const model *m, unsigned count)
{
    uint64_t pages = m->heap->arena.hwm_pages;
    dh_word *arena = (dh_word *)(void *)m->heap->arena.base;
    for (unsigned i = 0; i < count; i++) {
        dh_word *node = random_node(m);
        if (node == NULL || check_random_below(5) == 0)
            node = arena + check_random_below(pages) * DH_PAGE_WORDS;
        uint64_t child = check_random_below(VEC_CHILDREN_MAX);
        if (check_random_below(2) == 0) /* one that is in use */
            child = check_random_below((uint64_t)node[RNODE_COUNT] / 2 % VEC_CHILDREN_MAX + 1);
        uint64_t places[] = {RNODE_COUNT, RNODE_REFS + child, RNODE_STARTS + child, RNODE_DENSITY,
                             check_random_below(DH_PAGE_WORDS)};
        dh_word *at = node + places[check_random_below(5)];
        *at = random_wrong(m, *at);
    }
}

/* Nothing leaves the arena and everything ends, whatever the nodes say. */
static void test_damage(uint64_t length, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        uint64_t span;
        dh_vec_run run;
        dh_word words[3] = {dh_int(1), dh_int(2), dh_int(3)};
        dh_heap *heap = containers_heap((uint64_t)16 << 20);
        model_open(&m, heap, length + 1024);
        model_build(&m, length, 1 + round % 2);
        damage(&m, 1u << round % 8);
        if (round % 5 == 0)
            m.vec[check_random_below(3)] ^= (uint64_t)1 << check_random_below(64);
        if (round % 4 == 0)
            containers_fence(heap);
        for (unsigned i = 0; i < 60; i++) {
            uint64_t at = check_random_below(length);
            (void)dh_vec_slot(heap, m.vec, at, &span);
            (void)dh_vec_run_at(heap, m.vec, at, &run);
            if (dh_vec_length(m.vec) > heap->alloc.allocated_bytes / 8)
                break; /* refused by whoever owns a vector */
            (void)!dh_vec_push(heap, m.vec, words[0]);
            (void)!dh_vec_insert(heap, m.vec, at, words, 1 + i % 3);
            (void)!dh_vec_remove(heap, m.vec, check_random_below(length), 1 + i % 7);
            if (i % 16 == 5)
                (void)!dh_vec_insert(heap, m.vec, at, NULL, 2 * LEAF + 1);
            if (i % 16 == 9)
                (void)!dh_vec_remove(heap, m.vec, at / 2, 3 * LEAF);
            if (i % 16 == 3)
                (void)!dh_vec_move(heap, m.vec, at / 3, at / 2, length / 4);
            if (i % 16 == 7)
                (void)!dh_vec_fill(heap, m.vec, at, NULL, LEAF + 1);
            if (i % 8 == 1)
                damage(&m, 1);
            if (i % 16 == 11)
                (void)!dh_vec_set_length(heap, m.vec, dh_vec_length(m.vec) / 4 * 3);
            (void)!dh_vec_check(heap, m.vec);
        }
        dh_vec_clear(heap, m.vec);
        containers_unfence();
        free(m.words);
        dh_heap_close(heap);
    }
}

/* --- pages ------------------------------------------------------------------------------------ */

/* What single changes write, counted by comparing the arena with a copy. */
static void test_few_pages(dh_heap *heap, uint64_t length, unsigned rounds)
{
    model m;
    model_open(&m, heap, 2 * length + rounds);
    model_build(&m, length, 0);
    uint64_t pages_count = heap->arena.hwm_pages + 4096, worst = 0, total = 0;
    uint8_t *copy = calloc(pages_count, DH_PAGE_BYTES);
    CHECK(copy != NULL);
    for (unsigned i = 0; i <= rounds; i++) {
        uint64_t written = 0;
        CHECK(heap->arena.hwm_pages <= pages_count);
        for (uint64_t p = 0; p < heap->arena.hwm_pages; p++) {
            const uint8_t *page = dh_arena_page(&heap->arena, (dh_pgno)p);
            if (memcmp(page, copy + p * DH_PAGE_BYTES, DH_PAGE_BYTES) != 0) {
                memcpy(copy + p * DH_PAGE_BYTES, page, DH_PAGE_BYTES);
                written++;
            }
        }
        if (i > 0) {
            worst = written > worst ? written : worst;
            total += written;
        }
        if (i % 2 == 0)
            CHECK_EQ(model_insert(&m, random_place(m.length), 1), 0);
        else
            CHECK_EQ(model_remove(&m, check_random_below(m.length), 1), 0);
    }
    CHECK(worst <= 24);
    CHECK(total <= 9 * rounds);
    free(copy);
    model_check(&m);
    model_close(&m);
}

static void test_limits(dh_heap *heap)
{
    model m;
    model_open(&m, heap, 20 * LEAF);
    model_build(&m, 12 * LEAF, 1);
    CHECK_EQ(dh_vec_insert(heap, m.vec, m.length + 1, NULL, 1), DH_E_CORRUPT);
    CHECK_EQ(dh_vec_remove(heap, m.vec, 1, m.length), DH_E_CORRUPT);
    CHECK_EQ(dh_vec_insert(heap, m.vec, 1, NULL, (uint64_t)1 << 60), DH_E_LIMIT);
    CHECK_EQ(dh_vec_reserve(heap, m.vec, 1), DH_E_CORRUPT);
    CHECK_EQ(dh_vec_insert(heap, m.vec, 1, NULL, 0), 0);
    CHECK_EQ(dh_vec_remove(heap, m.vec, 1, 0), 0);
    model_check(&m);
    model_close(&m);
}

/* A tree as deep as can be refuses to grow, and is what it was. */
static void test_deepest(dh_heap *heap)
{
    model m;
    int rc;
    model_open(&m, heap, 2000000);
    model_build(&m, 100000, 0);
    for (;;) {
        uint64_t at = 1 + check_random_below(3);
        rc = model_insert(&m, at, check_random_below(2) == 0 ? 1 : 50 * LEAF);
        if (rc != 0)
            break;
        CHECK(m.length < 1900000);
    }
    CHECK_EQ(rc, DH_E_LIMIT);
    CHECK_EQ(vec_depth(m.vec), DH_VEC_DEPTH_MAX);
    model_check(&m);
    CHECK_EQ(model_remove(&m, 7, m.length / 2), 0);
    model_check(&m);
    CHECK_EQ(model_insert(&m, 5, 3 * LEAF), 0);
    model_check(&m);
    model_close(&m);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 29);
    static const uint64_t around[] = {4, 9, 12, 40, 200};
    for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
        test_splices(heap, around[i] * LEAF, 3000 / SCALE);
        test_splices(heap, around[i] * LEAF + 1, 300 / SCALE);
    }
    if (LEAF * LEAF < 100000)
        for (uint64_t length = LEAF; length < 20000; length *= LEAF) {
            test_splices(heap, length - 1, 1000 / SCALE);
            test_splices(heap, length + 1, 1000 / SCALE);
        }
    test_splices(heap, LEAF > 16 ? 300000 : 40000, 400 / SCALE);
    for (unsigned where = 0; where < 4; where++)
        test_one_by_one(heap, 30000 / SCALE, where);
    for (unsigned shape = 0; shape < 3; shape++) {
        static const uint64_t inserted[] = {1, 3, LEAF, 3 * LEAF + 1, 70 * LEAF};
        for (size_t i = 0; i < sizeof inserted / sizeof *inserted; i++) {
            test_no_memory(heap, 60 * LEAF, shape, 0, 0, inserted[i]);
            test_no_memory(heap, 60 * LEAF, shape, 31 * LEAF + 3, 0, inserted[i]);
            test_no_memory(heap, 60 * LEAF, shape, UINT64_MAX, 0, inserted[i]);
        }
        test_no_memory(heap, 60 * LEAF, shape, 0, 5 * LEAF, 0);
        test_no_memory(heap, 60 * LEAF, shape, 7 * LEAF + 1, 1, 0);
        test_no_memory(heap, 60 * LEAF, shape, 7 * LEAF + 1, 9 * LEAF, 0);
        test_no_memory(heap, 60 * LEAF, shape, 3, 57 * LEAF, 0);
    }
    test_limits(heap);
    if (LEAF <= 16)
        test_deepest(heap);
    dh_heap_close(heap);
    heap = containers_heap((uint64_t)1 << 28);
    test_few_pages(heap, LEAF * 600, 1000 / SCALE);
    dh_heap_close(heap);
    test_check_finds();
    test_damage(30 * LEAF, 400 / SCALE);
    test_damage(400 * LEAF, 100 / SCALE);
    return 0;
}
