/* paths.c -- how a place is called: root['users'][17]['name'].
 *
 * A stack of frames is a chain of cells. Cells of containers and tuples make steps; what stands
 * between two of them (entries, leaves, nodes) tells which one. Contract: paths.h. Everything is read
 * as possibly damaged; what cannot be read is called so.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "dict_private.h"
#include "paths.h"
#include "record.h"
#include "sorted_private.h"
#include "vec_private.h"

#define PATH_BYTES 8192u
#define TEXT_BYTES_MAX 60u       /* of one key, in a whole path */
#define STEP_TEXT_BYTES_MAX 400u /* of one key, in a step by itself */
#define STEPS_FIRST 16u
#define STEPS_LAST 32u
#define ITEMS_MAX 4u

typedef struct {
    size_t used, key_bytes_max;
    char bytes[PATH_BYTES];
} text;

static text *text_new(size_t key_bytes_max)
{
    text *out = malloc(sizeof *out);
    if (out != NULL) {
        out->used = 0;
        out->key_bytes_max = key_bytes_max;
        out->bytes[0] = '\0';
    }
    return out;
}

/* What was put, with no more room than it needs. */
static char *text_take(text *out)
{
    char *taken = strdup(out->bytes);
    free(out);
    return taken;
}

DH_PRINTF(2, 3) static void put(text *out, const char *format, ...)
{
    size_t room = sizeof out->bytes - out->used;
    va_list arguments;

    va_start(arguments, format);
    int written = vsnprintf(out->bytes + out->used, room, format, arguments);
    va_end(arguments);
    if (written > 0)
        out->used += (size_t)written < room ? (size_t)written : room - 1;
}

/* --- keys ------------------------------------------------------------------------------------- */

static void put_byte(text *out, uint8_t byte, bool is_bytes)
{
    if (byte == '\'' || byte == '\\')
        put(out, "\\%c", byte);
    else if (byte < 0x20 || byte == 0x7f || (is_bytes && byte >= 0x80))
        put(out, "\\x%02x", byte);
    else
        put(out, "%c", byte);
}

static void put_quoted(text *out, const uint8_t *data, size_t size, bool is_bytes)
{
    size_t shown = size;
    if (size > out->key_bytes_max)
        for (shown = out->key_bytes_max; !is_bytes && shown > 0 && (data[shown] & 0xc0u) == 0x80u;)
            shown--; /* not in the middle of a character */
    put(out, is_bytes ? "b'" : "'");
    for (size_t i = 0; i < shown; i++)
        put_byte(out, data[i], is_bytes);
    put(out, shown < size ? "..'" : "'");
}

/* The shortest decimal that reads back as the same number, as Python writes it. */
static void put_float(text *out, double d)
{
    char digits[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, d);
        if (strtod(digits, NULL) == d)
            break;
    }
    bool is_whole = strspn(digits, "-0123456789") == strlen(digits);
    put(out, "%s%s", digits, is_whole ? ".0" : "");
}

static void put_word(text *out, const dh_heap *heap, dh_word w, unsigned depth);

static void put_items(text *out, const dh_heap *heap, dh_word w, unsigned depth)
{
    const dh_word *words;
    size_t count;

    if (depth > 2 || dh_tuple_read(heap, w, &words, &count) != 0) {
        put(out, "(..)");
        return;
    }
    put(out, dh_ref_type(w) == DH_T_TUPLE ? "(" : "frozenset(");
    for (size_t i = 0; i < count && i < ITEMS_MAX; i++) {
        put(out, i > 0 ? ", " : "");
        put_word(out, heap, words[i], depth + 1);
    }
    put(out, count > ITEMS_MAX ? ", ..)" : count == 1 ? ",)" : ")");
}

static void put_ref(text *out, const dh_heap *heap, dh_word w, unsigned depth)
{
    dh_bytes_view view;
    double number;
    bool is_negative;

    switch (dh_ref_type(w)) {
    case DH_T_STR:
    case DH_T_BYTES:
        if (dh_bytes_read(heap, w, &view) == 0)
            put_quoted(out, view.data, view.size, dh_ref_type(w) == DH_T_BYTES);
        else
            put(out, "<damaged text>");
        return;
    case DH_T_FLOAT:
        if (dh_float_read(heap, w, &number) == 0)
            put_float(out, number);
        else
            put(out, "<damaged number>");
        return;
    case DH_T_BIGINT:
        if (dh_bigint_read(heap, w, &is_negative, &view) == 0)
            put(out, "<int of %zu bytes>", view.size);
        else
            put(out, "<damaged number>");
        return;
    case DH_T_TUPLE:
    case DH_T_FROZENSET:
        put_items(out, heap, w, depth);
        return;
    case DH_T_EXT:
        put(out, "<packed value at %#" PRIx64 ">", dh_ref_off(w));
        return;
    case DH_T_RECORD:
        put(out, "<record at %#" PRIx64 ">", dh_ref_off(w));
        return;
    default:
        put(out, "<damaged key>");
    }
}

