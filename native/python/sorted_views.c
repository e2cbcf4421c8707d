/* sorted_views.c -- keys(), values() and items() of a SortedDict, and the comparison of mappings.
 *
 * A view holds its SortedDict and nothing else. Unlike a dict's it is a sequence too. Set operations
 * give plain sets. Everything that compares elements goes through Python objects and the iterator,
 * so it may meet any change on the way.
 */
#include "sorted_type.h"

typedef struct {
    PyObject_HEAD dhp_proxy *sorted; /* owned */
    dhp_dict_part part;
} sorted_view;

PyObject *dhp_sorted_view_new(dhp_proxy *sorted, dhp_dict_part part)
{
    dhp_state *state = sorted->core->state;
    PyTypeObject *type = part == DHP_KEYS     ? state->sorted_keys_type
                         : part == DHP_VALUES ? state->sorted_values_type
                                              : state->sorted_items_type;
    if (dhp_word(sorted) == 0)
        return NULL;
    sorted_view *self = PyObject_New(sorted_view, type);
    if (self == NULL)
        return NULL;
    self->sorted = (dhp_proxy *)Py_NewRef((PyObject *)sorted);
    self->part = part;
    return (PyObject *)self;
}

static void view_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    Py_DECREF(((sorted_view *)obj)->sorted);
    PyObject_Free(obj);
    Py_DECREF(type);
}

static Py_ssize_t view_length(PyObject *obj)
{
    return dhp_sorted_length((PyObject *)((sorted_view *)obj)->sorted);
}

static PyObject *view_iter(PyObject *obj)
{
    sorted_view *self = (sorted_view *)obj;
    return dhp_sorted_iter_new(self->sorted, self->part, 0, UINT64_MAX, 0);
}

PyDoc_STRVAR(view_reversed_doc, "__reversed__($self, /)\n--\n\nThe same, from the largest key on.");
static PyObject *view_reversed(PyObject *obj, PyObject *ignored)
{
    sorted_view *self = (sorted_view *)obj;
    (void)ignored;
    return dhp_sorted_iter_new(self->sorted, self->part, 0, UINT64_MAX, 1);
}

static PyObject *view_repr(PyObject *obj)
{
    sorted_view *self = (sorted_view *)obj;
    const char *name = self->part == DHP_KEYS     ? "SortedKeys"
                       : self->part == DHP_VALUES ? "SortedValues"
                                                  : "SortedItems";
    PyObject *elements = PySequence_List(obj);
    PyObject *text = elements ? PyUnicode_FromFormat("%s(%R)", name, elements) : NULL;
    Py_XDECREF(elements);
    return text;
}

static PyObject *view_get_mapping(PyObject *obj, void *closure)
{
    (void)closure;
    return PyDictProxy_New((PyObject *)((sorted_view *)obj)->sorted);
}

/* --- sequences -------------------------------------------------------------------------------- */

static PyObject *view_subscript(PyObject *obj, PyObject *item)
{
    sorted_view *self = (sorted_view *)obj;
    Py_ssize_t start, stop, step;
    if (!PySlice_Check(item)) {
        Py_ssize_t index = PyNumber_AsSsize_t(item, PyExc_IndexError);
        if (index == -1 && PyErr_Occurred())
            return NULL;
        return dhp_sorted_at(self->sorted, index, self->part);
    }
    if (PySlice_Unpack(item, &start, &stop, &step) < 0)
        return NULL;
    Py_ssize_t length = view_length(obj);
    if (length < 0)
        return NULL;
    Py_ssize_t count = PySlice_AdjustIndices(length, &start, &stop, step);
    return dhp_sorted_list(self->sorted, self->part, start, step, count);
}

/* Position of an element that equals value, by going through them: 0, DH_E_ABSENT or DHP_RAISED. */
static int find_by_iterating(PyObject *obj, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                             uint64_t *at_out)
{
    PyObject *item, *iter = view_iter(obj);
    int found = iter != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; found == 0 && i < stop && (item = PyIter_Next(iter)) != NULL; i++) {
        found = i >= start ? PyObject_RichCompareBool(item, value, Py_EQ) : 0;
        *at_out = (uint64_t)i;
        Py_DECREF(item);
    }
    Py_XDECREF(iter);
    if (found < 0 || PyErr_Occurred())
        return DHP_RAISED;
    return found ? 0 : DH_E_ABSENT;
}

