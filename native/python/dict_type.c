/* dict_type.c -- Dict: the mapping protocol over a dict of the heap, one core call per operation.
 *
 * Every operation goes: make the key (may run the user's __hash__), convert the value, ask for the
 * dict's word, one call of the core. Nothing of the contents is remembered here.
 */
#include "state.h"

/* --- one entry -------------------------------------------------------------------------------- */

/* No code of the core: an exception is set. */
enum { RAISED = -1000 };

static int found_or_raised(dhp_core *core, int rc)
{
    if (DH_LIKELY(rc == 0 || rc == DH_E_ABSENT))
        return rc;
    dhp_raise(core, rc);
    return RAISED;
}

/* 0 and the word of the key's value, DH_E_ABSENT, or RAISED. */
static int dict_find_slow(dhp_proxy *self, PyObject *key_obj, dh_word *value_out)
{
    dhp_key key;
    int ready = dhp_key_find(self->core, key_obj, &key);
    dh_word dict = dhp_word(self);
    if (DH_UNLIKELY(ready != DHP_KEY_READY || dict == 0)) {
        if (ready == DHP_KEY_READY)
            dhp_key_finish(&key);
        return ready < 0 || dict == 0 ? RAISED : DH_E_ABSENT;
    }
    int rc = dh_dict_get(self->core->heap, dict, &key.key, value_out);
    dhp_key_finish(&key);
    return found_or_raised(self->core, rc);
}

/* The same. A str whose key is known needs no key made: nothing ran, and a word that is not 0 says
 * that the heap is open. */
static inline int dict_find(dhp_proxy *self, PyObject *key_obj, dh_word *value_out)
{
    dhp_core *core = self->core;
    dh_word dict = self->handle.word;
    if (PyUnicode_CheckExact(key_obj) && DH_LIKELY(dict != 0)) {
        const dhp_known_text *known = &core->texts[dhp_text_slot(key_obj)];
        if (known->text == key_obj)
            return found_or_raised(core, dh_dict_get(core->heap, dict, &known->key, value_out));
    }
    return dict_find_slow(self, key_obj, value_out);
}

static PyObject *dict_subscript(PyObject *obj, PyObject *key)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word value;
    int rc = dict_find(self, key, &value);
    if (DH_LIKELY(rc == 0))
        return dhp_object_from(self->core, value);
    if (rc == DH_E_ABSENT)
        dhp_raise_key(key);
    return NULL;
}

PyObject *dhp_dict_lookup(dhp_proxy *self, PyObject *key, int *found_out)
{
    dh_word value;
    int rc = dict_find(self, key, &value);
    *found_out = rc != DH_E_ABSENT;
    return rc == 0 ? dhp_object_from(self->core, value) : NULL;
}

int dhp_dict_contains(PyObject *self, PyObject *key)
{
    dh_word value;
    int rc = dict_find((dhp_proxy *)self, key, &value);
    return rc == 0 ? 1 : rc == DH_E_ABSENT ? 0 : -1;
}

/* The key is absent: make its word, then store. Takes the value's word over; where an exception
 * came first, Python code may have run and the word may be another's by now: it is left to the
 * collector. */
static int dict_insert(dhp_proxy *self, const dhp_key *key, PyObject *key_obj, dh_word value)
{
    dh_word key_word, dict;
    bool was_new;
    if (dhp_word_from_key(self->core, key_obj, key, &key_word) < 0)
        return -1;
    dict = dhp_word_for_store(self);
    if (dict == 0)
        return -1;
    int rc = dh_dict_set(self->core->heap, dict, &key->key, key_word, value, &was_new);
    if (rc == 0 && was_new)
        return 0;
    dh_value_drop(self->core->heap, key_word);
    if (rc == 0)
        return 0;
    dh_value_drop(self->core->heap, value);
    return dhp_raise(self->core, rc);
}

/* Store a word, which is taken over. A str, or a key that needs no cell, is stored at once; any other
 * is made only when it turns out to be absent, so that overwriting never makes a cell. True, 1.0 and
 * Decimal(1) have the key of 1 but must come back as what they are. */
