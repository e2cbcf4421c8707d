/* crc32c.h -- checksums of pages and records: CRC-32C (Castagnoli), in hardware where there is any. */
#ifndef DH_CRC32C_H
#define DH_CRC32C_H

#include "base.h"

/* Start with crc = 0; feed the result back to go on. */
uint32_t dh_crc32c(uint32_t crc, const void *data, size_t size);
/* A page's checksum: CRC-32C over the four little-endian CRC-32Cs of its quarters (four lanes run
 * side by side in hardware, three times as fast as one). */
uint32_t dh_page_checksum(const uint8_t page[DH_PAGE_BYTES]);

#endif
