/* pagemap.h -- which pages of a range were written: the PAGEMAP_SCAN ioctl.
 *
 * Declarations of the kernel's interface stand here because the headers of most distributions are
 * older than the feature (Linux 6.7). Documentation/admin-guide/mm/pagemap.rst,
 * Documentation/admin-guide/mm/userfaultfd.rst; layouts as in uapi/linux/fs.h, userfaultfd.h.
 */
#ifndef DH_PAGEMAP_H
#define DH_PAGEMAP_H

#include <sys/ioctl.h>

#include "watch.h"

/* --- uapi: PAGEMAP_SCAN ----------------------------------------------------------------------- */

typedef struct {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
} dhk_page_region;

typedef struct {
    uint64_t size; /* of this struct */
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end; /* out: where the walk stopped                  */
    uint64_t vec;      /* address of dhk_page_region[vec_len]          */
    uint64_t vec_len;
    uint64_t max_pages; /* 0: no limit                                  */
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
} dhk_pm_scan_arg;

_Static_assert(sizeof(dhk_page_region) == 24, "layout of struct page_region");
_Static_assert(sizeof(dhk_pm_scan_arg) == 96, "layout of struct pm_scan_arg");

#define DHK_PAGEMAP_SCAN _IOWR('f', 16, dhk_pm_scan_arg)
#define DHK_PAGE_IS_WPALLOWED ((uint64_t)1 << 0)
#define DHK_PAGE_IS_WRITTEN ((uint64_t)1 << 1)
#define DHK_PAGE_IS_SOFT_DIRTY ((uint64_t)1 << 7)
#define DHK_PM_SCAN_WP_MATCHING ((uint64_t)1 << 0)
#define DHK_PM_SCAN_CHECK_WPASYNC ((uint64_t)1 << 1)

/* --- uapi: userfaultfd ------------------------------------------------------------------------ */

typedef struct {
    uint64_t api;
    uint64_t features;
    uint64_t ioctls;
} dhk_uffdio_api;

typedef struct {
    uint64_t start;
    uint64_t len;
    uint64_t mode;
    uint64_t ioctls;
} dhk_uffdio_register;

_Static_assert(sizeof(dhk_uffdio_api) == 24, "layout of struct uffdio_api");
_Static_assert(sizeof(dhk_uffdio_register) == 32, "layout of struct uffdio_register");

#define DHK_UFFD_API ((uint64_t)0xAA)
#define DHK_UFFD_USER_MODE_ONLY 1
#define DHK_USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#define DHK_UFFDIO_API _IOWR(0xAA, 0x3F, dhk_uffdio_api)
#define DHK_UFFDIO_REGISTER _IOWR(0xAA, 0x00, dhk_uffdio_register)
#define DHK_UFFDIO_REGISTER_MODE_WP ((uint64_t)1 << 1)
#define DHK_UFFD_FEATURE_WP_UNPOPULATED ((uint64_t)1 << 13)
#define DHK_UFFD_FEATURE_WP_ASYNC ((uint64_t)1 << 15)

/* --- the scanner ------------------------------------------------------------------------------ */

/* Bytes scanned per chunk: what one error costs. An eighth of the scan within these bounds, for each
 * call of the kernel costs as much as 2000 clean pages. Edges lie at multiples of 2 MiB, so that none
 * cuts a huge page. */
#define DHI_SCAN_CHUNK_BYTES_MIN ((uint64_t)64 << 20)
#define DHI_SCAN_CHUNK_BYTES_MAX ((uint64_t)128 << 20)
/* Regions of one call; a chunk may take several. */
#define DHI_SCAN_VEC_LEN 4096u

/* One scan at a time; the owner locks. */
typedef struct {
    int fd;               /* procfs pagemap of the owner                       */
    dhk_page_region *vec; /* outside the arena; never empty                    */
    uint64_t vec_len;     /* at least 1                                        */
} dhi_pagemap;

int dhi_pagemap_open(dhi_pagemap *pagemap, uint64_t vec_len);
/* Legal after the descriptor was closed elsewhere and fd set to -1. */
void dhi_pagemap_close(dhi_pagemap *pagemap);
/* Report the written pages among [first, first + count) from base on, ascending, each once. TAKE re-arms
 * them in the same step. After an error the chunk concerned is reported whole and the scan goes on;
 * the first code is returned: DH_E_WATCH when a page is not tracked. report NULL: arm only. */
int dhi_pagemap_scan(dhi_pagemap *pagemap, const uint8_t *base, dh_pgno first, uint64_t count,
                     dh_scan_mode mode, dh_watch_report report, void *context);

#endif
