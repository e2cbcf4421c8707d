/* convert_fail.c -- why a value cannot be stored: the reason, the place, and what to do instead.
 *
 * Noting a reason or a place runs no Python code. Making the exception does: that is for the end of a
 * conversion, when everything has been taken back.
 */
#include "convert.h"

int dhp_stop_with(dhp_conversion *c, dhp_fail_kind fail, PyObject *culprit)
{
    c->fail = fail;
    c->culprit = Py_XNewRef(culprit);
    return -1;
}

int dhp_stop_with_code(dhp_conversion *c, int rc)
{
    c->fail = DHP_FAIL_CODE;
    c->rc = rc;
    return -1;
}

void dhp_note_place(dhp_conversion *c, PyObject *key)
{
    if (c->fail == DHP_FAIL_NONE || c->fail == DHP_FAIL_RAISED || c->fail == DHP_FAIL_CODE ||
        c->fail == DHP_FAIL_UNPACKED)
        return;
    if (c->path == NULL)
        c->path = PyList_New(0);
    if (c->path == NULL || PyList_Append(c->path, key) < 0)
        PyErr_Clear();
}

void dhp_note_index(dhp_conversion *c, Py_ssize_t index)
{
    PyObject *key = PyLong_FromSsize_t(index);
    if (key != NULL)
        dhp_note_place(c, key);
    else
        PyErr_Clear();
    Py_XDECREF(key);
}

/* "value['a'][3]" */
static PyObject *place_text(PyObject *path)
{
    PyObject *text = PyUnicode_FromString("value");
    Py_ssize_t count = path ? PyList_Size(path) : 0;
    for (Py_ssize_t i = count - 1; text != NULL && i >= 0; i--) {
        PyObject *longer = PyUnicode_FromFormat("%U[%R]", text, PyList_GetItem(path, i));
        dhp_replace(&text, longer);
    }
    return text;
}

static PyObject *type_text(PyTypeObject *type)
{
    PyObject *name = PyType_GetQualName(type);
    PyObject *module = name ? PyObject_GetAttrString((PyObject *)type, "__module__") : NULL;
    if (module == NULL || !PyUnicode_Check(module) ||
        PyUnicode_CompareWithASCIIString(module, "builtins") == 0) {
        PyErr_Clear();
    } else {
        dhp_replace(&name, PyUnicode_FromFormat("%U.%U", module, name));
    }
    Py_XDECREF(module);
    return name;
}

/* What to do instead. */
static const char *advice_for(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyByteArray_Type || PyMemoryView_Check(obj))
        return "make mutable bytes with heap.buffer() and store that";
    if (PyLong_Check(obj))
        return "convert it with int()";
    if (PyFloat_Check(obj))
        return "convert it with float()";
    if (PyUnicode_Check(obj))
        return "convert it with str()";
    if (PyBytes_Check(obj))
        return "convert it with bytes()";
    if (PyDict_Check(obj))
        return "convert it with dict()";
    if (PyList_Check(obj))
        return "convert it with list()";
    if (PyTuple_Check(obj))
        return "convert it with tuple()";
    if (PyFrozenSet_Check(obj))
        return "convert it with frozenset()";
    if (PySet_Check(obj))
        return "convert it with set()";
    if (PyObject_HasAttrString((PyObject *)type, "__array_finalize__"))
        return "convert it with numpy.asarray(), and of a masked array store the mask beside it";
    if (PyObject_HasAttrString((PyObject *)type, "__array_struct__"))
        return "convert it with value.item()";
    if (PyIndex_Check(obj))
        return "convert it with int()";
    if (PyObject_CheckBuffer(obj))
        return "make a heap.buffer() of its bytes and store that";
    return "store None, bool, int, float, str, bytes, dates, Decimal and the like, containers of "
           "these, or make the type known with dirtyheap.register()";
}

static const char *key_advice_for(PyObject *obj)
{
    if (PyIndex_Check(obj) || PyFloat_Check(obj) || PyUnicode_Check(obj) || PyBytes_Check(obj) ||
        PyTuple_Check(obj) || PyFrozenSet_Check(obj))
        return advice_for(obj);
    return "use None, bool, int, float, str, bytes, dates, Decimal and the like, a tuple or "
           "frozenset "
           "of these, or make the type known with dirtyheap.register()";
}

static void raise_refusal(dhp_conversion *c)
{
    PyObject *place = place_text(c->path);
    PyObject *type = place ? type_text(Py_TYPE(c->culprit)) : NULL;
    if (type != NULL && c->fail == DHP_FAIL_FOREIGN)
        PyErr_Format(PyExc_ValueError,
                     "%U is a %U of another heap: copy it first, with "
                     "dirtyheap.to_python()",
                     place, type);
    else if (type != NULL && (c->fail == DHP_FAIL_KEY || c->fail == DHP_FAIL_ELEMENT))
        PyErr_Format(PyExc_TypeError, "%U has %s of type '%U', which a heap cannot hold: %s", place,
                     c->fail == DHP_FAIL_KEY ? "a key" : "an element", type,
                     key_advice_for(c->culprit));
    else if (type != NULL)
        PyErr_Format(PyExc_TypeError, "%U is of type '%U', which a heap cannot hold: %s", place,
                     type, advice_for(c->culprit));
    Py_XDECREF(place);
    Py_XDECREF(type);
}

void dhp_raise_failure(dhp_conversion *c)
{
    switch (c->fail) {
    case DHP_FAIL_NONE:
    case DHP_FAIL_RAISED:
    case DHP_FAIL_UNPACKED:
        break;
    case DHP_FAIL_CODE:
        dhp_raise(c->core, c->rc);
        break;
    case DHP_FAIL_DEAD:
        dhp_raise_dead((dhp_proxy *)c->culprit);
        break;
    default:
        raise_refusal(c);
    }
}
