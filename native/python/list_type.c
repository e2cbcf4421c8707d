/* list_type.c -- List: the sequence protocol over a list of the heap, and its iterator.
 *
 * Every operation goes: convert what goes in (may run Python code where it is an iterable or an
 * index object), ask for the list's word, look at its length, one call of the core.
 */
#include "state.h"

Py_ssize_t dhp_list_length(PyObject *obj)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    uint64_t length;
    dh_word list = dhp_word(self);
    if (list == 0)
        return -1;
    int rc = dh_list_length(self->core->heap, list, &length);
    return rc == 0 ? (Py_ssize_t)length : dhp_raise(self->core, rc);
}

PyObject *dhp_list_item(PyObject *obj, Py_ssize_t index)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word item, list = dhp_word(self);
    if (list == 0)
        return NULL;
    int rc = index < 0 ? DH_E_ABSENT : dh_list_get(self->core->heap, list, (uint64_t)index, &item);
    if (DH_LIKELY(rc == 0))
        return dhp_object_from(self->core, item);
    if (rc == DH_E_ABSENT)
        PyErr_SetString(PyExc_IndexError, "list index out of range");
    else
        dhp_raise(self->core, rc);
    return NULL;
}

/* With Python's collector paused. */
static int fill_copy(dhp_proxy *self, dh_word list, PyObject *copy, uint64_t length)
{
    uint64_t i = 0, span;
    while (i < length) {
        const dh_word *words = dh_list_span(self->core->heap, list, i, &span);
        if (words == NULL || span == 0)
            return dhp_raise(self->core, DH_E_CORRUPT);
        for (uint64_t end = span < length - i ? i + span : length; i < end; i++) {
            PyObject *item = dhp_raw_from(self->core, dh_load(words++));
            if (item == NULL || PyList_SetItem(copy, (Py_ssize_t)i, item) < 0)
                return -1;
        }
    }
    return 0;
}

PyObject *dhp_list_copy_raw(dhp_proxy *self)
{
    int was_enabled = dhp_gc_pause();
    Py_ssize_t length = dhp_list_length((PyObject *)self);
    PyObject *copy = length >= 0 ? PyList_New(length) : NULL;
    if (copy != NULL && fill_copy(self, self->handle.word, copy, (uint64_t)length) < 0)
        Py_CLEAR(copy);
    dhp_gc_resume(was_enabled);
    return copy;
}

PyObject *dhp_list_copy(dhp_proxy *self)
{
    dhp_core *core = self->core;
    uint64_t count_before = core->placeholders_count;
    return dhp_resolve_inside(core, count_before, dhp_list_copy_raw(self));
}

/* --- methods ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(append_doc, "append($self, value, /)\n--\n\n"
                         "Add a value at the end. O(1); writes at most three pages.\n\n"
                         ">>> heap.root['log'].append({'level': 'info'})");
static PyObject *list_append(PyObject *obj, PyObject *value)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word word, list;
    if (dhp_word_for_store(self) == 0 || dhp_word_from(self->core, value, &word) < 0 ||
        (list = dhp_word_for_store(self)) == 0)
        return NULL;
    int rc = dh_list_append(self->core->heap, list, word);
    if (DH_LIKELY(rc == 0))
        Py_RETURN_NONE;
    dh_value_drop(self->core->heap, word);
    dhp_raise(self->core, rc);
    return NULL;
}

PyDoc_STRVAR(
    extend_doc,
    "extend($self, iterable, /)\n--\n\n"
    "Add all values of an iterable at the end. O(values).\n\n"
    "All or nothing: the iterable is read to its end first, and when one of its values cannot be\n"
    "stored, or the capacity is reached, the list stays as it was.\n\n"
    ">>> numbers = heap.list([1])\n"
    ">>> numbers.extend(range(2, 5))\n"
    ">>> numbers\n"
    "[1, 2, 3, 4]");
static PyObject *list_extend_method(PyObject *self, PyObject *iterable)
{
    if (dhp_list_extend((dhp_proxy *)self, iterable) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(insert_doc, "insert($self, index, value, /)\n--\n\n"
                         "Put a value before index. O(log len); writes a handful of pages.\n\n"
                         ">>> numbers = heap.list([1, 3])\n"
                         ">>> numbers.insert(1, 2)\n"
                         ">>> numbers\n"
                         "[1, 2, 3]");
static PyObject *list_insert(PyObject *obj, PyObject *args)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    Py_ssize_t index;
    PyObject *value;
    dh_word word;
    if (!PyArg_ParseTuple(args, "nO:insert", &index, &value) || dhp_word_for_store(self) == 0 ||
        dhp_word_from(self->core, value, &word) < 0)
        return NULL;
    Py_ssize_t length = dhp_list_length(obj);
    if (length < 0)
        return NULL;
    if (index < 0)
        index = index + length < 0 ? 0 : index + length;
    if (dhp_list_splice(self, index > length ? length : index, 0, &word, 1) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The place to pop from, counted from the start; -1 with an exception. */
