/* test_watch_uffd_dev.c -- all of test_watch_uffd.c, with the descriptor from the device node. */
#define TEST_TRACKER DH_TRACKER_UFFD_DEV
#include "test_watch_uffd.c"
