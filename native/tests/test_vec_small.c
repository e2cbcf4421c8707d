/* test_vec_small.c -- test_vec_splice.c with leaves and nodes of 16 words and relaxed nodes of at most
 * twelve children: every step between levels, and the deepest trees, come up in seconds.
 *
 * The vector's own sources are compiled in with these sizes and take the library's place; so is
 * list.c, which knows the size of a leaf.
 */
#define DH_VEC_BITS 4u
#define DH_VEC_RELAXED_CHILDREN_MAX 12u

#include "../src/list.c"
#include "../src/vec.c"
#include "../src/vec_check.c"
#include "../src/vec_merge.c"
#include "../src/vec_relax.c"
#include "../src/vec_relaxed.c"

#include "test_vec_splice.c"
