/* sorted_update.c -- SortedDict.update: many entries, stored all or not at all.
 *
 * Into an empty one: Python sorts the keys, which are exact types of the standard library or registered
 * enums, and the core builds the tree in one go. Into any other: (1) everything that can run
 * Python code or fail on a value: collect the entries, convert them. (2) Insert the absent keys; this
 * can run out of capacity or meet a key without a place, and is undone by deleting them again. (3)
 * Overwrite the present ones, which needs no memory. Never calls into Python between (2) and the end
 * of (3).
 */
#include <stdlib.h>

#include "sorted_type.h"

typedef struct {
    dh_word *pairs;
    char *is_stored; /* the pair's words belong to the dict by now */
    size_t count;
    bool is_rising; /* in the order of the keys */
} batch;

static int batch_init(batch *b, size_t count)
{
    *b = (batch){.count = count};
    b->pairs = malloc((2 * count + 1) * sizeof *b->pairs);
    b->is_stored = calloc(count + 1, 1);
    if (b->pairs != NULL && b->is_stored != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static void batch_finish(batch *b)
{
    free(b->pairs);
    free(b->is_stored);
}

static void drop_rest(dh_heap *heap, const batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (!b->is_stored[i]) {
            dh_value_drop(heap, b->pairs[2 * i]);
            dh_value_drop(heap, b->pairs[2 * i + 1]);
        }
}

/* --- storing ---------------------------------------------------------------------------------- */

/* An absent key is inserted (*was_stored_out), a present one is left alone. */
static int insert_if_absent(dh_heap *heap, dh_word sorted, const dh_word pair[2],
                            char *was_stored_out)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
    dh_word present;
    bool was_new;
    dh_key key;
    int rc = dh_key_from_word(heap, pair[0], scratch, &key, &buffer);
    if (rc == 0)
        rc = dh_sorted_get(heap, sorted, &key, &present);
    if (rc == DH_E_ABSENT) {
        rc = dh_sorted_set(heap, sorted, &key, pair[0], pair[1], &was_new);
        *was_stored_out = rc == 0;
    }
    free(buffer);
    return rc;
}

static int overwrite(dh_heap *heap, dh_word sorted, const dh_word pair[2])
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
    bool was_new;
    dh_key key;
    int rc = dh_key_from_word(heap, pair[0], scratch, &key, &buffer);
    if (rc == 0)
        rc = dh_sorted_set(heap, sorted, &key, pair[0], pair[1], &was_new);
    free(buffer);
    if (rc == 0)
        dh_value_drop(heap, pair[0]);
    return rc;
}

/* Delete what was inserted; frees only, so it does not fail on a sound heap. */
static void undo_inserts(dh_heap *heap, dh_word sorted, const batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
        dh_key key;
        if (!b->is_stored[i])
            continue;
        if (dh_key_from_word(heap, b->pairs[2 * i], scratch, &key, &buffer) == 0 &&
            dh_sorted_delete(heap, sorted, &key, NULL) != 0)
            heap->error_text[0] = '\0'; /* the failure that led here is told */
        free(buffer);
    }
}

static int insert_batch(dh_heap *heap, dh_word sorted, batch *b)
{
    int rc = 0;
    for (size_t i = 0; i < b->count && rc == 0; i++)
        rc = insert_if_absent(heap, sorted, &b->pairs[2 * i], &b->is_stored[i]);
    if (rc != 0) {
        undo_inserts(heap, sorted, b);
        return rc;
    }
    for (size_t i = 0; i < b->count && rc == 0; i++)
        if (!b->is_stored[i]) {
            rc = overwrite(heap, sorted, &b->pairs[2 * i]);
            b->is_stored[i] = rc == 0;
        }
    return rc;
}

static int store_batch(dhp_proxy *self, batch *b)
{
    dh_heap *heap = self->core->heap;
    uint64_t length;
    dh_word sorted = dhp_word_for_store(self);
    if (sorted == 0)
        return -1;
    int rc = dh_sorted_length(heap, sorted, &length);
    bool is_load = rc == 0 && length == 0 && b->is_rising;
    if (is_load)
        rc = dh_sorted_load(heap, sorted, b->pairs, b->count);
    /* Python's order of paths differs between its versions, and that of datetimes is not total. */
    if (is_load ? rc == DH_E_UNORDERED : rc == 0)
        rc = insert_batch(heap, sorted, b);
    if (rc == 0)
        return 0;
    drop_rest(heap, b);
    return dhp_raise(self->core, rc);
}

/* --- collecting ------------------------------------------------------------------------------- */