static Py_ssize_t pop_place(dhp_proxy *self, Py_ssize_t index, const char *empty_text)
{
    Py_ssize_t length = dhp_list_length((PyObject *)self);
    if (length < 0 || dhp_word_for_store(self) == 0)
        return -1;
    if (length == 0) {
        PyErr_SetString(PyExc_IndexError, empty_text);
        return -1;
    }
    if (index < 0)
        index += length;
    if (index < 0 || index >= length) {
        PyErr_SetString(PyExc_IndexError, "pop index out of range");
        return -1;
    }
    return index;
}

/* With Python's collector paused: the word to pop and its place. */
static Py_ssize_t pop_look(dhp_proxy *self, Py_ssize_t index, const char *empty_text,
                           dh_word *word_out)
{
    Py_ssize_t place = pop_place(self, index, empty_text);
    int rc = 0;
    if (place >= 0)
        rc = dh_list_get(self->core->heap, self->handle.word, (uint64_t)place, word_out);
    return rc != 0 ? dhp_raise(self->core, rc) : place;
}

/* The value first, then out with it: one that cannot be unpacked stays. Unpacking runs Python code,
 * so look again afterwards. 1: done, 0: something else stands there now, -1. */
static int pop_once(dhp_proxy *self, Py_ssize_t index, const char *empty_text, PyObject **item_out)
{
    uint64_t count_before = self->core->placeholders_count;
    dh_word word, now;
    PyObject *item = NULL;
    int done = -1, was_enabled = dhp_gc_pause();
    Py_ssize_t place = pop_look(self, index, empty_text, &word);
    PyObject *raw = place >= 0 ? dhp_raw_from(self->core, word) : NULL;
    if (raw != NULL && self->core->placeholders_count != count_before) {
        dhp_gc_resume(was_enabled);
        item = dhp_resolve(self->core, count_before, Py_NewRef(raw));
        was_enabled = dhp_gc_pause();
        place = item != NULL ? pop_look(self, index, empty_text, &now) : -1;
        if (place >= 0 && (now != word || !dhp_is_still(self->core, now, raw)))
            done = 0;
    } else if (raw != NULL) {
        item = Py_NewRef(raw);
    }
    if (item != NULL && place >= 0 && done < 0 && dhp_list_splice(self, place, 1, NULL, 0) == 0)
        done = 1;
    dhp_gc_resume(was_enabled);
    Py_XDECREF(raw);
    if (done == 1)
        *item_out = item;
    else
        Py_XDECREF(item);
    return done;
}

#define POPS_MAX 16

PyObject *dhp_list_pop(dhp_proxy *self, Py_ssize_t index, const char *empty_text)
{
    PyObject *item = NULL;
    int done = 0;
    for (int i = 0; done == 0 && i < POPS_MAX; i++)
        done = pop_once(self, index, empty_text, &item);
    if (done == 0)
        PyErr_SetString(PyExc_RuntimeError,
                        "the list changed each time a value was unpacked to be popped");
    return item;
}

PyDoc_STRVAR(pop_doc,
             "pop($self, index=-1, /)\n--\n\n"
             "Remove and return the value at index. O(log len); writes a handful of pages.\n\n"
             "Raises IndexError when the list is empty or index is out of range.\n\n"
             ">>> numbers = heap.list([1, 2, 3])\n"
             ">>> numbers.pop(), numbers.pop(0)\n"
             "(3, 1)");
static PyObject *list_pop(PyObject *obj, PyObject *args)
{
    Py_ssize_t index = -1;
    if (!PyArg_ParseTuple(args, "|n:pop", &index))
        return NULL;
    return dhp_list_pop((dhp_proxy *)obj, index, "pop from empty list");
}

