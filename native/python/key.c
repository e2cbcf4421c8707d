/* key.c -- dict keys from Python objects.
 *
 * Exact built-in types can be keys, and types with a packer, whose packed form has the key. For a
 * lookup any other hashable object stands for the plain value it is equal to, if there is one (an
 * IntEnum, a numpy scalar, a namedtuple); its hash is asked for first, so that an unhashable one
 * fails as it does with a dict. That, and packing, run the user's code: the caller must ask for its
 * container's word afterwards.
 */
#include "state.h"

#include <math.h>
#include <stdlib.h>

const char *dhp_utf8(PyObject *str, Py_ssize_t *size_out, PyObject **owner_out)
{
    const char *utf8 = PyUnicode_AsUTF8AndSize(str, size_out);
    char *data;

    *owner_out = NULL;
    if (utf8 != NULL)
        return utf8;
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        return NULL;
    PyErr_Clear(); /* lone surrogates */
    *owner_out = PyUnicode_AsEncodedString(str, "utf-8", "surrogatepass");
    if (*owner_out == NULL || PyBytes_AsStringAndSize(*owner_out, &data, size_out) < 0) {
        Py_CLEAR(*owner_out);
        return NULL;
    }
    return data;
}

/* Known at the second sight only: what comes once must not push out what comes often. */
bool dhp_key_from_new_text(dhp_core *core, PyObject *text, dh_key *key_out)
{
    size_t slot = dhp_text_slot(text);
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (DH_UNLIKELY(utf8 == NULL || core->heap == NULL))
        return false;
    dh_key_from_str(core->heap, (const uint8_t *)utf8, (size_t)size, key_out);
    if (core->texts_seen[slot] == text && size <= DHP_KNOWN_TEXT_BYTES_MAX) {
        core->texts[slot].key = *key_out;
        dhp_replace(&core->texts[slot].text, Py_NewRef(text));
    }
    core->texts_seen[slot] = text;
    return true;
}

static int hex_digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

int dhp_int_magnitude(PyObject *obj, bool *is_negative_out, uint8_t **data_out, size_t *size_out)
{
    /* The stable ABI of 3.11 has no way to an int's bytes; hexadecimal is linear both ways. */
    PyObject *hex = PyNumber_ToBase(obj, 16);
    Py_ssize_t size;
    const char *text = hex ? PyUnicode_AsUTF8AndSize(hex, &size) : NULL;
    uint8_t *data = NULL;

    if (text != NULL) {
        *is_negative_out = text[0] == '-';
        const char *digits = text + (*is_negative_out ? 3 : 2); /* behind "0x" */
        size_t digits_count = (size_t)(text + size - digits);
        *size_out = (digits_count + 1) / 2;
        data = calloc(1, *size_out + 1);
        if (data == NULL)
            PyErr_NoMemory();
        for (size_t i = 0; data != NULL && i < digits_count; i++) {
            int digit = hex_digit(digits[digits_count - 1 - i]);
            data[i / 2] |= (uint8_t)(digit << (i % 2 * 4));
        }
        *data_out = data;
    }
    Py_XDECREF(hex);
    return data != NULL ? 0 : -1;
}

static int key_closed(dhp_core *core)
{
    return dhp_raise_named(core->state, "HeapClosedError", "the heap is closed");
}

static int key_from_text(dhp_core *core, PyObject *obj, dhp_key *out)
{
    Py_ssize_t size;
    const char *utf8 = dhp_utf8(obj, &size, &out->text);
    if (utf8 == NULL)
        return -1;
    if (core->heap == NULL) /* making the error object above may have run anything */
        return key_closed(core);
    dh_key_from_str(core->heap, (const uint8_t *)utf8, (size_t)size, &out->key);
    return DHP_KEY_READY;
}

static int key_from_int(dhp_core *core, PyObject *obj, dhp_key *out)
{
    int overflow;
    long long v = PyLong_AsLongLongAndOverflow(obj, &overflow);
    bool is_negative;
    uint8_t *data;
    size_t size;

    if (overflow == 0 && dh_int_fits(v)) {
        dh_key_from_int(core->heap, v, &out->key);
        return DHP_KEY_READY;
    }
    if (dhp_int_magnitude(obj, &is_negative, &data, &size) < 0)
        return -1;
    out->buffer = malloc(size + 1);
    if (out->buffer == NULL) {
        free(data);
        PyErr_NoMemory();
        return -1;
    }
    out->buffer[0] = is_negative;
    memcpy(out->buffer + 1, data, size);
    free(data);
    dh_key_from_bigint(core->heap, out->buffer, size + 1, &out->key);
    return DHP_KEY_READY;
}

