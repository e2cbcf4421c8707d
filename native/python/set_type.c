/* set_type.c -- Set: elements one by one, and the type with its methods.
 *
 * Every operation goes: make the key (may run the user's __hash__), ask for the set's word, one call
 * of the core. Whole sets: set_update.c (in place), set_algebra.c (plain results, questions).
 */
#include "state.h"

#include <stdlib.h>

/* --- one element ------------------------------------------------------------------------------ */

/* A set has no hash; it is looked up as the frozenset that it equals. */
int dhp_set_key(dhp_core *core, PyObject *obj, dhp_key *out)
{
    int ready = dhp_key_find(core, obj, out);
    if (DH_LIKELY(ready >= 0) || !(PySet_Check(obj) || dhp_is_set(core, obj)) ||
        !PyErr_ExceptionMatches(PyExc_TypeError))
        return ready;
    PyErr_Clear();
    PyObject *frozenset = PyFrozenSet_New(obj);
    ready = frozenset != NULL ? dhp_key_find(core, frozenset, out) : -1;
    Py_XDECREF(frozenset); /* the key has canonical bytes of its own */
    return ready;
}

int dhp_set_contains(PyObject *obj, PyObject *element)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dhp_key key;
    dh_word ignored;
    int ready = dhp_set_key(self->core, element, &key);
    dh_word set = dhp_word(self);
    if (DH_UNLIKELY(ready != DHP_KEY_READY || set == 0)) {
        if (ready == DHP_KEY_READY)
            dhp_key_finish(&key);
        return ready < 0 || set == 0 ? -1 : 0;
    }
    int rc = dh_set_find(self->core->heap, set, &key.key, &ignored);
    dhp_key_finish(&key);
    if (DH_LIKELY(rc == 0 || rc == DH_E_ABSENT))
        return rc == 0;
    return dhp_raise(self->core, rc);
}

int dhp_set_refuse(PyObject *element)
{
    if (PyObject_Hash(element) == -1 && PyErr_Occurred())
        return -1;
    PyObject *name = PyType_GetQualName(Py_TYPE(element));
    if (name != NULL)
        PyErr_Format(PyExc_TypeError,
                     "a heap cannot hold a set's element of type '%U': use None, bool, int, float, "
                     "str, bytes, dates, Decimal and the like, a tuple or frozenset of these, or "
                     "make the type known with dirtyheap.register()",
                     name);
    Py_XDECREF(name);
    return -1;
}

/* The element is absent: make its word, then store. */
static int set_insert(dhp_proxy *self, const dhp_key *key, PyObject *element)
{
    dh_word word, set;
    bool was_new;
    if (dhp_word_from_key(self->core, element, key, &word) < 0)
        return -1;
    set = dhp_word_for_store(self);
    if (set == 0) /* Python code ran: the new word is left to the collector */
        return -1;
    int rc = dh_set_add(self->core->heap, set, &key->key, word, &was_new);
    if (rc == 0 && was_new)
        return 0;
    dh_value_drop(self->core->heap, word);
    return rc == 0 ? 0 : dhp_raise(self->core, rc);
}

PyDoc_STRVAR(add_doc, "add($self, element, /)\n--\n\n"
                      "Add an element; nothing changes when an equal one is there. O(1).\n\n"
                      ">>> heap.root['tags'].add('new')");
static PyObject *set_add(PyObject *obj, PyObject *element)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dhp_key key;
    bool was_new;
    int ready = dhp_key_init(self->core, element, &key);
    if (DH_UNLIKELY(ready != DHP_KEY_READY)) {
        if (ready == DHP_KEY_NONE)
            dhp_set_refuse(element);
        return NULL;
    }
    int rc = -1;
    dh_word set = dhp_word_for_store(self);
    if (DH_LIKELY(set != 0)) {
        /* True, 1.0 and Decimal(1) have the key of 1 but must come back as what they are. */
        bool is_other_form = PyBool_Check(element) || PyFloat_CheckExact(element) || key.is_packed;
        rc = dh_set_add(self->core->heap, set, &key.key, is_other_form ? DH_EMPTY : key.key.word,
                        &was_new);
        if (rc == DH_E_ABSENT)
            rc = set_insert(self, &key, element);
        else if (rc != 0)
            rc = dhp_raise(self->core, rc);
    }
    dhp_key_finish(&key);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* 0: removed, 1: absent, -1. */
static int set_remove_element(dhp_proxy *self, PyObject *element)
{
    dhp_key key;
    int ready = dhp_set_key(self->core, element, &key);
    if (ready < 0)
        return -1;
    dh_word set = dhp_word_for_store(self);
    int rc = DH_E_ABSENT;
    if (set != 0 && ready == DHP_KEY_READY)
        rc = dh_set_remove(self->core->heap, set, &key.key);
    if (ready == DHP_KEY_READY)
        dhp_key_finish(&key);
    if (set == 0)
        return -1;
    return rc == 0 ? 0 : rc == DH_E_ABSENT ? 1 : dhp_raise(self->core, rc);
}

