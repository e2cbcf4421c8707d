/* sorted_type.c -- SortedDict: the mapping protocol over a sorted dict of the heap.
 *
 * Every operation goes: make the key, convert the value, ask for the container's word, one call of
 * the core. A key that cannot be compared with those that are here is refused when it is stored and
 * simply not there when it is looked up. Nothing of the contents is remembered here.
 */
#include "sorted_type.h"

/* --- one entry -------------------------------------------------------------------------------- */

/* 0 and the word of the key's value, DH_E_ABSENT, or DHP_RAISED. */
static int sorted_find(dhp_proxy *self, PyObject *key_obj, dh_word *value_out)
{
    dhp_key key;
    int ready = dhp_sorted_key(self->core, key_obj, DHP_KEY_TO_FIND, &key);
    dh_word sorted = dhp_word(self);
    if (DH_UNLIKELY(ready != DHP_KEY_READY || sorted == 0)) {
        if (ready == DHP_KEY_READY)
            dhp_key_finish(&key);
        return ready < 0 || sorted == 0 ? DHP_RAISED : DH_E_ABSENT;
    }
    int rc = dh_sorted_get(self->core->heap, sorted, &key.key, value_out);
    dhp_key_finish(&key);
    if (DH_LIKELY(rc == 0 || rc == DH_E_ABSENT))
        return rc;
    if (rc == DH_E_UNORDERED)
        return DH_E_ABSENT;
    dhp_raise(self->core, rc);
    return DHP_RAISED;
}

static PyObject *sorted_subscript(PyObject *obj, PyObject *key)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word value;
    int rc = sorted_find(self, key, &value);
    if (DH_LIKELY(rc == 0))
        return dhp_object_from(self->core, value);
    if (rc == DH_E_ABSENT)
        dhp_raise_key(key);
    return NULL;
}

PyObject *dhp_sorted_lookup(dhp_proxy *self, PyObject *key, int *found_out)
{
    dh_word value;
    int rc = sorted_find(self, key, &value);
    *found_out = rc != DH_E_ABSENT;
    return rc == 0 ? dhp_object_from(self->core, value) : NULL;
}

int dhp_sorted_contains(PyObject *self, PyObject *key)
{
    dh_word value;
    int rc = sorted_find((dhp_proxy *)self, key, &value);
    return rc == 0 ? 1 : rc == DH_E_ABSENT ? 0 : -1;
}

/* The key is absent, and not one that the core makes by itself. Takes the value's word over; where
 * an exception came first, Python code may have run and the word is left to the collector. */
static int sorted_insert(dhp_proxy *self, const dhp_key *key, PyObject *key_obj, dh_word value)
{
    dh_word key_word, sorted;
    bool was_new;
    if (dhp_word_from_key(self->core, key_obj, key, &key_word) < 0)
        return -1;
    sorted = dhp_word_for_store(self);
    if (sorted == 0)
        return -1;
    int rc = dh_sorted_set(self->core->heap, sorted, &key->key, key_word, value, &was_new);
    if (rc == 0 && was_new)
        return 0;
    dh_value_drop(self->core->heap, key_word);
    if (rc == 0)
        return 0;
    dh_value_drop(self->core->heap, value);
    return dhp_raise(self->core, rc);
}

/* Store a word, which is taken over. True and 1.0 have the key of 1 but must come back as what they
 * are: any key that is no plain int or text is made only when it turns out to be absent. */
static int sorted_set_word(dhp_proxy *self, const dhp_key *key, PyObject *key_obj, dh_word value)
{
    bool was_new;
    dh_word sorted = dhp_word_for_store(self);
    if (DH_UNLIKELY(sorted == 0))
        return -1;
    dh_word key_word = PyLong_CheckExact(key_obj) ? key->key.word : DH_EMPTY;
    int rc = dh_sorted_set(self->core->heap, sorted, &key->key, key_word, value, &was_new);
    if (DH_LIKELY(rc == 0))
        return 0;
    if (rc == DH_E_ABSENT)
        return sorted_insert(self, key, key_obj, value);
    dh_value_drop(self->core->heap, value);
    return dhp_raise(self->core, rc);
}

