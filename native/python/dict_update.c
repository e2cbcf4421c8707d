/* dict_update.c -- Dict.update: many entries, stored all or not at all.
 *
 * Three steps. (1) Everything that can run Python code or fail on a value: collect the entries in a
 * plain dict, convert them. (2) Insert the absent keys; this can run out of capacity, and is undone
 * by deleting what was appended. (3) Overwrite the present ones, which needs no memory.
 * Never calls into Python between (2) and the end of (3).
 */
#include "state.h"

#include <stdlib.h>

/* The entries as words: pairs[2i] key or EMPTY (present, make it from the source), pairs[2i+1]. */
typedef struct {
    dh_word *pairs;
    size_t count;
    PyObject *source; /* plain dict, in the order of the pairs; NULL: no key is EMPTY */
} batch;

/* --- step 2 ----------------------------------------------------------------------------------- */

/* Call with a stored key: dh_key_from_word, then 'lookup' or 'set', then free. */
static int with_key(dh_heap *heap, dh_word dict, dh_word key_word, dh_word value, bool is_lookup)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
    dh_key key;
    dh_word ignored;
    bool was_new;
    int rc = dh_key_from_word(heap, key_word, scratch, &key, &buffer);
    if (rc == 0 && is_lookup)
        rc = dh_dict_get(heap, dict, &key, &ignored);
    else if (rc == 0) {
        rc = dh_dict_set(heap, dict, &key, key_word, value, &was_new);
        if (rc == 0 && !was_new)
            dh_value_drop(heap, key_word);
    }
    free(buffer);
    return rc;
}

/* Delete the newest entries; frees only, so it does not fail on a sound heap. */
static void undo_inserts(dh_heap *heap, dh_word dict, size_t count)
{
    for (; count > 0; count--) {
        uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
        dh_dict_pos position = {0, 0};
        dh_word key_word, value;
        dh_key key;
        int rc = dh_dict_prev(heap, dict, &position, &key_word, &value);
        if (rc == 1 && dh_key_from_word(heap, key_word, scratch, &key, &buffer) == 0)
            rc = dh_dict_delete(heap, dict, &key, NULL);
        free(buffer);
        if (rc != 0)
            return;
    }
}

/* Stored pairs get the key DELETED. */
static int insert_absent(dh_heap *heap, dh_word dict, batch *b, bool was_empty)
{
    size_t inserted_count = 0;
    for (size_t i = 0; i < b->count; i++) {
        dh_word *pair = &b->pairs[2 * i];
        if (pair[0] == DH_EMPTY)
            continue;
        int rc = was_empty ? DH_E_ABSENT : with_key(heap, dict, pair[0], 0, true);
        if (rc == 0)
            continue;
        if (rc == DH_E_ABSENT)
            rc = with_key(heap, dict, pair[0], pair[1], false);
        if (rc != 0) {
            undo_inserts(heap, dict, inserted_count);
            return rc;
        }
        pair[0] = DH_DELETED;
        inserted_count++;
    }
    return 0;
}

/* --- step 3 ----------------------------------------------------------------------------------- */

static int overwrite_from_source(dhp_core *core, dh_word dict, PyObject *key_obj, dh_word value)
{
    dhp_key key;
    bool was_new;
    if (dhp_key_init_plain(core, key_obj, NULL, &key) != DHP_KEY_READY)
        return ENOMEM;
    int rc = dh_dict_set(core->heap, dict, &key.key, DH_EMPTY, value, &was_new);
    dhp_key_finish(&key);
    return rc;
}

static int overwrite_present(dhp_core *core, dh_word dict, batch *b)
{
    PyObject *key_obj = NULL, *ignored;
    Py_ssize_t position = 0;
    for (size_t i = 0; i < b->count; i++) {
        dh_word *pair = &b->pairs[2 * i];
        int rc = 0;
        if (b->source != NULL)
            PyDict_Next(b->source, &position, &key_obj, &ignored);
        if (pair[0] == DH_EMPTY)
            rc = overwrite_from_source(core, dict, key_obj, pair[1]);
        else if (pair[0] != DH_DELETED)
            rc = with_key(core->heap, dict, pair[0], pair[1], false);
        if (rc != 0)
            return rc;
        pair[0] = DH_DELETED;
    }
    return 0;
}

static void drop_rest(dhp_core *core, const batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->pairs[2 * i] != DH_DELETED)
            dhp_words_drop(core, &b->pairs[2 * i], 2);
}