static void put_word(text *out, const dh_heap *heap, dh_word w, unsigned depth)
{
    uint8_t bytes[8];

    if (dh_is_int(w)) {
        put(out, "%" PRId64, dh_int_value(w));
    } else if (dh_is_short(w)) {
        dh_short_copy(w, bytes);
        put_quoted(out, bytes, dh_short_size(w), dh_short_is_bytes(w));
    } else if (dh_is_float(w)) {
        put_float(out, dh_float_value(w));
    } else if (dh_is_ref(w)) {
        put_ref(out, heap, w, depth);
    } else {
        put(out, "%s",
            w == DH_NONE    ? "None"
            : w == DH_TRUE  ? "True"
            : w == DH_FALSE ? "False"
                            : "<damaged key>");
    }
}

/* --- steps: out of one container -------------------------------------------------------------- */

/* A container's cell and the cells below it that are its own; the last is the one we leave from. */
typedef struct {
    const dh_heap *heap;
    const dh_frame *frames;
    size_t count;
} chain;

static const dh_word *chain_words(const chain *c, size_t i)
{
    return dh_at(c->heap, dh_ref_off(c->frames[i].word));
}
static uint64_t chain_index(const chain *c, size_t i) { return c->frames[i].next - 1; }
static bool chain_ends_in(const chain *c, dh_type type)
{
    return dh_ref_type(c->frames[c->count - 1].word) == type;
}

static void put_value_of(text *out, const chain *c, dh_word key)
{
    put(out, "[");
    put_word(out, c->heap, key, 0);
    put(out, "]");
}

static void put_key(text *out, const chain *c, dh_word key)
{
    put(out, " key ");
    put_word(out, c->heap, key, 0);
}

static void put_dict(text *out, const chain *c)
{
    const dh_word *head = chain_words(c, 0), *words = chain_words(c, c->count - 1);
    uint64_t index = chain_index(c, c->count - 1);

    if (chain_ends_in(c, DH_T_ENTRIES) && dict_width(head) == DICT_WIDTH) {
        if (index % 2 != 0)
            put_value_of(out, c, words[index - 1]);
        else
            put_key(out, c, words[index]);
    } else if (chain_ends_in(c, DH_T_ENTRIES)) {
        put(out, " element ");
        put_word(out, c->heap, words[index], 0);
    } else if (chain_ends_in(c, DH_T_VALUES)) {
        const dh_word *shape = dhi_shape_at(c->heap, head[DICT_INDEX], index + 1);
        put_value_of(out, c, shape != NULL ? shape[SHAPE_KEYS + index] : DH_EMPTY);
    } else if (c->count == 1 && index == DICT_ENTRIES) {
        put(out, " (its entries)");
    } else if (c->count == 1 && index > DICT_INDEX) {
        put(out, index == DH_ROOT_SHAPES ? " (shapes of the heap)" : " (classes of the heap)");
    } else {
        put(out, " (its index)");
    }
}

/* The number of the slot that the chain leads to. */
static uint64_t vec_slot(const chain *c)
{
    uint64_t slot = chain_index(c, c->count - 1);
    for (size_t i = 1; i + 1 < c->count; i++) {
        uint64_t at = chain_index(c, i);
        unsigned depth = (unsigned)(c->count - 1 - i);
        if (dh_ref_type(c->frames[i].word) == DH_T_NODE) {
            slot += depth <= DH_VEC_DEPTH_MAX ? at << VEC_BITS * depth : 0;
        } else {
            vec_rnode node;
            if (rnode_open(c->heap, c->frames[i].word, &node) && at - RNODE_REFS < node.count)
                slot += rnode_start(&node, (unsigned)(at - RNODE_REFS));
        }
    }
    return slot;
}

static void put_list(text *out, const chain *c)
{
    uint64_t gap = dh_meta_flags(chain_words(c, 0)[0]);
    if (chain_ends_in(c, DH_T_LEAF))
        put(out, "[%" PRIu64 "]", vec_slot(c) - gap);
    else
        put(out, " (its storage)");
}