/* The only place where this pair can be. */
static int find_pair(sorted_view *self, PyObject *pair, uint64_t *at_out)
{
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2)
        return DH_E_ABSENT;
    int found, rc = dhp_sorted_position(self->sorted, PyTuple_GetItem(pair, 0), at_out);
    if (rc != 0)
        return rc;
    PyObject *mine = dhp_sorted_lookup(self->sorted, PyTuple_GetItem(pair, 0), &found);
    if (mine == NULL)
        return found ? DHP_RAISED : DH_E_ABSENT;
    found = PyObject_RichCompareBool(mine, PyTuple_GetItem(pair, 1), Py_EQ);
    Py_DECREF(mine);
    return found < 0 ? DHP_RAISED : found ? 0 : DH_E_ABSENT;
}

static int view_find(sorted_view *self, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                     uint64_t *at_out)
{
    if (self->part == DHP_VALUES)
        return find_by_iterating((PyObject *)self, value, start, stop, at_out);
    int rc = self->part == DHP_KEYS ? dhp_sorted_position(self->sorted, value, at_out)
                                    : find_pair(self, value, at_out);
    if (rc == 0 && ((Py_ssize_t)*at_out < start || (Py_ssize_t)*at_out >= stop))
        return DH_E_ABSENT;
    return rc;
}

PyDoc_STRVAR(index_doc, "index($self, value, start=0, stop=sys.maxsize, /)\n--\n\n"
                        "Return the position of value, or raise ValueError. O(log len) among keys "
                        "and items, O(len) among\nvalues.\n\n"
                        ">>> heap.sorted_dict({2: 'b', 1: 'a'}).keys().index(2)\n"
                        "1");
static PyObject *view_index(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t start, stop, length;
    uint64_t at;
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "index expected 1 to 3 arguments, got %zd", nargs);
        return NULL;
    }
    if (dhp_sorted_index_bounds(args, nargs, &start, &stop) < 0 || (length = view_length(obj)) < 0)
        return NULL;
    start = start < 0 ? start + length : start;
    stop = stop < 0 ? stop + length : stop;
    int rc = view_find((sorted_view *)obj, args[0], start, stop, &at);
    if (rc == 0)
        return PyLong_FromUnsignedLongLong(at);
    if (rc != DHP_RAISED)
        PyErr_Format(PyExc_ValueError, "%R is not in the view", args[0]);
    return NULL;
}

PyDoc_STRVAR(count_doc, "count($self, value, /)\n--\n\nReturn how often value is there.\n\n"
                        ">>> heap.sorted_dict({2: 'b', 1: 'b'}).values().count('b')\n"
                        "2");
static PyObject *view_count(PyObject *obj, PyObject *value)
{
    uint64_t at;
    int rc = view_find((sorted_view *)obj, value, 0, PY_SSIZE_T_MAX, &at);
    return rc == DHP_RAISED ? NULL : PyLong_FromLong(rc == 0);
}

static PyObject *values_count(PyObject *obj, PyObject *value)
{
    PyObject *item, *iter = view_iter(obj);
    Py_ssize_t count = 0;
    int same = iter != NULL ? 0 : -1;
    while (same >= 0 && (item = PyIter_Next(iter)) != NULL) {
        same = PyObject_RichCompareBool(item, value, Py_EQ);
        count += same > 0;
        Py_DECREF(item);
    }
    Py_XDECREF(iter);
    return same < 0 || PyErr_Occurred() ? NULL : PyLong_FromSsize_t(count);
}

static int view_contains(PyObject *obj, PyObject *value)
{
    uint64_t at;
    sorted_view *self = (sorted_view *)obj;
    if (self->part == DHP_KEYS)
        return dhp_sorted_contains((PyObject *)self->sorted, value);
    int rc = view_find(self, value, 0, PY_SSIZE_T_MAX, &at);
    return rc == DHP_RAISED ? -1 : rc == 0;
}

/* --- sets ------------------------------------------------------------------------------------- */

static PyObject *setview_richcompare(PyObject *obj, PyObject *other, int op)
{
    if (!dhp_is_set_like(((sorted_view *)obj)->sorted->core->state, other))
        Py_RETURN_NOTIMPLEMENTED;
    return dhp_setview_compare(obj, other, op);
}

PyDoc_STRVAR(isdisjoint_doc,
             "isdisjoint($self, other, /)\n--\n\n"
             "True when the view and the iterable have no element in common. O(len(other)).\n\n"
             ">>> heap.sorted_dict({2: 'b'}).keys().isdisjoint([1])\n"
             "True");