static int key_from_bytes(dhp_core *core, PyObject *obj, dhp_key *out)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(obj, &data, &size) < 0)
        return -1;
    dh_key_from_bytes(core->heap, (const uint8_t *)data, (size_t)size, &out->key);
    return DHP_KEY_READY;
}

/* Records are keys by identity; other containers and those of another heap are none. */
static int key_from_record(dhp_core *core, dhp_proxy *record, dhp_key *out)
{
    if (record->core != core || !PyObject_TypeCheck((PyObject *)record, core->state->record_type))
        return DHP_KEY_NONE;
    dh_word word = dhp_word(record);
    if (word == 0)
        return -1;
    int rc = dh_key_from_record(core->heap, word, &out->key);
    return rc == 0 ? DHP_KEY_READY : dhp_raise(core, rc);
}

/* Append one element's key to the bytes in *buffer. */
static int tuple_append(const dh_key *element, uint8_t **buffer, size_t *size, size_t *room)
{
    size_t need = dh_key_encode(element, *buffer + *size, *room - *size);
    if (need > *room - *size) {
        size_t more = (*room + need) * 2;
        uint8_t *bigger = realloc(*buffer, more);
        if (bigger == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        *buffer = bigger;
        *room = more;
        need = dh_key_encode(element, *buffer + *size, *room - *size);
    }
    *size += need;
    return 0;
}

static int key_from_supported(dhp_core *core, PyObject *obj, const dhp_packing *packing,
                              dhp_key *out);

/* A tuple or, by way of a tuple of its elements, a frozenset. */
static int key_from_items(dhp_core *core, PyObject *obj, int is_tuple, const dhp_packing *packing,
                          dhp_key *out)
{
    Py_ssize_t count = PyTuple_Size(obj);
    size_t size = 0, room = 64;
    uint8_t *buffer = malloc(room);
    int rc = DHP_KEY_READY;

    if (buffer == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; rc == DHP_KEY_READY && i < count; i++) {
        dhp_key element = {.text = NULL, .buffer = NULL};
        rc = key_from_supported(core, PyTuple_GetItem(obj, i), packing, &element);
        if (rc == DHP_KEY_READY && tuple_append(&element.key, &buffer, &size, &room) < 0)
            rc = -1;
        dhp_key_finish(&element);
    }
    if (rc != DHP_KEY_READY) {
        free(buffer);
        return rc;
    }
    if (!is_tuple && dh_key_sort_elements(buffer, size) != 0) {
        free(buffer);
        PyErr_NoMemory();
        return -1;
    }
    out->buffer = buffer;
    if (is_tuple)
        dh_key_from_tuple(core->heap, buffer, size, &out->key);
    else
        dh_key_from_frozenset(core->heap, buffer, size, &out->key);
    return DHP_KEY_READY;
}

/* Listing an exact frozenset runs no Python code. */
static int key_from_frozenset(dhp_core *core, PyObject *obj, const dhp_packing *packing,
                              dhp_key *out)
{
    PyObject *elements = PySequence_Tuple(obj);
    int rc = elements != NULL ? key_from_items(core, elements, 0, packing, out) : -1;
    Py_XDECREF(elements);
    return rc;
}

/* The bytes are copied into the scratch, which no 'x' key needs. */
static int key_from_date(dhp_core *core, PyObject *obj, dhp_key *out)
{
    dhp_date_form form;
    if (!dhp_date_pack(core->state, obj, &form))
        return DHP_KEY_NONE;
    memcpy(out->scratch, form.key, form.key_size);
    int rc = dh_key_from_canonical(core->heap, 'x', out->scratch, form.key_size, out->scratch,
                                   &out->key);
    out->is_packed = true;
    return rc == 0 ? DHP_KEY_READY : dhp_raise(core, rc);
}

static int key_from_form(dhp_core *core, PyObject *obj, PyObject *form, dhp_key *out)
{
    if (form == NULL && key_from_date(core, obj, out) == DHP_KEY_READY)
        return DHP_KEY_READY;
    if (form == NULL || !PyTuple_CheckExact(form))
        return DHP_KEY_NONE;
    PyObject *bytes = PyTuple_GetItem(form, 0);
    int rc = DH_E_UNHASHABLE;
    if (bytes != Py_None) {
        const uint8_t *data = (const uint8_t *)PyBytes_AsString(bytes);
        rc = dh_key_from_canonical(core->heap, data[0], data + 1, (size_t)PyBytes_Size(bytes) - 1,
                                   out->scratch, &out->key);
    }
    out->is_packed = true;
    if (rc == 0)
        return DHP_KEY_READY;
    if (rc != DH_E_UNHASHABLE)
        return dhp_raise(core, rc);
    PyObject *name = PyType_GetQualName(Py_TYPE(obj));
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "unhashable value of type '%U'", name);
    Py_XDECREF(name);
    return -1;
}