static PyObject *list_done(dhp_proxy *self, int rc)
{
    if (rc == 0)
        Py_RETURN_NONE;
    dhp_raise(self->core, rc);
    return NULL;
}

PyDoc_STRVAR(reverse_doc, "reverse($self, /)\n--\n\nReverse in place. O(len).\n\n"
                          ">>> numbers = heap.list([1, 2, 3])\n"
                          ">>> numbers.reverse()\n"
                          ">>> numbers\n"
                          "[3, 2, 1]");
static PyObject *list_reverse(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word list = dhp_word_for_store(self);
    (void)ignored;
    return list != 0 ? list_done(self, dh_list_reverse(self->core->heap, list)) : NULL;
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove everything. O(len).\n\n"
                        ">>> numbers = heap.list([1, 2])\n"
                        ">>> numbers.clear()\n"
                        ">>> numbers\n"
                        "[]");
static PyObject *list_clear(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word list = dhp_word_for_store(self);
    (void)ignored;
    return list != 0 ? list_done(self, dh_list_clear(self->core->heap, list)) : NULL;
}

PyDoc_STRVAR(
    copy_doc,
    "copy($self, /)\n--\n\n"
    "Return a plain list with the same values; containers in it are the heap's own. O(len).");
static PyObject *list_copy_method(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_list_copy((dhp_proxy *)self);
}

static PyObject *list_repr(PyObject *self)
{
    int entered = Py_ReprEnter(self);
    if (entered != 0)
        return entered > 0 ? PyUnicode_FromString("[...]") : NULL;
    PyObject *copy = dhp_list_copy_raw((dhp_proxy *)self); /* values that cannot be read, too */
    PyObject *text = copy ? PyObject_Repr(copy) : NULL;
    Py_XDECREF(copy);
    Py_ReprLeave(self);
    return text;
}

static PyObject *list_iter_slot(PyObject *self) { return dhp_list_iter_new((dhp_proxy *)self, 0); }

PyDoc_STRVAR(reversed_doc, "__reversed__($self, /)\n--\n\nThe values, last first.\n\n"
                           ">>> list(reversed(heap.list([1, 2])))\n"
                           "[2, 1]");
static PyObject *list_reversed(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_list_iter_new((dhp_proxy *)self, 1);
}

static PyObject *list_inplace_concat(PyObject *self, PyObject *iterable)
{
    if (dhp_list_extend((dhp_proxy *)self, iterable) < 0)
        return NULL;
    return Py_NewRef(self);
}

PyDoc_STRVAR(class_getitem_doc, "__class_getitem__($cls, item, /)\n--\n\n"
                                "List[int] in annotations; no effect at run time.");