static int sorted_store(dhp_proxy *self, PyObject *key_obj, PyObject *value_obj)
{
    dhp_key key;
    dh_word value;
    if (DH_UNLIKELY(dhp_sorted_key(self->core, key_obj, DHP_KEY_TO_STORE, &key) != DHP_KEY_READY))
        return -1;
    int rc = -1;
    /* What needs no cell is stored in one go; before a cell is made the dict must be writable. */
    if (DH_LIKELY(dhp_word_from_int(value_obj, &value)) ||
        (dhp_word_for_store(self) != 0 && dhp_word_from(self->core, value_obj, &value) == 0))
        rc = sorted_set_word(self, &key, key_obj, value);
    dhp_key_finish(&key);
    return rc;
}

int dhp_sorted_raise_restless(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "the container changed each time a value was unpacked to be taken out");
    return -1;
}

/* With Python's collector paused: the value's word, and an object with placeholders if wanted. */
static int take_look(dhp_proxy *self, const dh_key *key, dh_word *value_out, PyObject **raw_out)
{
    dh_word sorted = dhp_word_for_store(self);
    int rc = sorted != 0 ? dh_sorted_get(self->core->heap, sorted, key, value_out) : DHP_RAISED;
    if (rc == 0 && raw_out != NULL && (*raw_out = dhp_raw_from(self->core, *value_out)) == NULL)
        rc = DHP_RAISED;
    return rc;
}

/* Remove the entry if its value is still the one that raw was made from. */
static int take_out(dhp_proxy *self, const dh_key *key, dh_word value, PyObject *raw)
{
    dh_word now;
    int rc = take_look(self, key, &now, NULL);
    if (rc != 0)
        return rc;
    if (now != value || !dhp_is_still(self->core, now, raw))
        return DHP_TAKE_AGAIN;
    return dh_sorted_delete(self->core->heap, dhp_word_for_store(self), key, NULL);
}

/* Remove the entry; its value comes back as an object. A packed value is unpacked first, so that one
 * that cannot be read stays; that runs Python code, so look again afterwards. */
static int take_once(dhp_proxy *self, const dh_key *key, PyObject **value_out)
{
    uint64_t count_before = self->core->placeholders_count;
    PyObject *raw = NULL, *object = NULL;
    dh_word value;
    int was_enabled = dhp_gc_pause();
    int rc = take_look(self, key, &value, &raw);
    if (rc == 0 && self->core->placeholders_count != count_before) {
        dhp_gc_resume(was_enabled);
        object = dhp_resolve(self->core, count_before, Py_NewRef(raw));
        was_enabled = dhp_gc_pause();
        rc = object != NULL ? 0 : DHP_RAISED;
    } else if (rc == 0) {
        object = Py_NewRef(raw);
    }
    if (rc == 0)
        rc = take_out(self, key, value, raw);
    dhp_gc_resume(was_enabled);
    Py_XDECREF(raw);
    if (rc == 0)
        *value_out = object;
    else
        Py_XDECREF(object);
    return rc;
}

static int sorted_take(dhp_proxy *self, const dh_key *key, PyObject **value_out)
{
    int rc = DHP_TAKE_AGAIN;
    for (int i = 0; rc == DHP_TAKE_AGAIN && i < DHP_TAKES_MAX; i++)
        rc = take_once(self, key, value_out);
    if (rc != DHP_TAKE_AGAIN)
        return rc;
    dhp_sorted_raise_restless();
    return DHP_RAISED;
}

static int sorted_drop(dhp_proxy *self, const dh_key *key)
{
    dh_word sorted = dhp_word_for_store(self);
    return sorted != 0 ? dh_sorted_delete(self->core->heap, sorted, key, NULL) : DHP_RAISED;
}

/* Remove an entry; with value_out its value comes back as an object first. 0, 1: absent, -1. */
static int sorted_remove(dhp_proxy *self, PyObject *key_obj, PyObject **value_out)
{
    dhp_key key;
    int ready = dhp_sorted_key(self->core, key_obj, DHP_KEY_TO_FIND, &key);
    if (ready < 0)
        return -1;
    if (ready == DHP_KEY_NONE)
        return dhp_word_for_store(self) != 0 ? 1 : -1;
    int rc =
        value_out != NULL ? sorted_take(self, &key.key, value_out) : sorted_drop(self, &key.key);
    dhp_key_finish(&key);
    if (rc == DH_E_ABSENT || rc == DH_E_UNORDERED)
        return 1;
    if (rc != 0 && rc != DHP_RAISED)
        dhp_raise(self->core, rc);
    return rc == 0 ? 0 : -1;
}