/* Asks no hash: DHP_KEY_NONE for whatever a heap cannot hold. */
static int key_from_supported(dhp_core *core, PyObject *obj, const dhp_packing *packing,
                              dhp_key *out)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (core->heap == NULL)
        return key_closed(core);
    if (type == &PyUnicode_Type)
        return key_from_text(core, obj, out);
    if (type == &PyLong_Type)
        return key_from_int(core, obj, out);
    if (type == &PyBool_Type) {
        dh_key_from_int(core->heap, obj == Py_True, &out->key);
        return DHP_KEY_READY;
    }
    if (obj == Py_None) {
        dh_key_from_none(core->heap, &out->key);
        return DHP_KEY_READY;
    }
    if (type == &PyFloat_Type) {
        dh_key_from_float(core->heap, PyFloat_AsDouble(obj), out->scratch, &out->key);
        return DHP_KEY_READY;
    }
    if (type == &PyBytes_Type)
        return key_from_bytes(core, obj, out);
    if (dhp_is_proxy(core->state, obj))
        return key_from_record(core, (dhp_proxy *)obj, out);
    if (type != &PyTuple_Type && type != &PyFrozenSet_Type)
        return key_from_form(core, obj, dhp_packing_find(packing, obj), out);
    if (dhp_recursion_enter(" in a key of a heap's dict") != 0)
        return -1;
    int rc = type == &PyTuple_Type ? key_from_items(core, obj, 1, packing, out)
                                   : key_from_frozenset(core, obj, packing, out);
    dhp_recursion_leave();
    return rc;
}

int dhp_key_init_plain_slow(dhp_core *core, PyObject *obj, const dhp_packing *packing, dhp_key *out)
{
    PyErr_Clear(); /* the fast path's complaint about surrogates */
    int was_enabled = dhp_gc_pause();
    int rc = key_from_supported(core, obj, packing, out);
    dhp_gc_resume(was_enabled);
    if (rc != DHP_KEY_READY)
        dhp_key_finish(out);
    return rc;
}