static int dict_set_word(dhp_proxy *self, const dhp_key *key, PyObject *key_obj, dh_word value)
{
    bool was_new;
    dh_word dict = dhp_word_for_store(self);
    if (DH_UNLIKELY(dict == 0))
        return -1;
    if (key->key.tag == 's' && !key->is_packed) {
        int stored = dh_dict_set_str(self->core->heap, dict, &key->key, value);
        if (DH_LIKELY(stored == 0))
            return 0;
        dh_value_drop(self->core->heap, value);
        return dhp_raise(self->core, stored);
    }
    dh_word key_word = key->key.word;
    if (PyBool_Check(key_obj) || PyFloat_CheckExact(key_obj) || key->is_packed)
        key_word = DH_EMPTY;
    int rc = dh_dict_set(self->core->heap, dict, &key->key, key_word, value, &was_new);
    if (DH_LIKELY(rc == 0))
        return 0;
    if (rc == DH_E_ABSENT)
        return dict_insert(self, key, key_obj, value);
    dh_value_drop(self->core->heap, value);
    return dhp_raise(self->core, rc);
}

static int refuse_key(const dhp_proxy *self, PyObject *key)
{
    if (dhp_is_proxy(self->core->state, key)) {
        PyErr_SetString(PyExc_ValueError, "a record of another heap cannot be a key");
        return -1;
    }
    PyObject *name = PyType_GetQualName(Py_TYPE(key));
    if (name != NULL)
        PyErr_Format(
            PyExc_TypeError,
            "a heap cannot hold a key of type '%U': use None, bool, int, float, str, bytes, "
            "dates, Decimal and the like, a tuple or frozenset of these, or make the type known "
            "with "
            "dirtyheap.register()",
            name);
    Py_XDECREF(name);
    return -1;
}

int dhp_dict_store(dhp_proxy *self, PyObject *key_obj, PyObject *value_obj)
{
    dhp_key key;
    dh_word value;
    int ready = dhp_key_init(self->core, key_obj, &key);
    if (DH_UNLIKELY(ready != DHP_KEY_READY))
        return ready < 0 ? -1 : refuse_key(self, key_obj);
    int rc = -1;
    /* What needs no cell is stored in one go; before a cell is made the dict must be writable. */
    if (DH_LIKELY(dhp_word_from_int(value_obj, &value)) ||
        (dhp_word_for_store(self) != 0 && dhp_word_from(self->core, value_obj, &value) == 0))
        rc = dict_set_word(self, &key, key_obj, value);
    dhp_key_finish(&key);
    return rc;
}

static int dict_ass_subscript(PyObject *obj, PyObject *key, PyObject *value)
{
    if (DH_LIKELY(value != NULL))
        return dhp_dict_store((dhp_proxy *)obj, key, value);
    int rc = dhp_dict_remove((dhp_proxy *)obj, key, NULL);
    return rc == 1 ? dhp_raise_key(key) : rc;
}

Py_ssize_t dhp_dict_length(PyObject *obj)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    uint64_t length;
    dh_word dict = dhp_word(self);
    if (dict == 0)
        return -1;
    int rc = dh_dict_length(self->core->heap, dict, &length);
    return rc == 0 ? (Py_ssize_t)length : dhp_raise(self->core, rc);
}

/* --- methods ---------------------------------------------------------------------------------- */

static int check_nargs(const char *name, Py_ssize_t nargs, Py_ssize_t min, Py_ssize_t max)
{
    if (nargs >= min && nargs <= max)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s expected %s %zd argument%s, got %zd", name,
                 nargs < min ? "at least" : "at most", nargs < min ? min : max,
                 (nargs < min ? min : max) == 1 ? "" : "s", nargs);
    return -1;
}

PyDoc_STRVAR(get_doc, "get($self, key, default=None, /)\n--\n\n"
                      "Return the value of key, or default when there is none. O(1).\n\n"
                      ">>> heap.root.get('absent', 0)\n0");
static PyObject *dict_get(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    int found;
    if (check_nargs("get", nargs, 1, 2) < 0)
        return NULL;
    PyObject *value = dhp_dict_lookup((dhp_proxy *)obj, args[0], &found);
    return found ? value : Py_NewRef(nargs == 2 ? args[1] : Py_None);
}

PyDoc_STRVAR(pop_doc, "pop($self, key, default=<unrepresentable>, /)\n--\n\n"
                      "Remove key and return its value. O(1).\n\n"
                      "Absent: default, or KeyError without one. A container that comes back stays "
                      "usable while Python\n"
                      "holds it.\n\n"
                      ">>> stock = heap.dict({'m4': 40})\n"
                      ">>> stock.pop('m4'), stock.pop('m5', 0)\n"
                      "(40, 0)");
static PyObject *dict_pop(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *value = NULL;
    if (check_nargs("pop", nargs, 1, 2) < 0)
        return NULL;
    int rc = dhp_dict_remove((dhp_proxy *)obj, args[0], &value);
    if (rc == 1 && nargs == 2)
        return Py_NewRef(args[1]);
    if (rc == 1)
        dhp_raise_key(args[0]);
    return value;
}