static PyMethodDef setview_methods[] = {
    {"__reversed__", view_reversed, METH_NOARGS, view_reversed_doc},
    {"isdisjoint", dhp_setview_isdisjoint, METH_O, isdisjoint_doc},
    {"index", (PyCFunction)(void (*)(void))view_index, METH_FASTCALL, index_doc},
    {"count", view_count, METH_O, count_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef values_methods[] = {
    {"__reversed__", view_reversed, METH_NOARGS, view_reversed_doc},
    {"index", (PyCFunction)(void (*)(void))view_index, METH_FASTCALL, index_doc},
    {"count", values_count, METH_O, count_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef view_getset[] = {
    {"mapping", view_get_mapping, NULL, "The SortedDict behind the view, read-only.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define VIEW_SLOTS(methods)                                                                    \
    {Py_tp_new, dhp_proxy_refuse_new}, {Py_tp_dealloc, view_dealloc}, {Py_tp_repr, view_repr}, \
        {Py_tp_iter, view_iter}, {Py_mp_length, view_length}, {Py_tp_methods, methods},        \
        {Py_tp_getset, view_getset}, {Py_sq_contains, view_contains},                          \
    {                                                                                          \
        Py_mp_subscript, view_subscript                                                        \
    }
#define SET_SLOTS                                                                        \
    {Py_tp_richcompare, setview_richcompare}, {Py_tp_hash, PyObject_HashNotImplemented}, \
        {Py_nb_or, dhp_setview_or}, {Py_nb_and, dhp_setview_and},                        \
        {Py_nb_subtract, dhp_setview_sub},                                               \
    {                                                                                    \
        Py_nb_xor, dhp_setview_xor                                                       \
    }

static PyType_Slot keys_slots[] = {VIEW_SLOTS(setview_methods), SET_SLOTS, {0, NULL}};
static PyType_Slot items_slots[] = {VIEW_SLOTS(setview_methods), SET_SLOTS, {0, NULL}};
static PyType_Slot values_slots[] = {VIEW_SLOTS(values_methods), {0, NULL}};

PyType_Spec dhp_sorted_keys_spec = {"dirtyheap._native.SortedKeys", sizeof(sorted_view), 0,
                                    Py_TPFLAGS_DEFAULT, keys_slots};
PyType_Spec dhp_sorted_values_spec = {"dirtyheap._native.SortedValues", sizeof(sorted_view), 0,
                                      Py_TPFLAGS_DEFAULT, values_slots};
PyType_Spec dhp_sorted_items_spec = {"dirtyheap._native.SortedItems", sizeof(sorted_view), 0,
                                     Py_TPFLAGS_DEFAULT, items_slots};

/* --- equality of whole mappings --------------------------------------------------------------- */

/* The other mapping's value: new reference; NULL and no exception when absent. */
static PyObject *other_value(const dhp_state *state, PyObject *other, PyObject *key)
{
    int found;
    if (Py_TYPE(other) == state->sorted_type)
        return dhp_sorted_lookup((dhp_proxy *)other, key, &found);
    if (PyDict_Check(other))
        return Py_XNewRef(PyDict_GetItemWithError(other, key));
    PyObject *value = PyObject_GetItem(other, key);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
        PyErr_Clear();
    return value;
}

static int same_entries(dhp_proxy *self, PyObject *other)
{
    PyObject *item, *iter = dhp_sorted_iter_new(self, DHP_ITEMS, 0, UINT64_MAX, 0);
    int same = iter != NULL ? 1 : -1;
    while (same == 1 && (item = PyIter_Next(iter)) != NULL) {
        PyObject *theirs = other_value(self->core->state, other, PyTuple_GetItem(item, 0));
        if (theirs == NULL)
            same = PyErr_Occurred() ? -1 : 0;
        else
            same = PyObject_RichCompareBool(PyTuple_GetItem(item, 1), theirs, Py_EQ);
        Py_XDECREF(theirs);
        Py_DECREF(item);
    }
    Py_XDECREF(iter);
    return same == 1 && PyErr_Occurred() ? -1 : same;
}

PyObject *dhp_sorted_richcompare(PyObject *obj, PyObject *other, int op)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    if (op != Py_EQ && op != Py_NE)
        Py_RETURN_NOTIMPLEMENTED;
    int is_mapping =
        PyDict_Check(other) ? 1 : PyObject_IsInstance(other, self->core->state->mapping_abc);
    if (is_mapping <= 0)
        return is_mapping < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    Py_ssize_t mine = dhp_sorted_length(obj), theirs = mine < 0 ? -1 : PyObject_Size(other);
    if (theirs < 0)
        return NULL;
    int same = obj == other ? 1 : mine != theirs ? 0 : same_entries(self, other);
    return same < 0 ? NULL : PyBool_FromLong(op == Py_EQ ? same : !same);
}
