/* sorted_key.c -- keys of a SortedDict from Python objects, and what is refused as one.
 *
 * What Dict takes as keys (key.c) is taken here if it has an order (order.h). NaN has none: it is
 * neither before nor behind another number, and would be lost among them. A complex that equals a
 * float has the float's canonical form and finds it, but has no order either.
 */
#include "sorted_type.h"

static int refuse_kind(PyObject *obj)
{
    PyObject *name = PyType_GetQualName(Py_TYPE(obj));
    if (name != NULL)
        PyErr_Format(
            PyExc_TypeError,
            "a sorted dict has no place for a key of type '%U': use int, float, bool, "
            "Decimal, Fraction, str, bytes, date, datetime, time, timedelta, UUID, a path, "
            "or a tuple of these",
            name);
    Py_XDECREF(name);
    return -1;
}

static int refuse(PyObject *obj, dh_order_verdict verdict)
{
    if (verdict == DH_ORDER_UNKNOWN)
        return refuse_kind(obj);
    PyErr_SetString(PyExc_ValueError,
                    verdict == DH_ORDER_NAN
                        ? "NaN cannot be a key of a sorted dict: it has no place in an order"
                        : "a Decimal of more than 8192 digits before or behind the point, or a "
                          "Fraction of that kind, cannot be a key of a sorted dict: use an int or "
                          "round it");
    return -1;
}

/* A key was made from obj, so tuples nest no deeper than that recursed. */
static bool holds_complex(PyObject *obj)
{
    if (!PyTuple_CheckExact(obj))
        return PyComplex_CheckExact(obj);
    for (Py_ssize_t i = 0; i < PyTuple_Size(obj); i++)
        if (holds_complex(PyTuple_GetItem(obj, i)))
            return true;
    return false;
}

static dh_order_verdict verdict_on(PyObject *obj, const dhp_key *key)
{
    dh_order_verdict verdict = dh_order_admits(&key->key);
    return verdict == DH_ORDER_OK && holds_complex(obj) ? DH_ORDER_UNKNOWN : verdict;
}

int dhp_sorted_key_slow(dhp_core *core, PyObject *obj, dhp_key_use use, dhp_key *out)
{
    PyErr_Clear(); /* the fast path's complaint about surrogates */
    int rc = use == DHP_KEY_TO_STORE ? dhp_key_init(core, obj, out) : dhp_key_find(core, obj, out);
    if (rc < 0 || (rc == DHP_KEY_NONE && use == DHP_KEY_TO_FIND))
        return rc;
    if (rc == DHP_KEY_NONE)
        return refuse_kind(obj);
    dh_order_verdict verdict =
        use == DHP_KEY_TO_FIND ? dh_order_admits(&out->key) : verdict_on(obj, out);
    if (DH_LIKELY(verdict == DH_ORDER_OK))
        return DHP_KEY_READY;
    dhp_key_finish(out);
    return use == DHP_KEY_TO_FIND ? DHP_KEY_NONE : refuse(obj, verdict);
}

int dhp_sorted_check_key(dhp_core *core, PyObject *obj, const dhp_packing *packing)
{
    dhp_key key;
    if (PyLong_CheckExact(obj) || PyUnicode_CheckExact(obj))
        return 0;
    int rc = dhp_key_init_plain(core, obj, packing, &key);
    if (rc == DHP_KEY_NONE)
        return dhp_packing_lacks(core, packing, obj) ? DHP_RETRY : refuse_kind(obj);
    if (rc < 0)
        return -1;
    dh_order_verdict verdict = verdict_on(obj, &key);
    dhp_key_finish(&key);
    return verdict == DH_ORDER_OK ? 0 : refuse(obj, verdict);
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
