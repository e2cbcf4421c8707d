/* convert_out.c -- words to Python values: one by one, and whole graphs as plain copies.
 *
 * Follows nothing in the arena without the core's checked readers: a damaged file ends in
 * HeapCorruptError, not in a crash. Python's collector is paused wherever a second word or a
 * pointer into the arena is still needed after an object was made.
 */
#include "state.h"

#include <stdlib.h>

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
        return corrupt(core);
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
    char *text = malloc(view.size * 2 + 3), *p = text;
    if (text == NULL)
        return PyErr_NoMemory();
    if (is_negative)
        *p++ = '-';
    *p++ = '0'; /* never an empty number */
    for (size_t i = view.size; i-- > 0;) {
        *p++ = digits[view.data[i] >> 4];
        *p++ = digits[view.data[i] & 15];
    }
    *p = '\0';
    PyObject *number = PyLong_FromString(text, NULL, 16);
    free(text);
    return number;
}

static PyObject *tuple_object(dhp_core *core, dh_word word)
{
    const dh_word *words;
    size_t count;
    int rc = dh_tuple_read(core->heap, word, &words, &count);
    if (rc != 0) {
        dhp_raise(core, rc);
        return NULL;
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *item = dhp_object_from(core, dh_load(&words[i]));
        if (item == NULL || PyTuple_SetItem(tuple, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *tuple_object_guarded(dhp_core *core, dh_word word)
{
    if (Py_EnterRecursiveCall(" while a tuple is read from a heap") != 0)
        return NULL;
    int was_enabled = dhp_gc_pause();
    PyObject *tuple = tuple_object(core, word);
    dhp_gc_resume(was_enabled);
    Py_LeaveRecursiveCall();
    return tuple;
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
        return tuple_object_guarded(core, word);
    case DH_T_DICT:
    case DH_T_LIST:
    case DH_T_BUFFER:
        return dhp_proxy_get(core, word);
    default:
        return corrupt(core);
    }
}

PyObject *dhp_object_from_slow(dhp_core *core, dh_word word)
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

int dhp_objects_from_pair(dhp_core *core, dh_word key, dh_word value, PyObject **key_out,
                          PyObject **value_out)
{
    int was_enabled = dhp_gc_pause();
    PyObject *key_obj = dhp_object_from(core, key);
    PyObject *value_obj = key_obj != NULL ? dhp_object_from(core, value) : NULL;
    dhp_gc_resume(was_enabled);
    if (value_obj == NULL) {
        Py_XDECREF(key_obj);
        return -1;
    }
    *key_out = key_obj;
    *value_out = value_obj;
    return 0;
}

/* --- plain deep copies ------------------------------------------------------------------------ */

/* Containers of the heap met so far, by the word, with their copies. */
typedef struct {
    dhp_core *core;
    dh_word *words; /* open addressing, power of two; EMPTY: free slot */
    PyObject **copies;
    size_t room, count;
} plain_copy;

static size_t plain_slot(const plain_copy *c, dh_word word)
{
    size_t i = (word >> 8) * 0x9E3779B97F4A7C15u >> 20 & (c->room - 1);
    while (c->words[i] != DH_EMPTY && c->words[i] != word)
        i = (i + 1) & (c->room - 1);
    return i;
}

static int plain_grow(plain_copy *c)
{
    plain_copy old = *c;
    c->room = old.room ? old.room * 2 : 64;
    c->words = calloc(c->room, sizeof *c->words);
    c->copies = malloc(c->room * sizeof *c->copies);
    if (c->words == NULL || c->copies == NULL) {
        free(c->words);
        free(c->copies);
        *c = old;
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < old.room; i++)
        if (old.words[i] != DH_EMPTY) {
            size_t to = plain_slot(c, old.words[i]);
            c->words[to] = old.words[i];
            c->copies[to] = old.copies[i];
        }
    free(old.words);
    free(old.copies);
    return 0;
}

/* Holds the copy: in a damaged file a parent may lose it again (a key twice in one dict). */
static int plain_remember(plain_copy *c, dh_word word, PyObject *copy)
{
    if (c->count * 2 >= c->room && plain_grow(c) < 0)
        return -1;
    size_t i = plain_slot(c, word);
    c->words[i] = word;
    c->copies[i] = Py_NewRef(copy);
    c->count++;
    return 0;
}

static void plain_finish(plain_copy *c)
{
    for (size_t i = 0; i < c->room; i++)
        if (c->words[i] != DH_EMPTY)
            Py_DECREF(c->copies[i]);
    free(c->words);
    free(c->copies);
}

static PyObject *plain_from(plain_copy *c, dh_word word);

static int plain_fill_dict(plain_copy *c, dh_word word, PyObject *copy)
{
    dh_dict_pos position = {0, 0};
    dh_word key, value;
    int rc, failed = 0;

    while (!failed && (rc = dh_dict_next(c->core->heap, word, &position, &key, &value)) == 1) {
        PyObject *key_obj = dhp_object_from(c->core, key);
        PyObject *value_obj = key_obj ? plain_from(c, value) : NULL;
        failed = value_obj == NULL || PyDict_SetItem(copy, key_obj, value_obj) < 0;
        Py_XDECREF(key_obj);
        Py_XDECREF(value_obj);
    }
    return failed ? -1 : rc < 0 ? dhp_raise(c->core, rc) : 0;
}

static int plain_fill_list(plain_copy *c, dh_word word, PyObject *copy)
{
    Py_ssize_t count = PyList_Size(copy);
    for (Py_ssize_t i = 0; i < count; i++) {
        dh_word item_word;
        int rc = dh_list_get(c->core->heap, word, (uint64_t)i, &item_word);
        if (rc != 0)
            return dhp_raise(c->core, rc);
        PyObject *item = plain_from(c, item_word);
        if (item == NULL || PyList_SetItem(copy, i, item) < 0)
            return -1;
    }
    return 0;
}

static PyObject *plain_dict(plain_copy *c, dh_word word)
{
    PyObject *copy = PyDict_New();
    if (copy != NULL && (plain_remember(c, word, copy) < 0 || plain_fill_dict(c, word, copy) < 0))
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_list(plain_copy *c, dh_word word)
{
    uint64_t length;
    int rc = dh_list_length(c->core->heap, word, &length);
    if (rc != 0) {
        dhp_raise(c->core, rc);
        return NULL;
    }
    PyObject *copy = PyList_New((Py_ssize_t)length);
    if (copy != NULL && (plain_remember(c, word, copy) < 0 || plain_fill_list(c, word, copy) < 0))
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_tuple(plain_copy *c, dh_word word)
{
    const dh_word *words;
    size_t count;
    int rc = dh_tuple_read(c->core->heap, word, &words, &count);
    if (rc != 0) {
        dhp_raise(c->core, rc);
        return NULL;
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *item = plain_from(c, dh_load(&words[i]));
        if (item == NULL || PyTuple_SetItem(tuple, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *plain_buffer(plain_copy *c, dh_word word)
{
    uint8_t *data;
    uint64_t size;
    int rc = dh_buffer_read(c->core->heap, word, &data, &size);
    if (rc != 0) {
        dhp_raise(c->core, rc);
        return NULL;
    }
    PyObject *copy = PyByteArray_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    if (copy != NULL && plain_remember(c, word, copy) < 0)
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_container(plain_copy *c, dh_word word)
{
    switch (dh_ref_type(word)) {
    case DH_T_DICT:
        return plain_dict(c, word);
    case DH_T_LIST:
        return plain_list(c, word);
    case DH_T_TUPLE:
        return plain_tuple(c, word);
    default:
        return plain_buffer(c, word);
    }
}

static PyObject *plain_from(plain_copy *c, dh_word word)
{
    if (!dh_is_container(word) && !dh_is_ref_to(word, DH_T_TUPLE))
        return dhp_object_from(c->core, word);
    if (c->room > 0) {
        size_t i = plain_slot(c, word);
        if (c->words[i] != DH_EMPTY)
            return Py_NewRef(c->copies[i]);
    }
    if (Py_EnterRecursiveCall(" while a heap's value is copied") != 0)
        return NULL;
    PyObject *copy = plain_container(c, word);
    Py_LeaveRecursiveCall();
    return copy;
}

PyObject *dhp_to_python(dhp_state *state, PyObject *obj)
{
    if (!dhp_is_proxy(state, obj))
        return Py_NewRef(obj);
    dh_word word = dhp_word((dhp_proxy *)obj);
    if (word == 0)
        return NULL;
    plain_copy c = {.core = ((dhp_proxy *)obj)->core};
    int was_enabled = dhp_gc_pause();
    PyObject *copy = plain_from(&c, word);
    plain_finish(&c);
    dhp_gc_resume(was_enabled);
    return copy;
}
