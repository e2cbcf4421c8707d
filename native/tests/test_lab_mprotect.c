/* The technique by SIGSEGV: who else handles it, the kernel's limit on mappings, refused memory. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lab/lab.h"
#include "../src/arena.h"
#include "check.h"

static void *state;
static dh_range range;
static dh_bits found;
static const dh_tracker *const tracker = &dhl_tracker_mprotect;

static void note(void *context, dh_pgno first, uint64_t count)
{
    (void)context;
    dh_bits_set_run(&found, first, count);
}

static void begin(uint64_t pages_count)
{
    char why[300];
    void *base;

    CHECK_EQ(dh_reserve(pages_count << DH_PAGE_SHIFT, &base), 0);
    range = (dh_range){.base = base, .pages_count = pages_count};
    CHECK_EQ(dh_bits_init(&found, pages_count), 0);
    CHECK_EQ(tracker->open(&range, NULL, &state, why, sizeof(why)), 0);
    CHECK_EQ(tracker->arm(state, pages_count), 0);
}

static void end(void)
{
    tracker->close(state);
    dh_bits_finish(&found);
    dh_unreserve(range.base, range.pages_count << DH_PAGE_SHIFT);
}

static uint64_t take(void)
{
    dh_bits_clear_all(&found, range.pages_count);
    CHECK_EQ(tracker->scan(state, 0, range.pages_count, DH_SCAN_TAKE, note, NULL), 0);
    return dh_bits_count(&found, range.pages_count);
}

static void write_page(uint64_t pgno) { *(volatile uint8_t *)dh_range_page(&range, pgno) = 1; }

/* --- handlers --------------------------------------------------------------------------------- */

/* Run in a child, which must end by this signal, or with this exit code (negative). */
static void in_child(void (*body)(void), int ending)
{
    pid_t child;
    int status;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(60);
        body();
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (ending > 0)
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == ending);
    else
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == -ending);
}

static uint8_t *volatile nowhere = (uint8_t *)64;

static void crash(void) { *(volatile uint8_t *)nowhere = 1; }

static void by_default(void)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};

    sigaction(SIGSEGV, &plain, NULL);
}

static void die_of_a_real_fault(void)
{
    by_default();
    begin(10);
    write_page(3);
    crash();
}

static void die_of_a_sent_signal(void)
{
    by_default();
    begin(10);
    raise(SIGSEGV);
}

static volatile sig_atomic_t passed_count;

static void count_and_exit(int signal_no, siginfo_t *info, void *context)
{
    (void)context;
    if (info->si_code <= 0) {
        passed_count++;
        return;
    }
    _exit(signal_no == SIGSEGV && (uintptr_t)info->si_addr == 64 ? 40 + passed_count : 1);
}

static void pass_on_to_an_earlier_handler(void)
{
    struct sigaction earlier = {.sa_sigaction = count_and_exit, .sa_flags = SA_SIGINFO}, now;

    sigaction(SIGSEGV, &earlier, NULL);
    begin(10);
    write_page(3);
    raise(SIGSEGV);
    raise(SIGSEGV);
    CHECK_EQ(passed_count, 2);
    CHECK_EQ(take(), 1);
    end();
    CHECK_EQ(sigaction(SIGSEGV, NULL, &now), 0);
    CHECK(now.sa_sigaction == count_and_exit); /* restored */
    begin(10);
    crash();
}

static void plain_handler(int signal_no) { _exit(signal_no == SIGSEGV ? 33 : 1); }

static void pass_on_to_a_plain_handler(void)
{
    signal(SIGSEGV, plain_handler);
    begin(10);
    crash();
}

static void ignore_what_was_ignored(void)
{
    signal(SIGSEGV, SIG_IGN);
    begin(10);
    raise(SIGSEGV);
    write_page(1);
    CHECK_EQ(take(), 1);
    crash(); /* cannot be ignored */
}

/* Somebody came later, and does not pass on; he might just as well: it cannot be known. */
static void refuse_below_another_handler(void)
{
    struct sigaction later = {.sa_sigaction = count_and_exit, .sa_flags = SA_SIGINFO}, now;
    char why[300] = "";
    dh_range other;
    void *base, *none;

    begin(10);
    sigaction(SIGSEGV, &later, NULL);
    CHECK_EQ(dh_reserve(DH_PAGE_BYTES, &base), 0);
    other = (dh_range){.base = base, .pages_count = 1};
    CHECK_EQ(tracker->open(&other, NULL, &none, why, sizeof(why)), DH_E_TRACKER);
    CHECK(strstr(why, "another handler") != NULL);
    end();
    CHECK_EQ(sigaction(SIGSEGV, NULL, &now), 0);
    CHECK(now.sa_sigaction == count_and_exit); /* not ours to remove */
    crash();
}

/* On the alternate stack where there is one, and in a handler of another signal. */
static void write_in_a_handler(int signal_no) { write_page((uint64_t)signal_no); }