/* With the packed forms of what is in obj, which the key then borrows from. */
static int key_init_packed(dhp_core *core, PyObject *obj, dhp_key *out)
{
    dhp_packing *packing = calloc(1, sizeof *packing);
    if (packing == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc;
    do { /* the first time, gathering only makes the packers known */
        rc = dhp_packing_gather(core, packing, obj);
        if (rc == 0)
            rc = dhp_key_init_plain_slow(core, obj, packing, out);
    } while (rc == DHP_KEY_NONE && dhp_packing_lacks(core, packing, obj));
    if (rc == DHP_KEY_READY) {
        out->packing = packing;
        out->core = core;
        return rc;
    }
    dhp_packing_finish(core, packing);
    free(packing);
    return rc;
}

int dhp_key_init_slow(dhp_core *core, PyObject *obj, dhp_key *out)
{
    int rc = dhp_key_init_plain_slow(core, obj, NULL, out);
    if (rc == DHP_KEY_NONE)
        rc = key_init_packed(core, obj, out);
    if (rc == DHP_KEY_NONE && PyObject_Hash(obj) == -1)
        rc = -1;
    return rc;
}

/* --- lookups with other types ----------------------------------------------------------------- */

static PyObject *plain_from(dhp_core *core, PyObject *obj);

static PyObject *plain_tuple(dhp_core *core, PyObject *obj)
{
    if (dhp_recursion_enter(" in a key of a heap's dict") != 0)
        return NULL;
    Py_ssize_t count = PyTuple_Size(obj);
    PyObject *plain = PyTuple_New(count);
    for (Py_ssize_t i = 0; plain != NULL && i < count; i++) {
        PyObject *item = plain_from(core, PyTuple_GetItem(obj, i));
        if (item == NULL || PyTuple_SetItem(plain, i, item) < 0)
            Py_CLEAR(plain);
    }
    dhp_recursion_leave();
    return plain;
}

/* PyFrozenSet_New copies without calling what a subclass defines. */
static PyObject *plain_frozenset(dhp_core *core, PyObject *obj)
{
    PyObject *elements = PyFrozenSet_New(obj);
    dhp_replace(&elements, elements ? PySequence_Tuple(elements) : NULL);
    dhp_replace(&elements, elements ? plain_tuple(core, elements) : NULL);
    dhp_replace(&elements, elements ? PyFrozenSet_New(elements) : NULL);
    return elements;
}

static int is_plain(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBool_Type ||
           obj == Py_None || type == &PyFloat_Type || type == &PyBytes_Type;
}

/* A float; where that cannot be exact an int, of no more digits than a float has. Numbers beyond are
 * not found: to ask for their int could take for ever (Decimal("1e999999999")). */
static PyObject *plain_number(PyObject *obj)
{
    PyObject *number = PyNumber_Float(obj);
    double d = number != NULL ? PyFloat_AsDouble(number) : HUGE_VAL;
    if (number != NULL && isfinite(d) && fabs(d) >= 9007199254740992.0) /* 2^53 */
        dhp_replace(&number, PyNumber_Long(obj));
    return number;
}

/* The plain value that obj may be equal to, new; NULL: none, with or without an exception. What has
 * a packer stays. */
static PyObject *plain_from(dhp_core *core, PyObject *obj)
{
    if (is_plain(obj))
        return Py_NewRef(obj);
    int has_packer = dhp_has_packer(core, obj);
    if (has_packer != 0)
        return has_packer > 0 ? Py_NewRef(obj) : NULL;
    if (PyTuple_Check(obj))
        return plain_tuple(core, obj);
    if (PyFrozenSet_Check(obj))
        return plain_frozenset(core, obj);
    if (PyUnicode_Check(obj))
        return PyUnicode_FromObject(obj);
    if (PyBytes_Check(obj) || PyMemoryView_Check(obj))
        return PyBytes_FromObject(obj);
    if (PyComplex_Check(obj) && PyComplex_ImagAsDouble(obj) == 0.0)
        return PyFloat_FromDouble(PyComplex_RealAsDouble(obj));
    if (PyIndex_Check(obj))
        return PyNumber_Long(obj);
    if (PyType_GetSlot(Py_TYPE(obj), Py_nb_float) != NULL)
        return plain_number(obj);
    return NULL;
}

/* A conversion that fails says that there is no such plain value. */
static int is_refusal(void)
{
    return PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError) &&
           !PyErr_ExceptionMatches(PyExc_RecursionError);
}

/* As a dict decides: the same hash, and equal. 1, 0 or -1. */
static int is_same_key(PyObject *obj, PyObject *plain)
{
    Py_hash_t hash = PyObject_Hash(obj), plain_hash = PyObject_Hash(plain);
    if ((hash == -1 || plain_hash == -1) && PyErr_Occurred())
        return -1;
    return hash == plain_hash ? PyObject_RichCompareBool(obj, plain, Py_EQ) : 0;
}

int dhp_key_find_slow(dhp_core *core, PyObject *obj, dhp_key *out)
{
    int rc = dhp_key_init_slow(core, obj, out);
    if (rc != DHP_KEY_NONE)
        return rc;
    PyObject *plain = plain_from(core, obj);
    if (plain == NULL) {
        if (PyErr_Occurred() && !is_refusal())
            return -1;
        PyErr_Clear();
        return DHP_KEY_NONE;
    }
    int is_same = is_same_key(obj, plain);
    if (is_same != 1) {
        Py_DECREF(plain);
        return is_same < 0 ? -1 : DHP_KEY_NONE;
    }
    out->text = NULL;
    out->buffer = NULL;
    out->packing = NULL;
    out->is_packed = false;
    rc = plain == obj ? DHP_KEY_NONE : dhp_key_init_slow(core, plain, out);
    if (rc == DHP_KEY_READY && out->text == NULL)
        out->text = plain; /* the key points into it */
    else
        Py_DECREF(plain);
    return rc;
}

void dhp_key_finish_slow(dhp_key *k)
{
    if (k->packing != NULL) {
        dhp_packing_finish(k->core, k->packing);
        free(k->packing);
        k->packing = NULL;
    }
    Py_CLEAR(k->text);
    free(k->buffer);
    k->buffer = NULL;
}