PyDoc_STRVAR(discard_doc, "discard($self, element, /)\n--\n\n"
                          "Remove an element if it is there. O(1).\n\n"
                          ">>> tags = heap.set({'new'})\n"
                          ">>> tags.discard('old')\n"
                          ">>> tags\n"
                          "{'new'}");
static PyObject *set_discard(PyObject *self, PyObject *element)
{
    if (set_remove_element((dhp_proxy *)self, element) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(remove_doc, "remove($self, element, /)\n--\n\n"
                         "Remove an element. O(1).\n\n"
                         "Raises KeyError when it is not there.\n\n"
                         ">>> tags = heap.set({'new', 'old'})\n"
                         ">>> tags.remove('old')\n"
                         ">>> tags\n"
                         "{'new'}");
static PyObject *set_remove(PyObject *self, PyObject *element)
{
    int rc = set_remove_element((dhp_proxy *)self, element);
    if (rc > 0)
        dhp_raise_key(element);
    if (rc != 0)
        return NULL;
    Py_RETURN_NONE;
}

/* An element that is unpacked to be taken out may change under it this often. */
#define POPS_MAX 16
enum { POP_AGAIN = 1 };

/* With Python's collector paused: the newest element's word. 0 or -1. */
static int newest(dhp_proxy *self, dh_word *word_out)
{
    dh_dict_pos position = {0, 0};
    dh_word set = dhp_word_for_store(self);
    int rc = set != 0 ? dh_set_prev(self->core->heap, set, &position, word_out) : 0;
    if (rc == 1)
        return 0;
    if (rc < 0)
        dhp_raise(self->core, rc);
    else if (set != 0)
        PyErr_SetString(PyExc_KeyError, "pop from an empty set");
    return -1;
}

/* The same: out with it if it is still the one that raw was made from. 0, POP_AGAIN, -1. */
static int take_newest(dhp_proxy *self, dh_word expected, PyObject *raw)
{
    dh_word word;
    if (newest(self, &word) < 0)
        return -1;
    if (word != expected || !dhp_is_still(self->core, word, raw))
        return POP_AGAIN;
    int rc = dh_set_remove_word(self->core->heap, self->handle.word, word);
    return rc == 0 ? 0 : dhp_raise(self->core, rc);
}

/* A packed element is unpacked before it goes, so that one that cannot be read stays; that runs
 * Python code, so look again afterwards. */
static int pop_once(dhp_proxy *self, PyObject **element_out)
{
    uint64_t count_before = self->core->placeholders_count;
    dh_word word = 0;
    int was_enabled = dhp_gc_pause();
    PyObject *raw = newest(self, &word) == 0 ? dhp_raw_from(self->core, word) : NULL;
    PyObject *element = Py_XNewRef(raw);
    if (raw != NULL && self->core->placeholders_count != count_before) {
        dhp_gc_resume(was_enabled);
        element = dhp_resolve(self->core, count_before, element);
        was_enabled = dhp_gc_pause();
    }
    int rc = element != NULL ? take_newest(self, word, raw) : -1;
    dhp_gc_resume(was_enabled);
    Py_XDECREF(raw);
    if (rc == 0)
        *element_out = element;
    else
        Py_XDECREF(element);
    return rc;
}

PyDoc_STRVAR(pop_doc, "pop($self, /)\n--\n\n"
                      "Remove and return the newest element. O(1).\n\n"
                      "Raises KeyError when the set is empty.\n\n"
                      ">>> tags = heap.set(['first', 'second'])\n"
                      ">>> tags.pop()\n"
                      "'second'");
static PyObject *set_pop(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    (void)ignored;
    PyObject *element = NULL;
    int rc = POP_AGAIN;
    for (int i = 0; rc == POP_AGAIN && i < POPS_MAX; i++)
        rc = pop_once(self, &element);
    if (rc == POP_AGAIN)
        PyErr_SetString(PyExc_RuntimeError,
                        "the container changed each time a value was unpacked to be taken out");
    return element;
}

/* --- whole sets ------------------------------------------------------------------------------- */

Py_ssize_t dhp_set_length(PyObject *obj)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    uint64_t length;
    dh_word set = dhp_word(self);
    if (set == 0)
        return -1;
    int rc = dh_set_length(self->core->heap, set, &length);
    return rc == 0 ? (Py_ssize_t)length : dhp_raise(self->core, rc);
}

static PyObject *set_iter(PyObject *self) { return dhp_set_iter_new((dhp_proxy *)self); }

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove everything. O(len).\n\n"
                        ">>> tags = heap.set({'new'})\n"
                        ">>> tags.clear()\n"
                        ">>> len(tags)\n"
                        "0");