static int sorted_ass_subscript(PyObject *obj, PyObject *key, PyObject *value)
{
    if (DH_LIKELY(value != NULL))
        return sorted_store((dhp_proxy *)obj, key, value);
    int rc = sorted_remove((dhp_proxy *)obj, key, NULL);
    return rc == 1 ? dhp_raise_key(key) : rc;
}

Py_ssize_t dhp_sorted_length(PyObject *obj)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    uint64_t length;
    dh_word sorted = dhp_word(self);
    if (sorted == 0)
        return -1;
    int rc = dh_sorted_length(self->core->heap, sorted, &length);
    return rc == 0 ? (Py_ssize_t)length : dhp_raise(self->core, rc);
}

/* --- methods ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(get_doc, "get($self, key, default=None, /)\n--\n\n"
                      "Return the value of key, or default when there is none. O(log len).\n\n"
                      ">>> prices = heap.sorted_dict({2: 'b', 1: 'a'})\n"
                      ">>> prices.get(3, 'none')\n"
                      "'none'");
static PyObject *sorted_get(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    int found;
    if (nargs < 1 || nargs > 2) {
        PyErr_Format(PyExc_TypeError, "get expected 1 or 2 arguments, got %zd", nargs);
        return NULL;
    }
    PyObject *value = dhp_sorted_lookup((dhp_proxy *)obj, args[0], &found);
    return found ? value : Py_NewRef(nargs == 2 ? args[1] : Py_None);
}

PyDoc_STRVAR(pop_doc, "pop($self, key, default=<unrepresentable>)\n--\n\n"
                      "Remove key and return its value. O(log len).\n\n"
                      "Absent: default, or KeyError without one.\n\n"
                      ">>> prices = heap.sorted_dict({2: 'b', 1: 'a'})\n"
                      ">>> prices.pop(1)\n"
                      "'a'");
static PyObject *sorted_pop(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "default", NULL};
    PyObject *key, *fallback = NULL, *value = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:pop", names, &key, &fallback))
        return NULL;
    int rc = sorted_remove((dhp_proxy *)obj, key, &value);
    if (rc == 1 && fallback != NULL)
        return Py_NewRef(fallback);
    if (rc == 1)
        dhp_raise_key(key);
    return value;
}

/* The key is absent: store value and return what a read would give. */
static PyObject *sorted_add_default(dhp_proxy *self, PyObject *key_obj, PyObject *value_obj)
{
    dh_word value;
    dhp_key key;
    PyObject *result = NULL;
    uint64_t count_before = 0;
    if (dhp_sorted_key(self->core, key_obj, DHP_KEY_TO_STORE, &key) != DHP_KEY_READY)
        return NULL;
    if (dhp_word_for_store(self) != 0 && dhp_word_from(self->core, value_obj, &value) == 0) {
        /* Before the store: a copied-in container must be a root by then. */
        count_before = self->core->placeholders_count;
        result = dh_is_container(value) ? dhp_raw_from(self->core, value) : Py_NewRef(value_obj);
        if (result != NULL && sorted_set_word(self, &key, key_obj, value) < 0)
            Py_CLEAR(result);
    }
    dhp_key_finish(&key);
    if (result != NULL && result != value_obj)
        result = dhp_resolve(self->core, count_before, result);
    if (result != NULL && PyTuple_CheckExact(result)) { /* containers in it were copied in */
        int found;
        dhp_replace(&result, dhp_sorted_lookup(self, key_obj, &found));
        if (result == NULL && !PyErr_Occurred())
            dhp_raise_key(key_obj); /* Python's collector ran and took it out again */
    }
    return result;
}

PyDoc_STRVAR(setdefault_doc,
             "setdefault($self, key, default=None)\n--\n\n"
             "Return the value of key; when there is none, store default first. O(log len).\n\n"
             "A plain container given as default is copied in, and the heap's container is "
             "returned.\n\n"
             ">>> prices = heap.sorted_dict({2: 'b'})\n"
             ">>> prices.setdefault(1, 'a')\n"
             "'a'");
static PyObject *sorted_setdefault(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "default", NULL};
    PyObject *key, *fallback = Py_None;
    int found;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:setdefault", names, &key, &fallback))
        return NULL;
    PyObject *value = dhp_sorted_lookup((dhp_proxy *)obj, key, &found);
    return found ? value : sorted_add_default((dhp_proxy *)obj, key, fallback);
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove everything. O(len).\n\n"
                        ">>> prices = heap.sorted_dict({2: 'b'})\n"
                        ">>> prices.clear()\n"
                        ">>> len(prices)\n"
                        "0");