/* A plain dict with the same entries in the order of the keys. TypeError when they have none. */
static PyObject *in_order(PyObject *entries)
{
    PyObject *keys = PyDict_Keys(entries), *ordered = NULL;
    if (keys != NULL && PyList_Sort(keys) == 0)
        ordered = PyDict_New();
    Py_ssize_t count = ordered != NULL ? PyList_Size(keys) : 0;
    for (Py_ssize_t i = 0; ordered != NULL && i < count; i++) {
        PyObject *key = PyList_GetItem(keys, i);
        PyObject *value = key != NULL ? PyDict_GetItemWithError(entries, key) : NULL;
        if (value == NULL || PyDict_SetItem(ordered, key, value) < 0) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_RuntimeError, "dictionary changed during update");
            Py_CLEAR(ordered);
        }
    }
    Py_XDECREF(keys);
    return ordered;
}

/* 0, -1 or DHP_RETRY. */
static int check_keys(dhp_core *core, PyObject *entries, const dhp_packing *packing)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    int rc = 0;
    while (rc == 0 && PyDict_Next(entries, &position, &key, &value))
        rc = dhp_sorted_check_key(core, key, packing);
    return rc;
}

/* One attempt with the packed forms that there are; DHP_RETRY: gather more. */
static int store_entries(dhp_proxy *self, PyObject *entries, bool is_rising,
                         const dhp_packing *packing)
{
    batch b;
    if (dhp_word_for_store(self) == 0)
        return -1;
    int rc = batch_init(&b, (size_t)PyDict_Size(entries));
    if (rc == 0)
        rc = dhp_words_from_dict(self->core, entries, 0, packing, b.pairs);
    if (rc == 0) {
        b.is_rising = is_rising;
        rc = store_batch(self, &b);
    }
    batch_finish(&b);
    return rc;
}

/* Keys without a place are refused before anything is sorted, which may run their comparisons. */
static int check_all(dhp_proxy *self, PyObject *entries, dhp_packing *packing)
{
    int rc;
    do
        rc = check_keys(self->core, entries, packing);
    while (rc == DHP_RETRY && (rc = dhp_packing_gather(self->core, packing, entries)) == 0);
    return rc;
}

/* A plain dict of our own, so that packers do not change it. */
static int update_from_entries(dhp_proxy *self, PyObject *entries)
{
    dhp_packing packing = {0};
    PyObject *ordered = NULL;
    int rc = check_all(self, entries, &packing);
    Py_ssize_t length = rc == 0 ? dhp_sorted_length((PyObject *)self) : -1;
    if (length >= 0)
        ordered = length == 0 ? in_order(entries) : Py_NewRef(entries);
    rc = ordered != NULL ? 0 : -1;
    if (rc == 0)
        do
            rc = store_entries(self, ordered, length == 0, &packing);
        while (rc == DHP_RETRY && (rc = dhp_packing_gather(self->core, &packing, ordered)) == 0);
    dhp_packing_finish(self->core, &packing);
    Py_XDECREF(ordered);
    return rc;
}

int dhp_sorted_update(dhp_proxy *self, PyObject *other, PyObject *kwargs)
{
    if (dhp_word_for_store(self) == 0)
        return -1;
    if (other == (PyObject *)self)
        other = NULL;
    PyObject *entries = other == NULL              ? PyDict_New()
                        : PyDict_CheckExact(other) ? PyDict_Copy(other)
                                                   : dhp_collect_entries(other);
    int rc = entries != NULL ? 0 : -1;
    if (rc == 0 && kwargs != NULL)
        rc = PyDict_Update(entries, kwargs);
    if (rc == 0 && PyDict_Size(entries) > 0)
        rc = update_from_entries(self, entries);
    Py_XDECREF(entries);
    return rc;
}

const char dhp_sorted_update_doc[] =
    "update($self, other=(), /, **kwargs)\n--\n\n"
    "Store all entries of a mapping or of an iterable of pairs, then the keyword arguments.\n\n"
    "All or nothing: when an entry cannot be stored, a key cannot be compared with the others, or "
    "the\n"
    "capacity is reached, the dict stays as it was. O(entries log len); into an empty dict the "
    "entries\n"
    "are sorted and loaded as a whole.\n\n"
    ">>> heap.sorted_dict().update({'a': 1}, b=2)";
PyObject *dhp_sorted_update_method(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *other = NULL;
    if (!PyArg_UnpackTuple(args, "update", 0, 1, &other) ||
        dhp_sorted_update((dhp_proxy *)self, other, kwargs) < 0)
        return NULL;
    Py_RETURN_NONE;
}
