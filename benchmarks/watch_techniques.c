/* watch_techniques.c -- every technique of write tracking over the same memory, taking turns.
 *
 * Built by bench_watch.py together with native/src and native/lab. The techniques are called by
 * their tables, so all pay for the same layers: none. One line per measurement, times in ns:
 *
 *   watch_techniques cost MEGABYTES ROUNDS TECHNIQUE...
 *     cost TECHNIQUE ROUND SHARE WRITTEN STORE PLAIN GET TAKE REPORTED MAPPINGS MEMORY ARM
 *       STORE: per page, the first store to each; PLAIN: the same stores again. MAPPINGS, MEMORY:
 *       more than without a watch; bytes, page tables and children included (MEMORY in the first
 *       round only, else -1). ARM: opening and arming.
 *   watch_techniques cards|game|code|checkpoint MEGABYTES BUDGET_MS TECHNIQUE...
 *     work TECHNIQUE CYCLE CYCLES WRITTEN REPORTED
 *       CYCLE: ns of one cycle. "nothing" is the same work without a watch.
 *   refused TECHNIQUE REASON...       it does not work here, or there is not enough memory
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../native/lab/lab.h"
#include "../native/src/arena.h"

#define PER_MILLION 1000000u

typedef struct {
    const char *name;
    const dh_tracker *tracker; /* NULL: nothing watches */
    dh_range range;
    void *state;
    dh_bits found;
    uint64_t reported_count;
} contestant;

static void check(int rc, const char *what)
{
    if (rc != 0) {
        fprintf(stderr, "watch_techniques: %s fails: %d (%s)\n", what, rc,
                rc > 0 ? strerror(rc) : dh_error_name(rc));
        exit(1);
    }
}

/* --- a technique ------------------------------------------------------------------------------ */

static void note(void *context, dh_pgno first, uint64_t count)
{
    contestant *c = context;

    dh_bits_set_run(&c->found, first, count);
    c->reported_count += count;
}

static uint64_t available_bytes(void)
{
    unsigned long long kb = 0;
    char line[200];
    FILE *file = fopen("/proc/meminfo", "r");

    check(file == NULL ? errno : 0, "open /proc/meminfo");
    while (fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
            break;
    fclose(file);
    return kb << 10;
}

/* What a technique may take beside the memory itself: a copy. */
static uint64_t needed_bytes(const contestant *c)
{
    bool has_copy = c->tracker == &dh_tracker_shadow || c->tracker == &dhl_tracker_fork;

    return has_copy ? (c->range.pages_count << DH_PAGE_SHIFT) + ((uint64_t)1 << 30) : 0;
}

/* False, with a line that says so, where it does not work. */
static bool contestant_open(contestant *c)
{
    char why[400] = "";
    int rc;

    if (c->tracker == NULL)
        return true;
    if (available_bytes() < needed_bytes(c)) {
        printf("refused %s not enough memory for a copy of this\n", c->name);
        return false;
    }
    rc = c->tracker->open(&c->range, NULL, &c->state, why, sizeof(why));
    if (rc != 0) {
        printf("refused %s %s\n", c->name, why[0] != '\0' ? why : dh_error_name(rc));
        return false;
    }
    check(c->tracker->begin != NULL ? c->tracker->begin(c->state) : 0, "begin");
    check(c->tracker->arm(c->state, c->range.pages_count), "arm");
    return true;
}

static void contestant_close(contestant *c)
{
    if (c->tracker != NULL)
        c->tracker->close(c->state);
}

static uint64_t scan(contestant *c, uint64_t first, uint64_t count, dh_scan_mode mode)
{
    c->reported_count = 0;
    if (c->tracker != NULL)
        check(c->tracker->scan(c->state, (dh_pgno)first, count, mode, note, c), "scan");
    return c->reported_count;
}

static contestant contestant_named(const char *name, const dh_range *range)
{
    contestant c = {.name = name, .range = *range};
    int index = dhl_technique_find(name);

    if (strcmp(name, "nothing") != 0) {
        check(index < 0 ? EINVAL : 0, name);
        c.tracker = dhl_tracker_at((size_t)index);
    }
    check(dh_bits_init(&c.found, range->pages_count), "dh_bits_init");
    return c;
}

/* --- measuring -------------------------------------------------------------------------------- */

static uint64_t mappings_count(void)
{
    static char bytes[1 << 16];
    FILE *maps = fopen("/proc/self/maps", "r");
    uint64_t count = 0;
    size_t got;

    check(maps == NULL ? errno : 0, "open /proc/self/maps");
    while ((got = fread(bytes, 1, sizeof(bytes), maps)) > 0)
        for (size_t i = 0; i < got; i++)
            count += bytes[i] == '\n';
    fclose(maps);
    return count;
}

static uint64_t field_bytes(int pid, const char *file_name, const char *field)
{
    char path[100], line[300];
    unsigned long long kb = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, file_name);
    file = fopen(path, "r");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            kb = strtoull(line + strlen(field), NULL, 10);
    fclose(file);
    return kb << 10;
}

