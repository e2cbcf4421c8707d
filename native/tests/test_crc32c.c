/* test_crc32c.c -- published check values, and hardware against tables.
 *
 * The file under test is included, not linked: both of its paths are private.
 */
#include "../src/crc32c.c"

#include "check.h"

/* RFC 3720 (iSCSI), appendix B.4: a SCSI read command PDU. */
static const uint8_t iscsi_pdu[48] = {
    0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
    0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};

static void check_value(const void *data, size_t size, uint32_t expected)
{
    CHECK_EQ(dh_crc32c(0, data, size), expected);
    CHECK_EQ(~crc_update_tables(UINT32_MAX, data, size), expected);
}

static void published_values(void)
{
    uint8_t bytes[32];

    check_value("", 0, 0);
    check_value("123456789", 9, 0xE3069283u);
    memset(bytes, 0, sizeof(bytes));
    check_value(bytes, sizeof(bytes), 0x8A9136AAu);
    memset(bytes, 0xff, sizeof(bytes));
    check_value(bytes, sizeof(bytes), 0x62A8AB43u);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    check_value(bytes, sizeof(bytes), 0x46DD794Eu);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    check_value(bytes, sizeof(bytes), 0x113FDB5Cu);
    check_value(iscsi_pdu, sizeof(iscsi_pdu), 0xD9963A56u);
}

/* Bit by bit, as the polynomial is written. */
static uint32_t crc_slow(uint32_t crc, const uint8_t *p, size_t size)
{
    crc = ~crc;
    for (; size > 0; p++, size--) {
        crc ^= *p;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0x82F63B78u : 0u);
    }
    return ~crc;
}

static void fill_random(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)check_random();
}

static void any_cut_and_alignment_gives_the_same(void)
{
    uint8_t bytes[600];

    for (int round = 0; round < 2000; round++) {
        size_t start = check_random_below(16);
        size_t size = check_random_below(sizeof(bytes) - start + 1);
        size_t cut = check_random_below(size + 1);
        uint32_t expected;

        fill_random(bytes, sizeof(bytes));
        expected = crc_slow(0, bytes + start, size);
        check_value(bytes + start, size, expected);
        CHECK_EQ(dh_crc32c(dh_crc32c(0, bytes + start, cut), bytes + start + cut, size - cut),
                 expected);
    }
}

static void a_page_is_the_sum_of_its_quarters_sums(void)
{
    static uint8_t page[DH_PAGE_BYTES + 8];

    for (int round = 0; round < 100; round++) {
        const uint8_t *start = page + check_random_below(9);
        uint32_t sums[4], lanes[4];

        fill_random(page, sizeof(page));
        for (size_t i = 0; i < 4; i++)
            sums[i] = crc_slow(0, start + i * 1024, 1024);
        CHECK_EQ(dh_page_checksum(start), crc_slow(0, (const uint8_t *)sums, sizeof(sums)));
        crc_quarters_tables(start, lanes);
        for (size_t i = 0; i < 4; i++)
            CHECK_EQ(~lanes[i], sums[i]);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    if (!crc_has_instruction())
        printf("no crc32 instruction here: only the tables are tested\n");
    published_values();
    any_cut_and_alignment_gives_the_same();
    a_page_is_the_sum_of_its_quarters_sums();
    return 0;
}
