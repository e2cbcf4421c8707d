/* convert_out.c -- words to Python values, one by one. Whole graphs: to_python.c.
 *
 * Follows nothing in the arena without the core's checked readers: a damaged file ends in
 * HeapCorruptError, not in a crash. Python's collector is paused wherever a second word or a
 * pointer into the arena is still needed after an object was made.
 */
#include "state.h"

#include <stdlib.h>

void dhp_memo_release(dhp_memo *memo)
{
    for (size_t i = 0; i < memo->room; i++)
        if (memo->items[i].key != 0)
            Py_DECREF((PyObject *)(uintptr_t)memo->items[i].value);
    dhp_memo_finish(memo);
}

static PyObject *corrupt(dhp_core *core)
{
    dhp_raise(core, DH_E_CORRUPT);
    return NULL;
}

static PyObject *text_object(dhp_core *core, const uint8_t *data, size_t size)
{
    PyObject *text = PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)size, "surrogatepass");
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        (void)dhp_raise_named(core->state, "HeapCorruptError", "a text is damaged: it is no UTF-8");
    }
    return text;
}

static PyObject *bytes_object(dhp_core *core, dh_word word)
{
    dh_bytes_view view;
    int rc = dh_bytes_read(core->heap, word, &view);
    if (rc != 0) {
        dhp_raise(core, rc);
        return NULL;
    }
    if (dh_ref_type(word) == DH_T_STR)
        return text_object(core, view.data, view.size);
    return PyBytes_FromStringAndSize((const char *)view.data, (Py_ssize_t)view.size);
}

static PyObject *short_object(dhp_core *core, dh_word word)
{
    uint8_t data[8];
    dh_short_copy(word, data);
    if (dh_short_is_bytes(word))
        return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)dh_short_size(word));
    return text_object(core, data, dh_short_size(word));
}

static PyObject *float_object(dhp_core *core, dh_word word)
{
    double d;
    int rc = dh_float_read(core->heap, word, &d);
    if (rc == 0)
        return PyFloat_FromDouble(d);
    dhp_raise(core, rc);
    return NULL;
}

/* By way of a hexadecimal text: the stable ABI has no other door for more than 64 bits that makes no
 * objects on the way. */
static PyObject *bigint_object(dhp_core *core, dh_word word)
{
    static const char digits[] = "0123456789abcdef";
    bool is_negative;
    dh_bytes_view view;
    int rc = dh_bigint_read(core->heap, word, &is_negative, &view);
    if (rc != 0) {
        dhp_raise(core, rc);
        return NULL;
    }
    char small[64], *large = NULL, *p = small;
    if (view.size * 2 + 3 > sizeof small) {
        p = large = malloc(view.size * 2 + 3);
        if (large == NULL)
            return PyErr_NoMemory();
    }
    if (is_negative)
        *p++ = '-';
    *p++ = '0'; /* never an empty number */
    for (size_t i = view.size; i-- > 0;) {
        *p++ = digits[view.data[i] >> 4];
        *p++ = digits[view.data[i] & 15];
    }
    *p = '\0';
    PyObject *number = PyLong_FromString(large != NULL ? large : small, NULL, 16);
    free(large);
    return number;
}

static PyObject *items_object(dhp_core *core, dhp_memo *shared, dh_word word);

/* Nested tuples and frozensets that several others share are made once (memo: word -> object, owned). */
static PyObject *items_object_guarded(dhp_core *core, dhp_memo *shared, dh_word word)
{
    bool is_shared = dh_tuple_is_shared(core->heap, word);
    PyObject *made = is_shared ? (PyObject *)(uintptr_t)dhp_memo_find(shared, word) : NULL;
    if (made != NULL)
        return Py_NewRef(made);
    if (dhp_recursion_enter(" while a tuple is read from a heap") != 0)
        return NULL;
    made = items_object(core, shared, word);
    dhp_recursion_leave();
    if (made == NULL || !is_shared)
        return made;
    if (dhp_memo_add(shared, word, (uint64_t)(uintptr_t)made) != 0) {
        Py_DECREF(made);
        return PyErr_NoMemory();
    }
    return Py_NewRef(made);
}

/* Add to a frozenset that nobody has seen. Its elements are exact built-in objects: only a damaged
 * file has some that cannot be hashed. */
static int frozenset_add(dhp_core *core, PyObject *frozenset, PyObject *item)
{
    int failed = PySet_Add(frozenset, item);
    Py_DECREF(item);
    if (failed && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        corrupt(core);
    }
    return failed;
}

