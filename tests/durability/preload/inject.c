/* inject.c -- the n-th call of a kind fails, is cut short, or is the last thing the process does.
 *
 * Costs one comparison a call while nothing is armed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload.h"

#define MODULES_MAX 8
#define DIE_BEFORE ((preload_act)100)

static atomic_uint armed_kinds;
static atomic_long calls_count;
static long fatal_call;
static preload_act act;
static bool is_lasting;
static int error_number;

typedef struct {
    uintptr_t start, end;
} module_range;
static module_range modules[MODULES_MAX];
static int modules_count; /* 0: all callers count */

_Noreturn void preload_die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

bool preload_is_armed(int kind)
{
    return (atomic_load_explicit(&armed_kinds, memory_order_acquire) & (1u << kind)) != 0;
}

preload_act preload_decide(int kind)
{
    if (!preload_is_armed(kind))
        return ACT_GO_ON;
    long number = atomic_fetch_add(&calls_count, 1);
    if (number != fatal_call && !(is_lasting && number > fatal_call))
        return ACT_GO_ON;
    if (act == DIE_BEFORE)
        preload_die();
    if (act == ACT_FAIL)
        errno = error_number;
    return act;
}

/* --- whose calls ------------------------------------------------------------------------------ */

bool preload_is_chosen(const void *caller)
{
    if (modules_count == 0)
        return true;
    for (int i = 0; i < modules_count; i++)
        if ((uintptr_t)caller >= modules[i].start && (uintptr_t)caller < modules[i].end)
            return true;
    return false;
}

static bool names_module(const char *names, const char *path)
{
    char part[256];

    for (const char *at = names; *at != '\0';) {
        size_t size = strcspn(at, ",");
        if (size > 0 && size < sizeof(part)) {
            memcpy(part, at, size);
            part[size] = '\0';
            if (strstr(path, part) != NULL)
                return true;
        }
        at += size + (at[size] == ',');
    }
    return false;
}

static int add_module(struct dl_phdr_info *info, size_t size, void *names)
{
    (void)size;
    if (modules_count == MODULES_MAX || !names_module(names, info->dlpi_name))
        return 0;
    module_range *range = &modules[modules_count++];
    *range = (module_range){UINTPTR_MAX, 0};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t start = (uintptr_t)(info->dlpi_addr + part->p_vaddr);
        if (part->p_type != PT_LOAD)
            continue;
        range->start = start < range->start ? start : range->start;
        range->end = start + part->p_memsz > range->end ? start + part->p_memsz : range->end;
    }
    return 0;
}

/* --- for the workload ------------------------------------------------------------------------- */

static preload_act act_of(const char *name)
{
    static const struct {
        const char *name;
        preload_act act;
    } names[] = {{"fail", ACT_FAIL},           {"fail-on", ACT_FAIL},
                 {"short", ACT_SHORT},         {"die-before", DIE_BEFORE},
                 {"die-after", ACT_DIE_AFTER}, {"die-torn", ACT_DIE_TORN}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i].name, name) == 0)
            return names[i].act;
    return ACT_GO_ON;
}

int preload_arm(unsigned kinds, long n, const char *name, int error, const char *names)
{
    preload_disarm();
    act = act_of(name);
    modules_count = 0;
    dl_iterate_phdr(add_module, (void *)(uintptr_t)names);
    if (act == ACT_GO_ON || (names[0] != '\0' && modules_count == 0))
        return -1;
    is_lasting = strcmp(name, "fail-on") == 0;
    fatal_call = n;
    error_number = error;
    atomic_store_explicit(&armed_kinds, kinds, memory_order_release);
    return 0;
}

long preload_disarm(void)
{
    atomic_store(&armed_kinds, 0);
    return atomic_exchange(&calls_count, 0);
}