static PyMethodDef list_methods[] = {
    {"append", list_append, METH_O, append_doc},
    {"extend", list_extend_method, METH_O, extend_doc},
    {"insert", list_insert, METH_VARARGS, insert_doc},
    {"pop", list_pop, METH_VARARGS, pop_doc},
    {"remove", dhp_list_remove, METH_O, dhp_list_remove_doc},
    {"reverse", list_reverse, METH_NOARGS, reverse_doc},
    {"index", (PyCFunction)(void (*)(void))dhp_list_index, METH_FASTCALL, dhp_list_index_doc},
    {"count", dhp_list_count, METH_O, dhp_list_count_doc},
    {"clear", list_clear, METH_NOARGS, clear_doc},
    {"copy", list_copy_method, METH_NOARGS, copy_doc},
    {"sort", (PyCFunction)(void (*)(void))dhp_list_sort, METH_VARARGS | METH_KEYWORDS,
     dhp_list_sort_doc},
    {"__reversed__", list_reversed, METH_NOARGS, reversed_doc},
    {"__copy__", list_copy_method, METH_NOARGS, "A plain shallow copy."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(list_doc,
             "A list that lives in a heap, with all methods of list.\n\n"
             "Made with heap.list(). Plain containers stored in it are copied in, the heap's own "
             "are linked.\n"
             "Slices, copy(), + and * give plain lists. Compares with lists and with other Lists.");

static PyType_Slot list_slots[] = {
    {Py_tp_doc, (void *)list_doc},
    {Py_tp_dealloc, dhp_proxy_dealloc},
    {Py_tp_methods, list_methods},
    {Py_tp_repr, list_repr},
    {Py_tp_richcompare, dhp_list_richcompare},
    {Py_tp_iter, list_iter_slot},
    {Py_mp_length, dhp_list_length},
    {Py_mp_subscript, dhp_list_subscript},
    {Py_mp_ass_subscript, dhp_list_ass_subscript},
    {Py_sq_length, dhp_list_length},
    {Py_sq_item, dhp_list_item},
    {Py_sq_contains, dhp_list_contains},
    {Py_sq_repeat, dhp_list_repeat},
    {Py_sq_inplace_repeat, dhp_list_inplace_repeat},
    /* Not nb_add: `plain += ours` would then rebind the name plain instead of extending the list. */
    {Py_sq_concat, dhp_list_concat},
    {Py_sq_inplace_concat, list_inplace_concat},
    {Py_nb_inplace_add, list_inplace_concat},
    {0, NULL},
};

PyType_Spec dhp_list_spec = {"dirtyheap.List", sizeof(dhp_proxy), 0, Py_TPFLAGS_DEFAULT,
                             list_slots};

/* --- iterator --------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD dhp_proxy *list; /* owned; NULL: exhausted */
    Py_ssize_t index;
    dh_list_run run; /* around index, or around what came before */
    int is_reversed;
} list_iter;

PyObject *dhp_list_iter_new(dhp_proxy *list, int is_reversed)
{
    Py_ssize_t length = dhp_list_length((PyObject *)list);
    if (length < 0)
        return NULL;
    list_iter *self = PyObject_New(list_iter, list->core->state->list_iter_type);
    if (self == NULL)
        return NULL;
    self->list = (dhp_proxy *)Py_NewRef((PyObject *)list);
    self->index = is_reversed ? length - 1 : 0;
    self->run = (dh_list_run){.count = 0};
    self->is_reversed = is_reversed;
    return (PyObject *)self;
}

static void iter_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    Py_XDECREF((PyObject *)((list_iter *)obj)->list);
    PyObject_Free(obj);
    Py_DECREF(type);
}

/* The list is there: whatever else happened since the last step, dh_list_run_slot tells. */
static inline int iter_find(list_iter *self, dh_word list, const dh_word **slot_out)
{
    const dh_heap *heap = self->list->core->heap;
    uint64_t index = (uint64_t)self->index; /* -1: behind every length */
    *slot_out = dh_list_run_slot(heap, &self->run, index);
    if (DH_LIKELY(*slot_out != NULL))
        return 0;
    int rc = dh_list_run_at(heap, list, index, &self->run);
    if (rc == 0)
        *slot_out = self->run.words + (index - self->run.first);
    return rc;
}

static PyObject *iter_next(PyObject *obj)
{
    list_iter *self = (list_iter *)obj;
    dhp_proxy *list = self->list;
    const dh_word *slot;
    dh_word word;
    if (list == NULL || (word = dhp_word(list)) == 0)
        return NULL;
    int rc = iter_find(self, word, &slot);
    if (DH_LIKELY(rc == 0)) {
        self->index += self->is_reversed ? -1 : 1;
        return dhp_object_from(list->core, dh_load(slot));
    }
    if (rc == DH_E_ABSENT)
        Py_CLEAR(self->list);
    else
        dhp_raise(list->core, rc);
    return NULL;
}

static PyObject *iter_length_hint(PyObject *obj, PyObject *ignored)
{
    list_iter *self = (list_iter *)obj;
    Py_ssize_t left = 0;
    (void)ignored;
    if (self->list != NULL) {
        Py_ssize_t length = dhp_list_length((PyObject *)self->list);
        if (length < 0)
            return NULL;
        left = self->is_reversed ? self->index + 1 : length - self->index;
        left = left < 0 || left > length ? 0 : left;
    }
    return PyLong_FromSsize_t(left);
}

static PyMethodDef iter_methods[] = {
    {"__length_hint__", iter_length_hint, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot iter_slots[] = {
    {Py_tp_new, dhp_proxy_refuse_new}, {Py_tp_dealloc, iter_dealloc},
    {Py_tp_iter, PyObject_SelfIter},   {Py_tp_iternext, iter_next},
    {Py_tp_methods, iter_methods},     {0, NULL},
};

PyType_Spec dhp_list_iter_spec = {"dirtyheap._native.ListIterator", sizeof(list_iter), 0,
                                  Py_TPFLAGS_DEFAULT, iter_slots};
