/* dict_views.c -- keys(), values() and items() of a Dict, and the comparison of dicts.
 *
 * A view holds its Dict and nothing else. Set operations give plain sets. Everything that compares
 * elements goes through Python objects and the iterator, so it may meet any change on the way.
 */
#include "state.h"

typedef struct {
    PyObject_HEAD dhp_proxy *dict; /* owned */
    dhp_dict_part part;
} dict_view;

PyObject *dhp_dict_view_new(dhp_proxy *dict, dhp_dict_part part)
{
    dhp_state *state = dict->core->state;
    PyTypeObject *type = part == DHP_KEYS     ? state->keys_type
                         : part == DHP_VALUES ? state->values_type
                                              : state->items_type;
    if (dhp_word(dict) == 0)
        return NULL;
    dict_view *self = PyObject_New(dict_view, type);
    if (self == NULL)
        return NULL;
    self->dict = (dhp_proxy *)Py_NewRef((PyObject *)dict);
    self->part = part;
    return (PyObject *)self;
}

static void view_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    Py_DECREF(((dict_view *)obj)->dict);
    PyObject_Free(obj);
    Py_DECREF(type);
}

static Py_ssize_t view_length(PyObject *obj)
{
    return dhp_dict_length((PyObject *)((dict_view *)obj)->dict);
}

static PyObject *view_iter(PyObject *obj)
{
    dict_view *self = (dict_view *)obj;
    return dhp_dict_iter_new(self->dict, self->part, 0);
}

static PyObject *view_reversed(PyObject *obj, PyObject *ignored)
{
    dict_view *self = (dict_view *)obj;
    (void)ignored;
    return dhp_dict_iter_new(self->dict, self->part, 1);
}

static PyObject *view_repr(PyObject *obj)
{
    dict_view *self = (dict_view *)obj;
    const char *name = self->part == DHP_KEYS     ? "dict_keys"
                       : self->part == DHP_VALUES ? "dict_values"
                                                  : "dict_items";
    PyObject *elements = PySequence_List(obj);
    PyObject *text = elements ? PyUnicode_FromFormat("%s(%R)", name, elements) : NULL;
    Py_XDECREF(elements);
    return text;
}

static PyObject *view_get_mapping(PyObject *obj, void *closure)
{
    (void)closure;
    return PyDictProxy_New((PyObject *)((dict_view *)obj)->dict);
}

/* --- membership ------------------------------------------------------------------------------- */

static int keys_contains(PyObject *obj, PyObject *key)
{
    return dhp_dict_contains((PyObject *)((dict_view *)obj)->dict, key);
}

static int values_contains(PyObject *obj, PyObject *value)
{
    PyObject *item, *iter = view_iter(obj);
    int found = iter != NULL ? 0 : -1;
    while (found == 0 && (item = PyIter_Next(iter)) != NULL) {
        found = PyObject_RichCompareBool(item, value, Py_EQ);
        Py_DECREF(item);
    }
    Py_XDECREF(iter);
    return found == 0 && PyErr_Occurred() ? -1 : found;
}

static int items_contains(PyObject *obj, PyObject *pair)
{
    int found;
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2)
        return 0;
    PyObject *mine = dhp_dict_lookup(((dict_view *)obj)->dict, PyTuple_GetItem(pair, 0), &found);
    if (mine == NULL)
        return found ? -1 : 0;
    found = PyObject_RichCompareBool(mine, PyTuple_GetItem(pair, 1), Py_EQ);
    Py_DECREF(mine);
    return found;
}

/* Is every element of all in container? */
static int all_in(PyObject *all, PyObject *container)
{
    PyObject *item, *iter = PyObject_GetIter(all);
    int contained = iter != NULL ? 1 : -1;
    while (contained == 1 && (item = PyIter_Next(iter)) != NULL) {
        contained = PySequence_Contains(container, item);
        Py_DECREF(item);
    }
    Py_XDECREF(iter);
    return contained == 1 && PyErr_Occurred() ? -1 : contained;
}

/* --- sets ------------------------------------------------------------------------------------- */

int dhp_is_set_like(const dhp_state *state, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    return PyAnySet_Check(obj) || PyDictKeys_Check(obj) || PyDictItems_Check(obj) ||
           type == state->keys_type || type == state->items_type || type == state->set_type ||
           type == state->sorted_keys_type || type == state->sorted_items_type;
}

