/* convert_scalar.c -- words of values without parts: numbers, texts, packed values, links.
 *
 * Exact built-in types only, so that no Python code runs. What needs a packer and has no packed form
 * yet stops the conversion (convert_in.c).
 */
#include "convert.h"

#include <stdlib.h>

/* 1, or -1 and the code in c. */
static int made(dhp_conversion *c, int rc) { return rc == 0 ? 1 : dhp_stop_with_code(c, rc); }

static int word_from_str(dhp_conversion *c, PyObject *obj, dh_word *word_out)
{
    Py_ssize_t size;
    PyObject *owner;
    const char *utf8 = dhp_utf8(obj, &size, &owner);
    if (utf8 == NULL)
        return dhp_stop_raised(c);
    if (c->core->heap == NULL) /* the error behind a lone surrogate may have run anything */
        return dhp_stop_with_code(c, DH_E_CLOSED);
    int rc = dh_str_new(c->core->heap, (const uint8_t *)utf8, (size_t)size, word_out);
    Py_XDECREF(owner);
    return made(c, rc);
}

static int word_from_int(dhp_conversion *c, PyObject *obj, dh_word *word_out)
{
    int overflow;
    long long v = PyLong_AsLongLongAndOverflow(obj, &overflow);
    bool is_negative;
    uint8_t *data;
    size_t size;

    if (overflow == 0 && dh_int_fits(v)) {
        *word_out = dh_int(v);
        return 1;
    }
    if (dhp_int_magnitude(obj, &is_negative, &data, &size) < 0)
        return dhp_stop_raised(c);
    int rc = dh_bigint_new(c->core->heap, is_negative, data, size, word_out);
    free(data);
    return made(c, rc);
}

static int word_from_proxy(dhp_conversion *c, PyObject *obj, dh_word *word_out)
{
    dhp_proxy *proxy = (dhp_proxy *)obj;
    if (proxy->core != c->core)
        return dhp_stop_with(c, DHP_FAIL_FOREIGN, obj);
    if (proxy->handle.word == 0)
        return dhp_stop_with(c, DHP_FAIL_DEAD, obj);
    *word_out = proxy->handle.word;
    return 1;
}

/* The one form of packed bytes, without its key when key is None. */
static dh_ext_view ext_of(PyObject *form)
{
    PyObject *key = PyTuple_GetItem(form, 0), *payload = PyTuple_GetItem(form, 1);
    dh_ext_view ext = {.payload = (const uint8_t *)PyBytes_AsString(payload),
                       .payload_size = (size_t)PyBytes_Size(payload)};
    if (key != Py_None) {
        ext.key_tag = (uint8_t)*PyBytes_AsString(key);
        ext.key = (const uint8_t *)PyBytes_AsString(key) + 1;
        ext.key_size = (size_t)PyBytes_Size(key) - 1;
    }
    return ext;
}

/* 0: not one of the types that C packs. */
static int word_from_date(dhp_conversion *c, PyObject *obj, dh_word *word_out)
{
    dhp_date_form form;
    int was_enabled = dhp_gc_pause();
    int done = dhp_date_pack(c->core->state, obj, &form);
    dh_ext_view ext = {'x', form.key, form.key_size, form.payload, form.payload_size};
    if (done)
        done = made(c, dh_ext_new(c->core->heap, &ext, word_out));
    dhp_gc_resume(was_enabled);
    return done;
}

static int word_from_packed(dhp_conversion *c, PyObject *obj, dh_word *word_out)
{
    int done = word_from_date(c, obj, word_out);
    if (done != 0)
        return done;
    PyObject *form = dhp_packing_find(c->packing, obj);
    if (form == NULL)
        return dhp_stop_with(c, DHP_FAIL_UNPACKED, obj);
    if (form == Py_NotImplemented)
        return dhp_stop_with(c, DHP_FAIL_TYPE, obj);
    if (!PyTuple_CheckExact(form))
        return word_from_proxy(c, form, word_out);
    dh_ext_view ext = ext_of(form);
    return made(c, dh_ext_new(c->core->heap, &ext, word_out));
}

int dhp_convert_scalar(dhp_conversion *c, PyObject *obj, dh_word *word_out)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyUnicode_Type)
        return word_from_str(c, obj, word_out);
    if (type == &PyLong_Type)
        return word_from_int(c, obj, word_out);
    if (obj == Py_None || type == &PyBool_Type) {
        *word_out = obj == Py_None ? DH_NONE : obj == Py_True ? DH_TRUE : DH_FALSE;
        return 1;
    }
    if (type == &PyFloat_Type) {
        double d = PyFloat_AsDouble(obj);
        return dh_float_fits(d, word_out) ? 1 : made(c, dh_float_new(c->core->heap, d, word_out));
    }
    if (type == &PyDict_Type || type == &PyList_Type || type == &PyTuple_Type ||
        type == &PySet_Type || type == &PyFrozenSet_Type ||
        type == c->core->state->plain_deque_type)
        return 0;
    if (dhp_is_proxy(c->core->state, obj))
        return word_from_proxy(c, obj, word_out);
    if (type == &PyBytes_Type) {
        char *data;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(obj, &data, &size) < 0)
            return dhp_stop_raised(c);
        return made(c, dh_bytes_new(c->core->heap, (uint8_t *)data, (size_t)size, word_out));
    }
    return word_from_packed(c, obj, word_out);
}
