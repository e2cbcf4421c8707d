/* test_sorted_tiny.c -- the same tests with leaves of 8 entries and nodes of 8 children: deep trees. */
#define SORTED_TINY
#define SORTED_LEAF_MAX 8u
#define SORTED_NODE_MAX 8u

#include "../src/sorted.c"
#include "../src/sorted_check.c"
#include "../src/sorted_delete.c"
#include "../src/sorted_find.c"
#include "../src/sorted_insert.c"
#include "../src/sorted_load.c"
#include "test_sorted.c"