static void put_sorted(text *out, const chain *c)
{
    uint64_t index = chain_index(c, c->count - 1);
    sorted_leaf leaf;

    if (!chain_ends_in(c, DH_T_SORTED_LEAF)) {
        put(out, " (its nodes)");
        return;
    }
    if (!sorted_leaf_open(c->heap, c->frames[c->count - 1].word, &leaf))
        put(out, " (a leaf)");
    else if (index >= SORTED_CELL_WORDS + leaf.room)
        put_value_of(out, c, leaf.keys[index - SORTED_CELL_WORDS - leaf.room]);
    else
        put_key(out, c, chain_words(c, c->count - 1)[index]);
}

/* The field that stands at a word of the head, or of the second cell. */
static bool field_at(const chain *c, dh_word *name_out)
{
    const dh_word *at = chain_words(c, c->count - 1) + chain_index(c, c->count - 1);
    dh_record_view view;
    dh_class_view class;

    if (dh_record_open(c->heap, c->frames[0].word, &view) != 0 ||
        dh_class_read(c->heap, view.class_word, &class) != 0)
        return false;
    for (size_t i = 0; i < class.count; i++) {
        int place = dh_record_place(&view, &class, i);
        if (place >= 0 && place < DH_RECORD_BIT && view.fields + place == at) {
            *name_out = class.words[3 * i];
            return true;
        }
    }
    return false;
}

static void put_record(text *out, const chain *c)
{
    uint8_t scratch[8];
    dh_bytes_view view;
    dh_word name;

    if (field_at(c, &name) && dh_text_read(c->heap, name, scratch, &view) == 0)
        put(out, ".%.*s", (int)(view.size < out->key_bytes_max ? view.size : out->key_bytes_max),
            (const char *)view.data);
    else
        put(out, c->count == 1 && chain_index(c, 0) == 1 ? " (its class)" : " (its fields)");
}

static void put_step(text *out, const chain *c)
{
    switch (dh_ref_type(c->frames[0].word)) {
    case DH_T_DICT:
    case DH_T_SET:
        put_dict(out, c);
        return;
    case DH_T_LIST:
    case DH_T_DEQUE:
        put_list(out, c);
        return;
    case DH_T_SORTED:
        put_sorted(out, c);
        return;
    case DH_T_RECORD:
        put_record(out, c);
        return;
    case DH_T_TUPLE:
        put(out, "[%" PRIu64 "]", chain_index(c, 0) - 1);
        return;
    case DH_T_FROZENSET:
        put(out, " element %" PRIu64, chain_index(c, 0) - 1);
        return;
    case DH_T_ARRAY:
        put(out, chain_index(c, 0) == 1 ? " (its buffer)" : " (its description)");
        return;
    case DH_T_BUFFER:
        put(out, " (its bytes)");
        return;
    default: /* what belongs to the whole heap */
        put(out, " word %" PRIu64, chain_index(c, 0));
    }
}

/* --- the path --------------------------------------------------------------------------------- */

/* Behind the last frame of the container that begins at first. */
static size_t step_end(const dh_frame *frames, size_t count, size_t first)
{
    size_t end = first + 1;
    while (end < count && dhi_is_inner(frames[end].word))
        end++;
    return end;
}

char *dhi_path_text(const dh_heap *heap, const char *origin, const dh_frame *frames, size_t count)
{
    text *out = text_new(TEXT_BYTES_MAX);
    uint64_t steps = 0, number = 0;

    if (out == NULL)
        return NULL;
    put(out, "%s", origin);
    for (size_t i = 0; i < count; i = step_end(frames, count, i))
        steps++;
    for (size_t i = 0; i < count; number++) {
        size_t end = step_end(frames, count, i);
        chain c = {heap, frames + i, end - i};
        if (number < STEPS_FIRST || number + STEPS_LAST >= steps)
            put_step(out, &c);
        else if (number == STEPS_FIRST)
            put(out, "..(%" PRIu64 " more)..", steps - STEPS_FIRST - STEPS_LAST);
        i = end;
    }
    return text_take(out);
}

char *dhi_path_step(const dh_heap *heap, const dh_frame *frames, size_t count)
{
    text *out = text_new(STEP_TEXT_BYTES_MAX);
    chain c = {heap, frames, count};

    if (out == NULL)
        return NULL;
    put_step(out, &c);
    return text_take(out);
}