/* Shares of memory and page tables, of this process and the child that it may have. */
static uint64_t memory_bytes(void)
{
    char path[100];
    int pids[2] = {(int)getpid(), 0};
    uint64_t bytes = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", pids[0]);
    file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%d", &pids[1]) != 1)
            pids[1] = 0;
        fclose(file);
    }
    for (int i = 0; i < 2; i++)
        if (pids[i] != 0)
            bytes += field_bytes(pids[i], "smaps_rollup", "Pss:") +
                     field_bytes(pids[i], "status", "VmPTE:");
    return bytes;
}

/* Pages in an order that looks random; each once, as pages_count is a power of two. */
static uint64_t page_at(uint64_t i, uint64_t pages_count)
{
    return i * 0x9E3779B97F4A7C15u % pages_count;
}

/* One byte into each of so many pages: scattered, or all of them in order. */
static uint64_t store_ns(const dh_range *range, uint64_t count)
{
    uint64_t start = dhi_clock_ns();

    if (count == range->pages_count)
        for (uint64_t i = 0; i < count; i++)
            ((volatile uint8_t *)range->base)[i << DH_PAGE_SHIFT]++;
    else
        for (uint64_t i = 0; i < count; i++)
            ((volatile uint8_t *)range->base)[page_at(i, range->pages_count) << DH_PAGE_SHIFT]++;
    return dhi_clock_ns() - start;
}

static uint64_t scan_ns(contestant *c, dh_scan_mode mode)
{
    uint64_t start = dhi_clock_ns();

    scan(c, 0, c->range.pages_count, mode);
    return dhi_clock_ns() - start;
}

/* --- costs ------------------------------------------------------------------------------------ */

/* What there is without a watch. */
typedef struct {
    uint64_t memory_bytes;
    uint64_t mappings_count;
} baseline;

static void cost_of_share(contestant *c, unsigned round, unsigned share, uint64_t arm_ns,
                          const baseline *before)
{
    uint64_t pages_count = c->range.pages_count;
    uint64_t count = pages_count * share / PER_MILLION;
    uint64_t store, plain, get, take;
    long long memory, mappings;

    if (share > 0 && count == 0)
        count = 1;
    store = store_ns(&c->range, count);
    plain = store_ns(&c->range, count);
    mappings = (long long)(mappings_count() - before->mappings_count);
    memory = round == 0 ? (long long)(memory_bytes() - before->memory_bytes) : -1;
    get = scan_ns(c, DH_SCAN_PEEK);
    take = scan_ns(c, DH_SCAN_TAKE);
    if (c->reported_count < count)
        check(ENODATA, "a page that was written is not reported;");
    printf("cost %s %u %u %llu %.1f %.1f %llu %llu %llu %lld %lld %llu\n", c->name, round, share,
           (unsigned long long)count, count != 0 ? (double)store / (double)count : 0,
           count != 0 ? (double)plain / (double)count : 0, (unsigned long long)get,
           (unsigned long long)take, (unsigned long long)c->reported_count, mappings, memory,
           (unsigned long long)arm_ns);
    fflush(stdout);
}

static bool cost_round(contestant *c, unsigned round)
{
    static const unsigned shares[] = {0, 100, 10000, 100000, PER_MILLION};
    baseline before = {.mappings_count = mappings_count()};
    uint64_t start;

    if (round == 0)
        before.memory_bytes = memory_bytes();
    start = dhi_clock_ns();
    if (!contestant_open(c))
        return false;
    start = dhi_clock_ns() - start;
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++)
        cost_of_share(c, round, shares[i], start, &before);
    contestant_close(c);
    return true;
}

