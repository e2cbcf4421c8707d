/* crc32c.c -- CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected 0x82F63B78; RFC 3720 B.4).
 *
 * Hardware and tables must give the same result: what one machine wrote another one verifies. The
 * crc32 instruction takes three cycles but a new one starts every cycle, so a page is summed as
 * four independent quarters. Tables: slicing by eight (Kounavis, Berry 2005). Both paths work on
 * the inverted register; only the two functions of the header invert.
 */
#include "crc32c.h"

#include <pthread.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#define CRC32C_POLYNOMIAL 0x82F63B78u
#define QUARTER_BYTES (DH_PAGE_BYTES / 4u)

static uint32_t crc_tables[8][256];
static pthread_once_t crc_tables_once = PTHREAD_ONCE_INIT;

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* --- tables ----------------------------------------------------------------------------------- */

static void crc_tables_fill(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;

        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1u) != 0 ? CRC32C_POLYNOMIAL : 0u);
        crc_tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++) {
            uint32_t crc = crc_tables[t - 1][i];
            crc_tables[t][i] = (crc >> 8) ^ crc_tables[0][crc & 0xffu];
        }
}

static uint32_t crc_update_tables(uint32_t crc, const uint8_t *p, size_t size)
{
    pthread_once(&crc_tables_once, crc_tables_fill);
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t v = load_u64(p) ^ crc;

        crc = 0;
        for (int t = 0; t < 8; t++)
            crc ^= crc_tables[7 - t][(v >> (8 * t)) & 0xffu];
    }
    for (; size > 0; p++, size--)
        crc = (crc >> 8) ^ crc_tables[0][(crc ^ *p) & 0xffu];
    return crc;
}

static void crc_quarters_tables(const uint8_t *page, uint32_t lanes[4])
{
    for (size_t i = 0; i < 4; i++)
        lanes[i] = crc_update_tables(UINT32_MAX, page + i * QUARTER_BYTES, QUARTER_BYTES);
}

/* --- the instruction -------------------------------------------------------------------------- */

#if defined(__x86_64__)
static bool crc_has_instruction(void) { return __builtin_cpu_supports("sse4.2") != 0; }

__attribute__((target("sse4.2"))) static uint32_t crc_update_instruction(uint32_t crc,
                                                                         const uint8_t *p,
                                                                         size_t size)
{
    uint64_t wide = crc;

    for (; size >= 8; p += 8, size -= 8)
        wide = _mm_crc32_u64(wide, load_u64(p));
    crc = (uint32_t)wide;
    for (; size > 0; p++, size--)
        crc = _mm_crc32_u8(crc, *p);
    return crc;
}

__attribute__((target("sse4.2"))) static void crc_quarters_instruction(const uint8_t *page,
                                                                       uint32_t lanes[4])
{
    uint64_t a = UINT32_MAX, b = UINT32_MAX, c = UINT32_MAX, d = UINT32_MAX;

    for (size_t i = 0; i < QUARTER_BYTES; i += 8) {
        a = _mm_crc32_u64(a, load_u64(page + i));
        b = _mm_crc32_u64(b, load_u64(page + QUARTER_BYTES + i));
        c = _mm_crc32_u64(c, load_u64(page + 2 * QUARTER_BYTES + i));
        d = _mm_crc32_u64(d, load_u64(page + 3 * QUARTER_BYTES + i));
    }
    lanes[0] = (uint32_t)a;
    lanes[1] = (uint32_t)b;
    lanes[2] = (uint32_t)c;
    lanes[3] = (uint32_t)d;
}
#else
static bool crc_has_instruction(void) { return false; }
#define crc_update_instruction crc_update_tables
#define crc_quarters_instruction crc_quarters_tables
#endif

/* --- the contract ----------------------------------------------------------------------------- */

uint32_t dh_crc32c(uint32_t crc, const void *data, size_t size)
{
    if (DH_LIKELY(crc_has_instruction()))
        return ~crc_update_instruction(~crc, data, size);
    return ~crc_update_tables(~crc, data, size);
}

uint32_t dh_page_checksum(const uint8_t page[DH_PAGE_BYTES])
{
    uint32_t lanes[4];
    uint8_t joined[16];

    if (DH_LIKELY(crc_has_instruction()))
        crc_quarters_instruction(page, lanes);
    else
        crc_quarters_tables(page, lanes);
    for (size_t i = 0; i < sizeof(joined); i++)
        joined[i] = (uint8_t)(~lanes[i / 4] >> (8 * (i % 4)));
    return dh_crc32c(0, joined, sizeof(joined));
}