static PyObject *sorted_clear(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word sorted = dhp_word_for_store(self);
    (void)ignored;
    if (sorted == 0)
        return NULL;
    int rc = dh_sorted_clear(self->core->heap, sorted);
    if (rc != 0) {
        dhp_raise(self->core, rc);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(copy_doc, "copy($self, /)\n--\n\n"
                       "Return a plain dict with the same entries, in the order of the keys; "
                       "containers in it are the\nheap's own. O(len).\n\n"
                       ">>> heap.sorted_dict({2: 'b', 1: 'a'}).copy()\n"
                       "{1: 'a', 2: 'b'}");
static PyObject *sorted_copy(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_sorted_copy((dhp_proxy *)self);
}

PyDoc_STRVAR(keys_doc,
             "keys($self, /)\n--\n\n"
             "A view of the keys: set-like, and a sequence (indexes, slices, index, count).\n\n"
             ">>> keys = heap.sorted_dict({2: 'b', 1: 'a'}).keys()\n"
             ">>> keys[0], list(keys[-1:])\n"
             "(1, [2])");
static PyObject *sorted_keys(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_sorted_view_new((dhp_proxy *)self, DHP_KEYS);
}

PyDoc_STRVAR(values_doc, "values($self, /)\n--\n\n"
                         "A view of the values in the order of their keys; a sequence.\n\n"
                         ">>> heap.sorted_dict({2: 'b', 1: 'a'}).values()[0]\n"
                         "'a'");
static PyObject *sorted_values(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_sorted_view_new((dhp_proxy *)self, DHP_VALUES);
}

PyDoc_STRVAR(items_doc, "items($self, /)\n--\n\n"
                        "A view of the (key, value) pairs: set-like, and a sequence.\n\n"
                        ">>> list(heap.sorted_dict({2: 'b', 1: 'a'}).items())\n"
                        "[(1, 'a'), (2, 'b')]");
static PyObject *sorted_items(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_sorted_view_new((dhp_proxy *)self, DHP_ITEMS);
}

static PyObject *sorted_iter(PyObject *self)
{
    return dhp_sorted_iter_new((dhp_proxy *)self, DHP_KEYS, 0, UINT64_MAX, 0);
}

PyDoc_STRVAR(reversed_doc, "__reversed__($self, /)\n--\n\nThe keys, largest first.\n\n"
                           ">>> list(reversed(heap.sorted_dict({2: 'b', 1: 'a'})))\n"
                           "[2, 1]");
static PyObject *sorted_reversed(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_sorted_iter_new((dhp_proxy *)self, DHP_KEYS, 0, UINT64_MAX, 1);
}

/* --- whole dicts ------------------------------------------------------------------------------ */

static PyObject *sorted_repr(PyObject *self)
{
    int entered = Py_ReprEnter(self);
    if (entered != 0)
        return entered > 0 ? PyUnicode_FromString("SortedDict({...})") : NULL;
    PyObject *copy = dhp_sorted_copy_raw((dhp_proxy *)self);
    PyObject *text = copy ? PyUnicode_FromFormat("SortedDict(%R)", copy) : NULL;
    Py_XDECREF(copy);
    Py_ReprLeave(self);
    return text;
}

/* dict(obj) for a plain dict or one of ours; a new reference to NotImplemented for others. */
static PyObject *plain_dict_of(const dhp_state *state, PyObject *obj)
{
    if (Py_TYPE(obj) == state->sorted_type)
        return dhp_sorted_copy((dhp_proxy *)obj);
    if (Py_TYPE(obj) == state->dict_type)
        return dhp_dict_copy((dhp_proxy *)obj);
    if (PyDict_Check(obj))
        return PyDict_Copy(obj);
    return Py_NewRef(Py_NotImplemented);
}

/* At least one of the operands is a SortedDict, and knows the module's state. */
static const dhp_state *state_of(PyObject *left, PyObject *right)
{
    void *dealloc = PyType_GetSlot(Py_TYPE(left), Py_tp_dealloc);
    PyObject *mine = dealloc == (void *)dhp_proxy_dealloc ? left : right;
    return ((dhp_proxy *)mine)->core->state;
}

static PyObject *sorted_or(PyObject *left, PyObject *right)
{
    const dhp_state *state = state_of(left, right);
    PyObject *merged = plain_dict_of(state, left);
    if (merged == NULL || merged == Py_NotImplemented)
        return merged;
    PyObject *more = plain_dict_of(state, right);
    if (more == NULL || more == Py_NotImplemented || PyDict_Update(merged, more) < 0)
        Py_CLEAR(merged);
    if (more == Py_NotImplemented)
        return more;
    Py_XDECREF(more);
    return merged;
}

static PyObject *sorted_inplace_or(PyObject *self, PyObject *other)
{
    if (dhp_sorted_update((dhp_proxy *)self, other, NULL) < 0)
        return NULL;
    return Py_NewRef(self);
}

static PyObject *sorted_refuse_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)type;
    (void)args;
    (void)kwargs;
    PyErr_SetString(PyExc_TypeError, "cannot create 'SortedDict' directly: it lives in a heap, use "
                                     "heap.sorted_dict()");
    return NULL;
}