PyObject *dhp_setview_compare(PyObject *obj, PyObject *other, int op)
{
    Py_ssize_t mine = PyObject_Size(obj), theirs = PyObject_Size(other);
    int result = 0;
    if (mine < 0 || theirs < 0)
        return NULL;
    switch (op) {
    case Py_EQ:
    case Py_NE:
        result = mine == theirs ? all_in(obj, other) : 0;
        if (op == Py_NE && result >= 0)
            result = !result;
        break;
    case Py_LT:
        result = mine < theirs ? all_in(obj, other) : 0;
        break;
    case Py_LE:
        result = mine <= theirs ? all_in(obj, other) : 0;
        break;
    case Py_GT:
        result = mine > theirs ? all_in(other, obj) : 0;
        break;
    default:
        result = mine >= theirs ? all_in(other, obj) : 0;
    }
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *setview_richcompare(PyObject *obj, PyObject *other, int op)
{
    if (!dhp_is_set_like(((dict_view *)obj)->dict->core->state, other))
        Py_RETURN_NOTIMPLEMENTED;
    return dhp_setview_compare(obj, other, op);
}

/* set(left).<method>(right) */
static PyObject *combine(PyObject *left, PyObject *right, const char *method)
{
    PyObject *result = PySet_New(left);
    PyObject *done = result ? PyObject_CallMethod(result, method, "(O)", right) : NULL;
    if (done == NULL)
        Py_CLEAR(result);
    Py_XDECREF(done);
    return result;
}

PyObject *dhp_setview_or(PyObject *left, PyObject *right) { return combine(left, right, "update"); }

PyObject *dhp_setview_and(PyObject *left, PyObject *right)
{
    return combine(left, right, "intersection_update");
}

PyObject *dhp_setview_sub(PyObject *left, PyObject *right)
{
    return combine(left, right, "difference_update");
}

PyObject *dhp_setview_xor(PyObject *left, PyObject *right)
{
    return combine(left, right, "symmetric_difference_update");
}

PyDoc_STRVAR(isdisjoint_doc,
             "isdisjoint($self, other, /)\n--\n\n"
             "True when the view and the iterable have no element in common. O(len(other)).\n\n"
             ">>> heap.dict({'m4': 40}).keys().isdisjoint({'m5'})\n"
             "True");
PyObject *dhp_setview_isdisjoint(PyObject *self, PyObject *other)
{
    PyObject *item, *iter = PyObject_GetIter(other);
    int found = iter != NULL ? 0 : -1;
    while (found == 0 && (item = PyIter_Next(iter)) != NULL) {
        found = PySequence_Contains(self, item);
        Py_DECREF(item);
    }
    Py_XDECREF(iter);
    if (found < 0 || PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(!found);
}

/* --- the three types -------------------------------------------------------------------------- */

PyDoc_STRVAR(view_reversed_doc, "__reversed__($self, /)\n--\n\nThe same, newest first.");

static PyMethodDef setview_methods[] = {
    {"__reversed__", view_reversed, METH_NOARGS, view_reversed_doc},
    {"isdisjoint", dhp_setview_isdisjoint, METH_O, isdisjoint_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef values_methods[] = {
    {"__reversed__", view_reversed, METH_NOARGS, view_reversed_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef view_getset[] = {
    {"mapping", view_get_mapping, NULL, "The Dict behind the view, read-only.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define VIEW_SLOTS(methods)                                                                    \
    {Py_tp_new, dhp_proxy_refuse_new}, {Py_tp_dealloc, view_dealloc}, {Py_tp_repr, view_repr}, \
        {Py_tp_iter, view_iter}, {Py_mp_length, view_length}, {Py_tp_methods, methods},        \
    {                                                                                          \
        Py_tp_getset, view_getset                                                              \
    }
#define SET_SLOTS                                                                        \
    {Py_tp_richcompare, setview_richcompare}, {Py_tp_hash, PyObject_HashNotImplemented}, \
        {Py_nb_or, dhp_setview_or}, {Py_nb_and, dhp_setview_and},                        \
        {Py_nb_subtract, dhp_setview_sub},                                               \
    {                                                                                    \
        Py_nb_xor, dhp_setview_xor                                                       \
    }

static PyType_Slot keys_slots[] = {
    VIEW_SLOTS(setview_methods), SET_SLOTS, {Py_sq_contains, keys_contains}, {0, NULL}};
static PyType_Slot items_slots[] = {
    VIEW_SLOTS(setview_methods), SET_SLOTS, {Py_sq_contains, items_contains}, {0, NULL}};
static PyType_Slot values_slots[] = {
    VIEW_SLOTS(values_methods), {Py_sq_contains, values_contains}, {0, NULL}};

PyType_Spec dhp_keys_spec = {"dirtyheap._native.DictKeys", sizeof(dict_view), 0, Py_TPFLAGS_DEFAULT,
                             keys_slots};
PyType_Spec dhp_values_spec = {"dirtyheap._native.DictValues", sizeof(dict_view), 0,
                               Py_TPFLAGS_DEFAULT, values_slots};
PyType_Spec dhp_items_spec = {"dirtyheap._native.DictItems", sizeof(dict_view), 0,
                              Py_TPFLAGS_DEFAULT, items_slots};

/* --- equality of whole dicts ------------------------------------------------------------------ */

/* The other mapping's value: new reference; NULL and no exception when absent. */
static PyObject *other_value(const dhp_state *state, PyObject *other, PyObject *key)
{
    int found;
    PyObject *value;
    if (Py_TYPE(other) == state->dict_type)
        return dhp_dict_lookup((dhp_proxy *)other, key, &found);
    if (PyDict_Check(other)) {
        value = PyDict_GetItemWithError(other, key);
        return Py_XNewRef(value);
    }
    value = PyObject_GetItem(other, key);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
        PyErr_Clear();
    return value;
}

static int same_entries(dhp_proxy *self, PyObject *other)
{
    PyObject *item, *iter = dhp_dict_iter_new(self, DHP_ITEMS, 0);
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

PyObject *dhp_dict_richcompare(PyObject *obj, PyObject *other, int op)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dhp_state *state = self->core->state;
    if (op != Py_EQ && op != Py_NE)
        Py_RETURN_NOTIMPLEMENTED;
    int is_mapping = Py_TYPE(other) == state->dict_type || PyDict_Check(other)
                         ? 1
                         : PyObject_IsInstance(other, state->mapping_abc);
    if (is_mapping <= 0)
        return is_mapping < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    Py_ssize_t mine = dhp_dict_length(obj), theirs = mine < 0 ? -1 : PyObject_Size(other);
    if (theirs < 0)
        return NULL;
    int same = obj == other ? 1 : mine != theirs ? 0 : same_entries(self, other);
    return same < 0 ? NULL : PyBool_FromLong(op == Py_EQ ? same : !same);
}