static PyObject *set_clear(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word set = dhp_word_for_store(self);
    (void)ignored;
    if (set == 0)
        return NULL;
    int rc = dh_set_clear(self->core->heap, set);
    if (rc != 0) {
        dhp_raise(self->core, rc);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(copy_doc, "copy($self, /)\n--\n\nReturn a plain set of the elements. O(len).\n\n"
                       ">>> heap.set({'new'}).copy()\n"
                       "{'new'}");
static PyObject *set_copy_method(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_set_copy((dhp_proxy *)self);
}

/* "{1, 2}" in the order of the set, from the "[1, 2]" of a list. */
static PyObject *set_repr(PyObject *self)
{
    PyObject *elements = dhp_set_list_raw((dhp_proxy *)self);
    if (elements == NULL || PyList_Size(elements) == 0) {
        Py_XDECREF(elements);
        return elements != NULL ? PyUnicode_FromString("set()") : NULL;
    }
    PyObject *text = PyObject_Repr(elements);
    Py_DECREF(elements);
    dhp_replace(&text, text ? PyUnicode_Substring(text, 1, PyUnicode_GetLength(text) - 1) : NULL);
    dhp_replace(&text, text ? PyUnicode_FromFormat("{%U}", text) : NULL);
    return text;
}

/* --- in place --------------------------------------------------------------------------------- */

static PyObject *none_or_error(int rc)
{
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    update_doc,
    "update($self, /, *others)\n--\n\n"
    "Add all elements of all iterables.\n\n"
    "All or nothing: when an element cannot be stored, or the capacity is reached, the set "
    "stays as\nit was. O(elements).");
static PyObject *set_update(PyObject *self, PyObject *const *others, Py_ssize_t count)
{
    return none_or_error(dhp_set_update((dhp_proxy *)self, others, count));
}

PyDoc_STRVAR(intersection_update_doc, "intersection_update($self, /, *others)\n--\n\n"
                                      "Remove what one of the iterables does not have.\n\n"
                                      ">>> even = heap.set(range(0, 10, 2))\n"
                                      ">>> even.intersection_update(range(5))\n"
                                      ">>> even\n"
                                      "{0, 2, 4}");
static PyObject *set_intersection_update(PyObject *self, PyObject *const *others, Py_ssize_t count)
{
    return none_or_error(dhp_set_keep((dhp_proxy *)self, others, count));
}

PyDoc_STRVAR(difference_update_doc, "difference_update($self, /, *others)\n--\n\n"
                                    "Remove what one of the iterables has.\n\n"
                                    ">>> even = heap.set(range(0, 10, 2))\n"
                                    ">>> even.difference_update(range(5))\n"
                                    ">>> even\n"
                                    "{6, 8}");
static PyObject *set_difference_update(PyObject *self, PyObject *const *others, Py_ssize_t count)
{
    return none_or_error(dhp_set_take_out((dhp_proxy *)self, others, count));
}

PyDoc_STRVAR(symmetric_difference_update_doc,
             "symmetric_difference_update($self, other, /)\n--\n\n"
             "Remove what both have, add what only the iterable has.\n\n"
             ">>> some = heap.set([1, 2])\n"
             ">>> some.symmetric_difference_update([2, 3])\n"
             ">>> some\n"
             "{1, 3}");
static PyObject *set_symmetric_difference_update(PyObject *self, PyObject *other)
{
    return none_or_error(dhp_set_toggle((dhp_proxy *)self, other));
}

/* s |= x and the like: x must be set-like. A view is taken too: the method of the view that Python
 * would try next gives a plain set, and the name would lose the Set. */
static PyObject *in_place(PyObject *self, PyObject *other,
                          int (*change)(dhp_proxy *, PyObject *const *, Py_ssize_t))
{
    if (!dhp_is_set_like(((dhp_proxy *)self)->core->state, other))
        Py_RETURN_NOTIMPLEMENTED;
    return change((dhp_proxy *)self, &other, 1) < 0 ? NULL : Py_NewRef(self);
}

static int toggle_one(dhp_proxy *self, PyObject *const *others, Py_ssize_t count)
{
    (void)count;
    return dhp_set_toggle(self, others[0]);
}

static PyObject *set_ior(PyObject *self, PyObject *other)
{
    return in_place(self, other, dhp_set_update);
}
static PyObject *set_iand(PyObject *self, PyObject *other)
{
    return in_place(self, other, dhp_set_keep);
}
static PyObject *set_isub(PyObject *self, PyObject *other)
{
    return in_place(self, other, dhp_set_take_out);
}
static PyObject *set_ixor(PyObject *self, PyObject *other)
{
    return in_place(self, other, toggle_one);
}

/* --- the type --------------------------------------------------------------------------------- */

PyDoc_STRVAR(union_doc, "union($self, /, *others)\n--\n\n"
                        "Return a plain set of the elements of this set and of all iterables.\n\n"
                        ">>> sorted(heap.set([1, 2]).union([3], [4]))\n"
                        "[1, 2, 3, 4]");
PyDoc_STRVAR(intersection_doc,
             "intersection($self, /, *others)\n--\n\n"
             "Return a plain set of the elements that all iterables have, too.\n\n"
             ">>> heap.set([1, 2, 3]).intersection([2, 3], [3, 4])\n"
             "{3}");
PyDoc_STRVAR(difference_doc,
             "difference($self, /, *others)\n--\n\n"
             "Return a plain set of the elements that none of the iterables has.\n\n"
             ">>> heap.set([1, 2, 3]).difference([1], [2])\n"
             "{3}");
PyDoc_STRVAR(symmetric_difference_doc,
             "symmetric_difference($self, other, /)\n--\n\n"
             "Return a plain set of what is either in this set or in the iterable.\n\n"
             ">>> sorted(heap.set([1, 2]).symmetric_difference([2, 3]))\n"
             "[1, 3]");
PyDoc_STRVAR(isdisjoint_doc, "isdisjoint($self, other, /)\n--\n\n"
                             "True when the set and the iterable have no element in common.\n\n"
                             ">>> heap.set([1, 2]).isdisjoint([3])\n"
                             "True");
PyDoc_STRVAR(issubset_doc, "issubset($self, other, /)\n--\n\n"
                           "True when the iterable has every element of this set.\n\n"
                           ">>> heap.set([1, 2]).issubset(range(5))\n"
                           "True");
PyDoc_STRVAR(issuperset_doc, "issuperset($self, other, /)\n--\n\n"
                             "True when this set has every element of the iterable.\n\n"
                             ">>> heap.set(range(5)).issuperset([1, 2])\n"
                             "True");
PyDoc_STRVAR(class_getitem_doc, "__class_getitem__($cls, item, /)\n--\n\n"
                                "Set[str] in annotations; no effect at run time.");

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL
static PyMethodDef set_methods[] = {
    {"add", set_add, METH_O, add_doc},
    {"discard", set_discard, METH_O, discard_doc},
    {"remove", set_remove, METH_O, remove_doc},
    {"pop", set_pop, METH_NOARGS, pop_doc},
    {"clear", set_clear, METH_NOARGS, clear_doc},
    {"copy", set_copy_method, METH_NOARGS, copy_doc},
    {"update", FAST(set_update), update_doc},
    {"intersection_update", FAST(set_intersection_update), intersection_update_doc},
    {"difference_update", FAST(set_difference_update), difference_update_doc},
    {"symmetric_difference_update", set_symmetric_difference_update, METH_O,
     symmetric_difference_update_doc},
    {"union", FAST(dhp_set_union), union_doc},
    {"intersection", FAST(dhp_set_intersection), intersection_doc},
    {"difference", FAST(dhp_set_difference), difference_doc},
    {"symmetric_difference", dhp_set_symmetric_difference, METH_O, symmetric_difference_doc},
    {"isdisjoint", dhp_set_isdisjoint, METH_O, isdisjoint_doc},
    {"issubset", dhp_set_issubset, METH_O, issubset_doc},
    {"issuperset", dhp_set_issuperset, METH_O, issuperset_doc},
    {"__copy__", set_copy_method, METH_NOARGS, "A plain shallow copy."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    set_doc,
    "A set that lives in a heap, with all methods of set; iterates in order of insertion.\n\n"
    "Made with heap.set(). Elements: None, bool, int, float, str, bytes, and tuples and\n"
    "frozensets of these. copy(), union() and the operators give plain sets. Equal to any "
    "set\nwith equal elements.");

static PyType_Slot set_slots[] = {
    {Py_tp_doc, (void *)set_doc},
    {Py_tp_dealloc, dhp_proxy_dealloc},
    {Py_tp_methods, set_methods},
    {Py_tp_repr, set_repr},
    {Py_tp_richcompare, dhp_set_richcompare},
    {Py_tp_iter, set_iter},
    {Py_sq_length, dhp_set_length},
    {Py_sq_contains, dhp_set_contains},
    {Py_nb_or, dhp_set_or},
    {Py_nb_and, dhp_set_and},
    {Py_nb_subtract, dhp_set_sub},
    {Py_nb_xor, dhp_set_xor},
    {Py_nb_inplace_or, set_ior},
    {Py_nb_inplace_and, set_iand},
    {Py_nb_inplace_subtract, set_isub},
    {Py_nb_inplace_xor, set_ixor},
    {0, NULL},
};

PyType_Spec dhp_set_spec = {"dirtyheap.Set", sizeof(dhp_proxy), 0, Py_TPFLAGS_DEFAULT, set_slots};