static void costs(const dh_range *range, unsigned rounds, char **names, size_t names_count)
{
    bool *is_out = calloc(names_count, sizeof(*is_out));

    check(is_out == NULL ? ENOMEM : 0, "calloc");
    for (unsigned round = 0; round < rounds; round++)
        for (size_t i = 0; i < names_count; i++) {
            size_t turn = (i + round) % names_count; /* nobody is always the first */
            contestant c = contestant_named(names[turn], range);

            is_out[turn] = is_out[turn] || !cost_round(&c, round);
            dh_bits_finish(&c.found);
        }
    free(is_out);
}

/* --- emulated uses of GetWriteWatch ----------------------------------------------------------- */

static uint64_t random_state = 1;

static uint64_t random_below(uint64_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % limit;
}

static void store_word(const dh_range *range, uint64_t pgno)
{
    volatile uint64_t *word =
        (uint64_t *)(void *)dh_range_page(range, pgno) + random_below(DH_PAGE_WORDS);

    *word = *word + 1;
}

static uint64_t page_sum(const dh_range *range, uint64_t pgno)
{
    const volatile uint64_t *words = (uint64_t *)(void *)dh_range_page(range, pgno);
    uint64_t sum = 0;

    for (size_t i = 0; i < DH_PAGE_WORDS; i++)
        sum += words[i];
    return sum;
}

static volatile uint64_t sink;

/* A cycle returns how many pages it wrote; it adds what was reported to *reported. */
typedef uint64_t (*cycle)(contestant *c, uint64_t number, uint64_t *reported);

/* A collector's cards: 2000 stores, most of them into 64 pages; every written page is traced. */
static uint64_t cards_cycle(contestant *c, uint64_t number, uint64_t *reported)
{
    (void)number;
    for (int i = 0; i < 2000; i++)
        store_word(&c->range, i % 20 == 0 ? random_below(c->range.pages_count)
                                          : page_at(random_below(64), c->range.pages_count));
    *reported += scan(c, 0, c->range.pages_count, DH_SCAN_TAKE);
    for (uint64_t i = dh_bits_next(&c->found, 0, c->range.pages_count); i < c->range.pages_count;
         i = dh_bits_next(&c->found, i + 1, c->range.pages_count))
        sink += page_sum(&c->range, i);
    return 0;
}

/* A game's frame: textures of 256 KiB each, all asked about, eight of them written. */
#define TEXTURE_PAGES 64u
static uint64_t game_cycle(contestant *c, uint64_t number, uint64_t *reported)
{
    uint64_t textures_count = c->range.pages_count / TEXTURE_PAGES;

    for (uint64_t i = 0; i < 8; i++) {
        uint64_t texture = (number * 8 + i) % textures_count;

        for (uint64_t page = 0; page < 4; page++)
            store_word(&c->range, texture * TEXTURE_PAGES + page);
    }
    for (uint64_t texture = 0; texture < textures_count; texture++)
        *reported += scan(c, texture * TEXTURE_PAGES, TEXTURE_PAGES, DH_SCAN_TAKE);
    return 32;
}

/* Code that is read all the time and patched in every tenth interval, in one page. */
static uint64_t code_cycle(contestant *c, uint64_t number, uint64_t *reported)
{
    bool is_patched = number % 10 == 9;

    for (int i = 0; i < 200; i++)
        sink += page_sum(&c->range, random_below(c->range.pages_count));
    if (is_patched)
        store_word(&c->range, random_below(c->range.pages_count));
    *reported += scan(c, 0, c->range.pages_count, DH_SCAN_TAKE);
    return is_patched;
}

/* A copy that follows the memory: one page of a hundred is written, what was written is copied.
 * Without a watch everything is. */