/* The key is absent: store value and return what a read would give. */
static PyObject *dict_add_default(dhp_proxy *self, PyObject *key_obj, PyObject *value_obj)
{
    dh_word value;
    dhp_key key;
    int ready = dhp_key_init(self->core, key_obj, &key);
    if (ready != DHP_KEY_READY) {
        if (ready == DHP_KEY_NONE)
            refuse_key(self, key_obj);
        return NULL;
    }
    PyObject *result = NULL;
    uint64_t count_before = 0;
    if (dhp_word_for_store(self) != 0 && dhp_word_from(self->core, value_obj, &value) == 0) {
        /* Before the store: a copied-in container must be a root by then. */
        count_before = self->core->placeholders_count;
        result = dh_is_container(value) ? dhp_raw_from(self->core, value) : Py_NewRef(value_obj);
        if (result != NULL && dict_set_word(self, &key, key_obj, value) < 0)
            Py_CLEAR(result);
    }
    dhp_key_finish(&key);
    if (result != NULL && result != value_obj)
        result = dhp_resolve(self->core, count_before, result);
    if (result != NULL && PyTuple_CheckExact(result)) { /* containers in it were copied in */
        int found;
        dhp_replace(&result, dhp_dict_lookup(self, key_obj, &found));
        if (result == NULL && !PyErr_Occurred())
            dhp_raise_key(key_obj); /* Python's collector ran and took it out again */
    }
    return result;
}

PyDoc_STRVAR(
    setdefault_doc,
    "setdefault($self, key, default=None, /)\n--\n\n"
    "Return the value of key; when there is none, store default first. O(1).\n\n"
    "A plain container given as default is copied in, and the heap's container is returned:\n\n"
    ">>> heap.root.setdefault('log', []).append('started')");
static PyObject *dict_setdefault(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    int found;
    if (check_nargs("setdefault", nargs, 1, 2) < 0)
        return NULL;
    PyObject *value = dhp_dict_lookup(self, args[0], &found);
    return found ? value : dict_add_default(self, args[0], nargs == 2 ? args[1] : Py_None);
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove everything. O(len).\n\n"
                        ">>> stock = heap.dict({'m4': 40})\n"
                        ">>> stock.clear()\n"
                        ">>> len(stock)\n"
                        "0");