static void write_within_other_handlers(void)
{
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};

    CHECK(stack.ss_sp != NULL && sigaltstack(&stack, NULL) == 0);
    begin(100);
    signal(SIGUSR1, write_in_a_handler);
    raise(SIGUSR1);
    CHECK_EQ(take(), 1);
    CHECK(dh_bits_test(&found, SIGUSR1));
    end();
}

static void handlers_are_chained_and_restored(void)
{
    in_child(die_of_a_real_fault, SIGSEGV);
    in_child(die_of_a_sent_signal, SIGSEGV);
    in_child(pass_on_to_an_earlier_handler, -42);
    in_child(pass_on_to_a_plain_handler, -33);
    in_child(ignore_what_was_ignored, SIGSEGV);
    in_child(refuse_below_another_handler, -40);
    in_child(write_within_other_handlers, 0);
}

static void errno_survives_a_first_store(void)
{
    begin(10);
    errno = 77;
    write_page(3);
    CHECK_EQ(errno, 77);
    end();
}

/* --- the kernel's limit on mappings ----------------------------------------------------------- */

static uint64_t mappings_max(void)
{
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    unsigned long long count;

    CHECK(file != NULL && fscanf(file, "%llu", &count) == 1);
    fclose(file);
    return count;
}

static uint64_t mappings_count(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    uint64_t count = 0;
    int c;

    CHECK(maps != NULL);
    while ((c = getc(maps)) != EOF)
        count += c == '\n';
    fclose(maps);
    return count;
}

/* Two mappings for each isolated page. At the limit stores go on, nothing is lost, and more is
 * reported than was written; afterwards it is exact again. */
static void at_the_limit_everything_counts_as_written(void)
{
    uint64_t limit = mappings_max(), pages_count = limit + 4000, before;

    if (limit > 300000) {
        printf("not here: vm.max_map_count is %llu\n", (unsigned long long)limit);
        return;
    }
    begin(pages_count);
    before = mappings_count();
    for (uint64_t pgno = 0; pgno < 2000; pgno += 2)
        write_page(pgno);
    CHECK(mappings_count() >= before + 1999);
    CHECK_EQ(take(), 1000);
    CHECK(mappings_count() <= before + 4);

    for (uint64_t pgno = 0; pgno < pages_count; pgno += 2)
        write_page(pgno);
    CHECK_EQ(take(), pages_count);
    write_page(5);
    write_page(pages_count - 1);
    CHECK_EQ(take(), 2);
    CHECK(dh_bits_test(&found, 5) && dh_bits_test(&found, pages_count - 1));
    end();
}

/* --- refused ---------------------------------------------------------------------------------- */

static void refuse(void *base, uint64_t pages_count)
{
    dh_range refused = {.base = base, .pages_count = pages_count};
    char why[300] = "";
    void *none;

    CHECK_EQ(tracker->open(&refused, NULL, &none, why, sizeof(why)), DH_E_TRACKER);
    CHECK(strstr(why, "writable and not executable") != NULL);
}

/* The second watch on the same memory would find it read-only. */
static void memory_is_watched_once(void)
{
    begin(10);
    refuse(range.base + DH_PAGE_BYTES, 2);
    end();
}

static void memory_of_other_kinds_is_refused(void)
{
    uint8_t *base;
    void *reserved;

    CHECK_EQ(dh_reserve(30 * DH_PAGE_BYTES, &reserved), 0);
    base = reserved;
    CHECK_EQ(mprotect(base + 10 * DH_PAGE_BYTES, DH_PAGE_BYTES, PROT_READ), 0);
    CHECK_EQ(munmap(base + 20 * DH_PAGE_BYTES, DH_PAGE_BYTES), 0);
    refuse(base, 11);
    refuse(base + 11 * DH_PAGE_BYTES, 10);
    CHECK_EQ(mprotect(base + 2 * DH_PAGE_BYTES, DH_PAGE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC),
             0);
    refuse(base, 5);
    CHECK_EQ(munmap(base, 30 * DH_PAGE_BYTES), 0);
}

static void ranges_are_limited_in_number(void)
{
    static void *states[1000];
    char why[300] = "";
    size_t count = 0;
    dh_range many;
    void *base;
    int rc;

    CHECK_EQ(dh_reserve(1000 * DH_PAGE_BYTES, &base), 0);
    many = (dh_range){.base = base, .pages_count = 1};
    while ((rc = tracker->open(&many, NULL, &states[count], why, sizeof(why))) == 0) {
        CHECK_EQ(tracker->arm(states[count], 1), 0);
        many.base += DH_PAGE_BYTES;
        CHECK(++count < 1000);
    }
    CHECK_EQ(rc, DH_E_LIMIT);
    CHECK(strstr(why, "ranges already") != NULL);
    ((uint8_t *)base)[(count - 1) << DH_PAGE_SHIFT] = 1;
    while (count-- > 0)
        tracker->close(states[count]);
    dh_unreserve(base, 1000 * DH_PAGE_BYTES);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    handlers_are_chained_and_restored();
    errno_survives_a_first_store();
    at_the_limit_everything_counts_as_written();
    memory_is_watched_once();
    memory_of_other_kinds_is_refused();
    ranges_are_limited_in_number();
    return 0;
}