static uint8_t *checkpoint_copy;
static uint64_t checkpoint_cycle(contestant *c, uint64_t number, uint64_t *reported)
{
    uint64_t pages_count = c->range.pages_count, count = pages_count / 100;

    for (uint64_t i = 0; i < count; i++)
        store_word(&c->range, page_at(number * count + i, pages_count));
    if (c->tracker == NULL) {
        memcpy(checkpoint_copy, c->range.base, pages_count << DH_PAGE_SHIFT);
        return count;
    }
    *reported += scan(c, 0, pages_count, DH_SCAN_TAKE);
    for (uint64_t i = dh_bits_next(&c->found, 0, pages_count); i < pages_count;
         i = dh_bits_next(&c->found, i + 1, pages_count))
        memcpy(checkpoint_copy + (i << DH_PAGE_SHIFT), dh_range_page(&c->range, i), DH_PAGE_BYTES);
    return count;
}

/* The pages found are forgotten outside the time, for all alike. */
static void work(contestant *c, cycle run, uint64_t budget_ns)
{
    uint64_t total_ns = 0, cycles = 0, written = 0, reported = 0;

    random_state = 1;
    if (!contestant_open(c))
        return;
    while (cycles < 1 || (total_ns < budget_ns && cycles < 10000)) {
        uint64_t start = dhi_clock_ns();

        written += run(c, cycles, &reported);
        total_ns += dhi_clock_ns() - start;
        dh_bits_clear_all(&c->found, c->range.pages_count);
        cycles++;
    }
    if (run == checkpoint_cycle &&
        memcmp(checkpoint_copy, c->range.base, c->range.pages_count << DH_PAGE_SHIFT) != 0)
        check(ENODATA, "the copy is not the memory;");
    if (c->tracker != NULL && reported < written)
        check(ENODATA, "a page that was written is not reported;");
    contestant_close(c);
    printf("work %s %llu %llu %llu %llu\n", c->name, (unsigned long long)(total_ns / cycles),
           (unsigned long long)cycles, (unsigned long long)written, (unsigned long long)reported);
    fflush(stdout);
}

static void works(const dh_range *range, cycle run, uint64_t budget_ms, char **names,
                  size_t names_count)
{
    size_t bytes = range->pages_count << DH_PAGE_SHIFT;

    checkpoint_copy = malloc(bytes);
    check(checkpoint_copy == NULL ? ENOMEM : 0, "malloc");
    for (size_t i = 0; i < names_count; i++) {
        contestant c = contestant_named(names[i], range);

        memcpy(checkpoint_copy, range->base, bytes);
        work(&c, run, budget_ms * 1000000u);
        dh_bits_finish(&c.found);
    }
    free(checkpoint_copy);
}

static cycle cycle_named(const char *name)
{
    static const struct {
        const char *name;
        cycle run;
    } cycles[] = {{"cards", cards_cycle},
                  {"game", game_cycle},
                  {"code", code_cycle},
                  {"checkpoint", checkpoint_cycle}};

    for (size_t i = 0; i < sizeof(cycles) / sizeof(cycles[0]); i++)
        if (strcmp(cycles[i].name, name) == 0)
            return cycles[i].run;
    return NULL;
}

int main(int argc, char **argv)
{
    uint64_t pages_count;
    dh_range range;
    void *base;

    if (argc < 5)
        check(EINVAL,
              "usage: watch_techniques cost|cards|game|code|checkpoint MEGABYTES N NAME...;");
    pages_count = strtoull(argv[2], NULL, 10) << (20 - DH_PAGE_SHIFT);
    check(pages_count == 0 || (pages_count & (pages_count - 1)) != 0 ? EINVAL : 0,
          "MEGABYTES must be a power of two;");
    check(dh_reserve(pages_count << DH_PAGE_SHIFT, &base), "dh_reserve");
    range = (dh_range){.base = base, .pages_count = pages_count};
    for (uint64_t i = 0; i < pages_count; i++) /* no page equals another */
        *(uint64_t *)(void *)dh_range_page(&range, i) = i + 1;
    if (strcmp(argv[1], "cost") == 0) {
        costs(&range, (unsigned)strtoul(argv[3], NULL, 10), argv + 4, (size_t)argc - 4);
    } else {
        check(cycle_named(argv[1]) == NULL ? EINVAL : 0, argv[1]);
        works(&range, cycle_named(argv[1]), strtoull(argv[3], NULL, 10), argv + 4,
              (size_t)argc - 4);
    }
    return 0;
}