PyDoc_STRVAR(class_getitem_doc, "__class_getitem__($cls, item, /)\n--\n\n"
                                "SortedDict[str, int] in annotations; no effect at run time.");

#define WITH_KEYWORDS(function) \
    (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS

static PyMethodDef sorted_methods[] = {
    {"get", (PyCFunction)(void (*)(void))sorted_get, METH_FASTCALL, get_doc},
    {"pop", WITH_KEYWORDS(sorted_pop), pop_doc},
    {"popitem", WITH_KEYWORDS(dhp_sorted_popitem), dhp_sorted_popitem_doc},
    {"peekitem", WITH_KEYWORDS(dhp_sorted_peekitem), dhp_sorted_peekitem_doc},
    {"setdefault", WITH_KEYWORDS(sorted_setdefault), setdefault_doc},
    {"update", WITH_KEYWORDS(dhp_sorted_update_method), dhp_sorted_update_doc},
    {"clear", sorted_clear, METH_NOARGS, clear_doc},
    {"copy", sorted_copy, METH_NOARGS, copy_doc},
    {"keys", sorted_keys, METH_NOARGS, keys_doc},
    {"values", sorted_values, METH_NOARGS, values_doc},
    {"items", sorted_items, METH_NOARGS, items_doc},
    {"bisect", dhp_sorted_bisect_right, METH_O, dhp_sorted_bisect_doc},
    {"bisect_left", dhp_sorted_bisect_left, METH_O, dhp_sorted_bisect_left_doc},
    {"bisect_right", dhp_sorted_bisect_right, METH_O, dhp_sorted_bisect_right_doc},
    {"index", WITH_KEYWORDS(dhp_sorted_index), dhp_sorted_index_doc},
    {"irange", WITH_KEYWORDS(dhp_sorted_irange), dhp_sorted_irange_doc},
    {"islice", WITH_KEYWORDS(dhp_sorted_islice), dhp_sorted_islice_doc},
    {"__reversed__", sorted_reversed, METH_NOARGS, reversed_doc},
    {"__copy__", sorted_copy, METH_NOARGS, "A plain shallow copy."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    sorted_doc,
    "A dict in the order of its keys that lives in a heap, with the methods of\n"
    "sortedcontainers.SortedDict.\n\n"
    "Made with heap.sorted_dict(). Keys: int, float, bool, Decimal, Fraction, str, bytes, "
    "date, datetime,\ntime, timedelta, UUID, paths, tuples of these, or one None; all in one dict "
    "must be comparable with\neach other, and none may be NaN. Lookups by key and by position are "
    "O(log len). copy(), copy.copy() and | give plain dicts; set "
    "operations "
    "of views give plain sets.\n"
    "Equal to any mapping with equal entries.");

static PyType_Slot sorted_slots[] = {
    {Py_tp_doc, (void *)sorted_doc},
    {Py_tp_new, sorted_refuse_new},
    {Py_tp_dealloc, dhp_proxy_dealloc},
    {Py_tp_methods, sorted_methods},
    {Py_tp_repr, sorted_repr},
    {Py_tp_richcompare, dhp_sorted_richcompare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_iter, sorted_iter},
    {Py_mp_length, dhp_sorted_length},
    {Py_mp_subscript, sorted_subscript},
    {Py_mp_ass_subscript, sorted_ass_subscript},
    {Py_sq_contains, dhp_sorted_contains},
    {Py_nb_or, sorted_or},
    {Py_nb_inplace_or, sorted_inplace_or},
    {0, NULL},
};

PyType_Spec dhp_sorted_spec = {"dirtyheap.SortedDict", sizeof(dhp_proxy), 0, Py_TPFLAGS_DEFAULT,
                               sorted_slots};
