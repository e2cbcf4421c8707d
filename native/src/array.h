/* array.h -- Array: a typed, shaped window on the bytes of a Buffer.
 *
 *   head         [0] meta   [1] ref BUFFER   [2] ref TUPLE: the description   [3] EMPTY
 *   description  (dtype, shape, strides, offset), shape and strides tuples of ints, in bytes
 *   dtype        "<f8"                          a plain type, as numpy spells it
 *                (dtype, shape)                 a subarray, in a field only
 *                (bytes, flags, fields)         a structure; a field is (name, offset, dtype, title)
 *
 * Several Arrays may share one Buffer: that is how a stored view sees the stores through its base.
 * The head and the description never change. A description that dh_array_check passed addresses
 * nothing outside its Buffer, whatever the file says.
 */
#ifndef DH_ARRAY_H
#define DH_ARRAY_H

#include "heap.h"

#define DH_ARRAY_DIMS_MAX 64u

/* Flags of a structure. */
enum { DH_DTYPE_ALIGNED = 1, DH_DTYPE_RECORD = 2, DH_DTYPE_FLAGS = 3 };

/* The description is checked, and belongs to the Array if this succeeds. */
int dh_array_new(dh_heap *heap, dh_word buffer, dh_word description, dh_word *array_out)
    DH_MUST_USE;
/* The parts of a sound Array; DH_E_CORRUPT for any other. O(size of the description). */
int dh_array_read(const dh_heap *heap, dh_word array, dh_word *buffer_out, dh_word *description_out)
    DH_MUST_USE;
/* The Buffer alone, without a look at the description. */
int dh_array_buffer(const dh_heap *heap, dh_word array, dh_word *buffer_out) DH_MUST_USE;
int dh_array_check(const dh_heap *heap, dh_word array) DH_MUST_USE;

#endif