static PyObject *items_object(dhp_core *core, dhp_memo *shared, dh_word word)
{
    bool is_tuple = dh_is_ref_to(word, DH_T_TUPLE);
    const dh_word *words;
    size_t count;
    int rc = dh_tuple_read(core->heap, word, &words, &count);
    if (rc != 0) {
        dhp_raise(core, rc);
        return NULL;
    }
    PyObject *made = is_tuple ? PyTuple_New((Py_ssize_t)count) : PyFrozenSet_New(NULL);
    for (size_t i = 0; made != NULL && i < count; i++) {
        dh_word item_word = dh_load(&words[i]);
        PyObject *item = dh_is_items(item_word) ? items_object_guarded(core, shared, item_word)
                                                : dhp_raw_from(core, item_word);
        if (item == NULL || (is_tuple ? PyTuple_SetItem(made, (Py_ssize_t)i, item)
                                      : frozenset_add(core, made, item)) < 0)
            Py_CLEAR(made);
    }
    return made;
}

static PyObject *outer_items_object(dhp_core *core, dh_word word)
{
    dhp_memo shared = {0};
    int was_enabled = dhp_gc_pause();
    PyObject *made = items_object_guarded(core, &shared, word);
    dhp_gc_resume(was_enabled);
    dhp_memo_release(&shared);
    return made;
}

static PyObject *ref_object(dhp_core *core, dh_word word)
{
    switch (dh_ref_type(word)) {
    case DH_T_STR:
    case DH_T_BYTES:
        return bytes_object(core, word);
    case DH_T_FLOAT:
        return float_object(core, word);
    case DH_T_BIGINT:
        return bigint_object(core, word);
    case DH_T_TUPLE:
    case DH_T_FROZENSET:
        return outer_items_object(core, word);
    case DH_T_EXT:
        return dhp_packed_from(core, word);
    case DH_T_ARRAY:
        return dhp_array_raw(core, word);
    default:
        return dhp_proxy_get(core, word);
    }
}

PyObject *dhp_raw_from_slow(dhp_core *core, dh_word word)
{
    if (dh_is_short(word))
        return short_object(core, word);
    if (dh_is_ref(word))
        return ref_object(core, word);
    if (word == DH_NONE)
        return Py_NewRef(Py_None);
    if (word == DH_TRUE)
        return Py_NewRef(Py_True);
    if (word == DH_FALSE)
        return Py_NewRef(Py_False);
    if (dh_is_float(word))
        return PyFloat_FromDouble(dh_float_value(word));
    if (dh_is_int(word))
        return PyLong_FromLongLong(dh_int_value(word));
    return corrupt(core);
}

PyObject *dhp_object_from_slow(dhp_core *core, dh_word word)
{
    if (DH_LIKELY(dh_is_ref_to(word, DH_T_STR))) /* before all else: what most keys are */
        return bytes_object(core, word);
    if (dh_is_ref_to(word, DH_T_EXT))
        return dhp_unpacked(core, word);
    uint64_t count_before = core->placeholders_count;
    return dhp_resolve(core, count_before, dhp_raw_from_slow(core, word));
}

int dhp_raws_from_pair(dhp_core *core, dh_word key, dh_word value, PyObject **key_out,
                       PyObject **value_out)
{
    int was_enabled = dhp_gc_pause();
    PyObject *key_obj = dhp_raw_key(core, key);
    PyObject *value_obj = key_obj != NULL ? dhp_raw_from(core, value) : NULL;
    dhp_gc_resume(was_enabled);
    if (value_obj == NULL) {
        Py_XDECREF(key_obj);
        return -1;
    }
    *key_out = key_obj;
    *value_out = value_obj;
    return 0;
}

int dhp_objects_from_pair(dhp_core *core, dh_word key, dh_word value, PyObject **key_out,
                          PyObject **value_out)
{
    uint64_t count_before = core->placeholders_count;
    if (dhp_raws_from_pair(core, key, value, key_out, value_out) < 0)
        return -1;
    *key_out = dhp_resolve(core, count_before, *key_out);
    if (*key_out != NULL)
        *value_out = dhp_resolve(core, count_before, *value_out);
    if (*key_out != NULL && *value_out != NULL)
        return 0;
    Py_CLEAR(*key_out);
    Py_CLEAR(*value_out);
    return -1;
}

PyObject *dhp_pair_object(PyObject *key, PyObject *value)
{
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        Py_DECREF(key);
        Py_DECREF(value);
        return NULL;
    }
    PyTuple_SetItem(pair, 0, key);
    PyTuple_SetItem(pair, 1, value);
    return pair;
}
