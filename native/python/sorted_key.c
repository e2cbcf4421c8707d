/* sorted_key.c -- keys of a SortedDict from Python objects, and what is refused as one.
 *
 * What Dict takes as keys (key.c) is taken here if it has an order. NaN has none: it is neither
 * before nor behind another number, and would be lost among them. Packed values (dates, Decimals)
 * have canonical forms that say what is equal, not what is smaller: they find the number that they
 * are equal to, and are not stored.
 */
#include "sorted_type.h"

static int refuse_kind(PyObject *obj)
{
    PyObject *name = PyType_GetQualName(Py_TYPE(obj));
    if (name != NULL)
        PyErr_Format(PyExc_TypeError,
                     "a sorted dict has no place for a key of type '%U': use int, float, bool, "
                     "str, bytes, or a tuple of these",
                     name);
    Py_XDECREF(name);
    return -1;
}

static int refuse_nan(void)
{
    PyErr_SetString(PyExc_ValueError,
                    "NaN cannot be a key of a sorted dict: it has no place in an order");
    return -1;
}

int dhp_sorted_key_slow(dhp_core *core, PyObject *obj, dhp_key_use use, dhp_key *out)
{
    PyErr_Clear(); /* the fast path's complaint about surrogates */
    int rc = use == DHP_KEY_TO_STORE ? dhp_key_init(core, obj, out) : dhp_key_find(core, obj, out);
    if (rc < 0 || (rc == DHP_KEY_NONE && use == DHP_KEY_TO_FIND))
        return rc;
    if (rc == DHP_KEY_NONE)
        return refuse_kind(obj);
    dh_order_verdict verdict = dh_order_admits(&out->key);
    if (use == DHP_KEY_TO_STORE && out->packing != NULL)
        verdict = DH_ORDER_UNKNOWN;
    if (DH_LIKELY(verdict == DH_ORDER_OK))
        return DHP_KEY_READY;
    dhp_key_finish(out);
    if (use == DHP_KEY_TO_FIND)
        return DHP_KEY_NONE;
    return verdict == DH_ORDER_NAN ? refuse_nan() : refuse_kind(obj);
}

int dhp_sorted_check_key(dhp_core *core, PyObject *obj)
{
    dhp_key key;
    if (PyLong_CheckExact(obj) || PyUnicode_CheckExact(obj))
        return 0;
    int rc = dhp_key_init_plain(core, obj, NULL, &key);
    if (rc == DHP_KEY_NONE)
        return refuse_kind(obj);
    if (rc < 0)
        return -1;
    dh_order_verdict verdict = dh_order_admits(&key.key);
    dhp_key_finish(&key);
    if (verdict == DH_ORDER_OK)
        return 0;
    return verdict == DH_ORDER_NAN ? refuse_nan() : refuse_kind(obj);
}

int dhp_sorted_refuse_function(PyObject *initial)
{
    if (!PyCallable_Check(initial) || PyType_GetSlot(Py_TYPE(initial), Py_tp_iter) != NULL)
        return 0;
    PyErr_SetString(PyExc_TypeError,
                    "a heap cannot hold a key function: make what it returns the key, and the "
                    "original key part of the value");
    return -1;
}
