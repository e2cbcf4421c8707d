/* XXH64 against published digests, and that each byte of a page counts. */
#include "../lab/xxh64.h"

#include <string.h>

#include "check.h"

static void published_digests_are_met(void)
{
    static const char text[] = "Nobody inspects the spammish repetition";

    CHECK(dhl_xxh64("", 0, 0) == 0xEF46DB3751D8E999u);
    CHECK(dhl_xxh64("a", 1, 0) == 0xD24EC4F1A98C6E5Bu);
    CHECK(dhl_xxh64("abc", 3, 0) == 0x44BC2CF5AD770999u);
    CHECK(dhl_xxh64(text, strlen(text), 0) == 0xFBCEA83C8A378BF1u);
}

static void every_bit_of_a_page_counts(void)
{
    static uint8_t page[4096];
    uint64_t zeros = dhl_xxh64(page, sizeof(page), 0);

    for (size_t i = 0; i < sizeof(page); i++)
        page[i] = (uint8_t)check_random();
    uint64_t before = dhl_xxh64(page, sizeof(page), 0);
    CHECK(before != zeros && before != dhl_xxh64(page, sizeof(page), 1));
    for (size_t bit = 0; bit < 8 * sizeof(page); bit++) {
        page[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(dhl_xxh64(page, sizeof(page), 0) != before);
        page[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK(dhl_xxh64(page, sizeof(page), 0) == before);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    published_digests_are_met();
    every_bit_of_a_page_counts();
    return 0;
}