static int store_batch(dhp_proxy *self, batch *b)
{
    uint64_t length;
    dhp_core *core = self->core;
    dh_word dict = dhp_word_for_store(self);
    if (dict == 0)
        return -1;
    int rc = dh_dict_length(core->heap, dict, &length);
    if (rc == 0)
        rc = dh_dict_reserve(core->heap, dict, b->count);
    if (rc == 0)
        rc = insert_absent(core->heap, dict, b, length == 0);
    if (rc == 0)
        rc = overwrite_present(core, dict, b);
    if (rc == 0)
        return 0;
    drop_rest(core, b);
    return dhp_raise(core, rc);
}

/* --- step 1 ----------------------------------------------------------------------------------- */

static int batch_init(batch *b, size_t count, PyObject *source)
{
    b->count = count;
    b->source = source;
    b->pairs = malloc((2 * count + 1) * sizeof *b->pairs);
    if (b->pairs != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

/* An empty dict takes the shape and all values at once. */
static int store_shaped(dhp_proxy *self, dh_word shape, const dh_word *values, size_t count)
{
    dhp_core *core = self->core;
    int rc = dh_dict_fill_shaped(core->heap, self->handle.word, shape, values, (unsigned)count);
    if (rc == 0)
        return 0;
    dhp_words_drop(core, values, count);
    return dhp_raise(core, rc);
}

static bool is_empty(const dhp_proxy *self, dh_word dict)
{
    uint64_t length;
    return dh_dict_length(self->core->heap, dict, &length) == 0 && length == 0;
}

static int shaped_from_plain(dhp_proxy *self, PyObject *dict, PyObject *const *values,
                             dh_word shape, const dhp_packing *packing)
{
    dh_word words[DH_SHAPE_KEYS_MAX];
    int rc = dhp_words_from_values(self->core, dict, values, packing, words);
    return rc != 0 ? rc : store_shaped(self, shape, words, (size_t)PyDict_Size(dict));
}

static int pairs_from_plain(dhp_proxy *self, PyObject *dict, dh_word target,
                            const dhp_packing *packing)
{
    batch b;
    if (batch_init(&b, (size_t)PyDict_Size(dict), dict) < 0)
        return -1;
    int rc = dhp_words_from_dict(self->core, dict, target, packing, b.pairs);
    if (rc == 0)
        rc = store_batch(self, &b);
    free(b.pairs);
    return rc;
}

/* The shape for an update of an empty dict; EMPTY when the dict is not empty. */
static dh_word shape_for_update(dhp_proxy *self, dh_word target, PyObject *dict,
                                PyObject **values_out)
{
    if (!is_empty(self, target))
        return DH_EMPTY;
    int was_enabled = dhp_gc_pause();
    dh_word shape = dhp_shape_of_dict(self->core, dict, values_out);
    dhp_gc_resume(was_enabled);
    return shape;
}

/* A packer may have changed all that was looked at: every round looks again. */
static int update_from_plain(dhp_proxy *self, PyObject *dict)
{
    dhp_packing packing = {0};
    int rc;
    do {
        PyObject *values[DH_SHAPE_KEYS_MAX];
        dh_word target = dhp_word_for_store(self);
        dh_word shape = target == 0 ? DH_EMPTY : shape_for_update(self, target, dict, values);
        rc = target == 0         ? -1
             : shape != DH_EMPTY ? shaped_from_plain(self, dict, values, shape, &packing)
                                 : pairs_from_plain(self, dict, target, &packing);
    } while (rc == DHP_RETRY && (rc = dhp_packing_gather(self->core, &packing, dict)) == 0);
    dhp_packing_finish(self->core, &packing);
    return rc;
}

/* Copies of all words of another dict of the same heap. Under a journal. */
static int clone_entries(dh_heap *heap, dh_word source, batch *b)
{
    dh_dict_pos position = {0, 0};
    dh_word key, value;
    size_t i = 0;
    int rc;
    while ((rc = dh_dict_next(heap, source, &position, &key, &value)) == 1) {
        if (i == b->count)
            return DH_E_CORRUPT;
        rc = dh_value_clone(heap, key, &b->pairs[2 * i]);
        if (rc == 0)
            rc = dh_value_clone(heap, value, &b->pairs[2 * i + 1]);
        if (rc != 0)
            return rc;
        i++;
    }
    b->count = i;
    return rc;
}

/* An empty dict from one that has a shape: the values alone are copied. */
static int shaped_from_dict(dhp_proxy *self, dh_word source, dh_word shape)
{
    dh_heap *heap = self->core->heap;
    dh_dict_pos position = {0, 0};
    dh_word values[DH_SHAPE_KEYS_MAX], key, value;
    size_t count = 0;
    int rc = 0;
    dh_journal_begin(heap);
    while (rc == 0 && count < DH_SHAPE_KEYS_MAX &&
           (rc = dh_dict_next(heap, source, &position, &key, &value)) == 1)
        rc = dh_value_clone(heap, value, &values[count++]);
    if (rc != 0) {
        dh_journal_abort(heap);
        return dhp_raise(self->core, rc);
    }
    dh_journal_commit(heap);
    return store_shaped(self, shape, values, count);
}

static int update_from_dict(dhp_proxy *self, dhp_proxy *source)
{
    batch b;
    dh_heap *heap = self->core->heap;
    Py_ssize_t count = dhp_dict_length((PyObject *)source);
    dh_word target = count < 0 ? 0 : dhp_word_for_store(self);
    if (target == 0)
        return -1;
    dh_word shape = is_empty(self, target) ? dh_dict_shape(heap, source->handle.word) : DH_EMPTY;
    if (shape != DH_EMPTY)
        return shaped_from_dict(self, source->handle.word, shape);
    if (batch_init(&b, (size_t)count, NULL) < 0)
        return -1;
    dh_journal_begin(heap);
    int rc = clone_entries(heap, source->handle.word, &b);
    if (rc == 0) {
        dh_journal_commit(heap);
        rc = store_batch(self, &b);
    } else {
        dh_journal_abort(heap);
        rc = dhp_raise(self->core, rc);
    }
    free(b.pairs);
    return rc;
}

/* Any mapping or iterable of pairs, as a plain dict; runs Python code. */
PyObject *dhp_collect_entries(PyObject *other)
{
    PyObject *entries = PyDict_New();
    PyObject *keys = entries ? PyObject_GetAttrString(other, "keys") : NULL;
    int rc = -1;
    if (keys != NULL) {
        rc = PyDict_Update(entries, other);
    } else if (entries != NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        rc = PyDict_MergeFromSeq2(entries, other, 1);
    }
    Py_XDECREF(keys);
    if (rc < 0)
        Py_CLEAR(entries);
    return entries;
}

static int update_from_other(dhp_proxy *self, PyObject *other, PyObject *kwargs)
{
    PyObject *entries = PyDict_CheckExact(other) ? PyDict_Copy(other) : dhp_collect_entries(other);
    int rc = entries != NULL ? 0 : -1;
    if (rc == 0 && kwargs != NULL)
        rc = PyDict_Update(entries, kwargs);
    if (rc == 0)
        rc = update_from_plain(self, entries);
    Py_XDECREF(entries);
    return rc;
}

int dhp_dict_update(dhp_proxy *self, PyObject *other, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_Size(kwargs) == 0)
        kwargs = NULL;
    if (dhp_word_for_store(self) == 0)
        return -1;
    if (other == NULL)
        return kwargs != NULL ? update_from_plain(self, kwargs) : 0;
    if (kwargs != NULL)
        return update_from_other(self, other, kwargs);
    if (PyDict_CheckExact(other))
        return update_from_plain(self, other);
    if (other == (PyObject *)self)
        return 0;
    if (Py_TYPE(other) == self->core->state->dict_type && ((dhp_proxy *)other)->core == self->core)
        return update_from_dict(self, (dhp_proxy *)other);
    return update_from_other(self, other, NULL);
}

const char dhp_dict_update_doc[] =
    "update($self, other=(), /, **kwargs)\n--\n\n"
    "Store all entries of a mapping or of an iterable of pairs, then the keyword arguments.\n\n"
    "All or nothing: when an entry cannot be stored, or the capacity is reached, the dict stays as "
    "it\n"
    "was. A generator is read to its end first. O(entries).\n\n"
    ">>> heap.root.update({'a': 1}, b=2)";
PyObject *dhp_dict_update_method(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *other = NULL;
    if (!PyArg_UnpackTuple(args, "update", 0, 1, &other) ||
        dhp_dict_update((dhp_proxy *)self, other, kwargs) < 0)
        return NULL;
    Py_RETURN_NONE;
}