static PyObject *dict_clear(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word dict = dhp_word_for_store(self);
    (void)ignored;
    if (dict == 0)
        return NULL;
    int rc = dh_dict_clear(self->core->heap, dict);
    if (rc != 0) {
        dhp_raise(self->core, rc);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    copy_doc,
    "copy($self, /)\n--\n\n"
    "Return a plain dict with the same entries; containers in it are the heap's own. O(len).");
static PyObject *dict_copy_method(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_dict_copy((dhp_proxy *)self);
}

PyDoc_STRVAR(keys_doc, "keys($self, /)\n--\n\nA set-like view of the keys.\n\n"
                       ">>> heap.dict({'m4': 40, 'm5': 3}).keys() & {'m5', 'm6'}\n"
                       "{'m5'}");
static PyObject *dict_keys(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_dict_view_new((dhp_proxy *)self, DHP_KEYS);
}

PyDoc_STRVAR(values_doc, "values($self, /)\n--\n\nA view of the values.\n\n"
                         ">>> sum(heap.dict({'m4': 40, 'm5': 3}).values())\n"
                         "43");
static PyObject *dict_values(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_dict_view_new((dhp_proxy *)self, DHP_VALUES);
}

PyDoc_STRVAR(items_doc, "items($self, /)\n--\n\nA set-like view of the (key, value) pairs.\n\n"
                        ">>> list(heap.dict({'m4': 40}).items())\n"
                        "[('m4', 40)]");
static PyObject *dict_items(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_dict_view_new((dhp_proxy *)self, DHP_ITEMS);
}

static PyObject *dict_iter(PyObject *self)
{
    return dhp_dict_iter_new((dhp_proxy *)self, DHP_KEYS, 0);
}

PyDoc_STRVAR(reversed_doc, "__reversed__($self, /)\n--\n\nThe keys, newest first.\n\n"
                           ">>> list(reversed(heap.dict({'a': 1, 'b': 2})))\n"
                           "['b', 'a']");
static PyObject *dict_reversed(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_dict_iter_new((dhp_proxy *)self, DHP_KEYS, 1);
}

/* --- whole dicts ------------------------------------------------------------------------------ */

static PyObject *dict_repr(PyObject *self)
{
    int entered = Py_ReprEnter(self);
    if (entered != 0)
        return entered > 0 ? PyUnicode_FromString("{...}") : NULL;
    PyObject *copy = dhp_dict_copy_raw((dhp_proxy *)self); /* values that cannot be read, too */
    PyObject *text = copy ? PyObject_Repr(copy) : NULL;
    Py_XDECREF(copy);
    Py_ReprLeave(self);
    return text;
}

/* dict(obj) for a plain dict or one of ours; a new reference to NotImplemented for others. */
static PyObject *plain_dict_of(PyTypeObject *dict_type, PyObject *obj)
{
    if (Py_TYPE(obj) == dict_type)
        return dhp_dict_copy((dhp_proxy *)obj);
    if (PyDict_Check(obj))
        return PyDict_Copy(obj);
    return Py_NewRef(Py_NotImplemented);
}

/* At least one of the operands is a Dict, and knows its type. */
static PyTypeObject *dict_type_of(PyObject *left, PyObject *right)
{
    void *dealloc = PyType_GetSlot(Py_TYPE(left), Py_tp_dealloc);
    PyObject *mine = dealloc == (void *)dhp_proxy_dealloc ? left : right;
    return ((dhp_proxy *)mine)->core->state->dict_type;
}

static PyObject *dict_or(PyObject *left, PyObject *right)
{
    PyTypeObject *type = dict_type_of(left, right);
    PyObject *merged = plain_dict_of(type, left);
    if (merged == NULL || merged == Py_NotImplemented)
        return merged;
    PyObject *more = plain_dict_of(type, right);
    if (more == NULL || more == Py_NotImplemented || PyDict_Update(merged, more) < 0)
        Py_CLEAR(merged);
    if (more == Py_NotImplemented)
        return more;
    Py_XDECREF(more);
    return merged;
}

static PyObject *dict_inplace_or(PyObject *self, PyObject *other)
{
    if (dhp_dict_update((dhp_proxy *)self, other, NULL) < 0)
        return NULL;
    return Py_NewRef(self);
}

PyDoc_STRVAR(class_getitem_doc, "__class_getitem__($cls, item, /)\n--\n\n"
                                "Dict[str, int] in annotations; no effect at run time.");

static PyMethodDef dict_methods[] = {
    {"get", (PyCFunction)(void (*)(void))dict_get, METH_FASTCALL, get_doc},
    {"pop", (PyCFunction)(void (*)(void))dict_pop, METH_FASTCALL, pop_doc},
    {"popitem", dhp_dict_popitem, METH_NOARGS, dhp_dict_popitem_doc},
    {"setdefault", (PyCFunction)(void (*)(void))dict_setdefault, METH_FASTCALL, setdefault_doc},
    {"update", (PyCFunction)(void (*)(void))dhp_dict_update_method, METH_VARARGS | METH_KEYWORDS,
     dhp_dict_update_doc},
    {"clear", dict_clear, METH_NOARGS, clear_doc},
    {"copy", dict_copy_method, METH_NOARGS, copy_doc},
    {"keys", dict_keys, METH_NOARGS, keys_doc},
    {"values", dict_values, METH_NOARGS, values_doc},
    {"items", dict_items, METH_NOARGS, items_doc},
    {"__reversed__", dict_reversed, METH_NOARGS, reversed_doc},
    {"__copy__", dict_copy_method, METH_NOARGS, "A plain shallow copy."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    dict_doc,
    "A dict that lives in a heap: insertion-ordered, with all methods of dict.\n\n"
    "Made with heap.dict(). Keys: every immutable value that a heap can hold. Plain\n"
    "containers stored in it are copied in, the heap's own are linked. copy() and | give plain "
    "dicts.\n"
    "Equal to any mapping with equal entries.");

static PyType_Slot dict_slots[] = {
    {Py_tp_doc, (void *)dict_doc},
    {Py_tp_dealloc, dhp_proxy_dealloc},
    {Py_tp_methods, dict_methods},
    {Py_tp_repr, dict_repr},
    {Py_tp_richcompare, dhp_dict_richcompare},
    {Py_tp_iter, dict_iter},
    {Py_mp_length, dhp_dict_length},
    {Py_mp_subscript, dict_subscript},
    {Py_mp_ass_subscript, dict_ass_subscript},
    {Py_sq_contains, dhp_dict_contains},
    {Py_nb_or, dict_or},
    {Py_nb_inplace_or, dict_inplace_or},
    {0, NULL},
};

PyType_Spec dhp_dict_spec = {"dirtyheap.Dict", sizeof(dhp_proxy), 0, Py_TPFLAGS_DEFAULT,
                             dict_slots};
