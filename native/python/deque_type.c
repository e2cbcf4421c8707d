/* deque_type.c -- Deque: the methods of collections.deque over a deque of the heap.
 *
 * Every operation goes: convert what goes in (may run Python code where it is an iterable or an index
 * object), ask for the deque's word, look at its state, one call of the core. Searching, comparing
 * and iterating: deque_search.c.
 */
#include "state.h"

#include <stdlib.h>

int dhp_deque_read(dhp_proxy *self, dh_deque_state *state_out)
{
    dh_word deque = dhp_word(self);
    if (deque == 0)
        return -1;
    int rc = dh_deque_read(self->core->heap, deque, state_out);
    return rc == 0 ? 0 : dhp_raise(self->core, rc);
}

static PyObject *maxlen_object(const dh_deque_state *state)
{
    return state->maxlen == DH_DEQUE_UNBOUNDED ? Py_NewRef(Py_None)
                                               : PyLong_FromUnsignedLongLong(state->maxlen);
}

/* --- making ----------------------------------------------------------------------------------- */

/* A plain one is made and copied in: it reads the iterable and judges maxlen as ever, and the copy is
 * all or nothing. */
PyObject *dhp_deque_new(dhp_core *core, PyObject *initial, PyObject *maxlen)
{
    dh_word word;
    if (dhp_check_writable(core) < 0)
        return NULL;
    PyObject *type = (PyObject *)core->state->plain_deque_type;
    PyObject *plain = initial == Py_None
                          ? PyObject_CallFunction(type, "()O", maxlen)
                          : PyObject_CallFunctionObjArgs(type, initial, maxlen, NULL);
    PyObject *made = NULL;
    if (plain != NULL && dhp_check_writable(core) == 0 && dhp_word_from(core, plain, &word) == 0)
        made = dhp_proxy_get(core, word);
    Py_XDECREF(plain);
    return made;
}

/* A collections.deque with these elements; steals the list (or NULL). */
static PyObject *plain_deque(dhp_state *state, PyObject *elements, PyObject *maxlen)
{
    PyObject *made = elements != NULL && maxlen != NULL
                         ? PyObject_CallFunctionObjArgs((PyObject *)state->plain_deque_type,
                                                        elements, maxlen, NULL)
                         : NULL;
    Py_XDECREF(elements);
    return made;
}

PyObject *dhp_deque_copy(dhp_proxy *self)
{
    dh_deque_state state;
    if (dhp_deque_read(self, &state) < 0)
        return NULL;
    PyObject *maxlen = maxlen_object(&state);
    PyObject *copy = plain_deque(self->core->state, dhp_list_copy(self), maxlen);
    Py_XDECREF(maxlen);
    return copy;
}

/* --- the ends --------------------------------------------------------------------------------- */

static void reverse_words(dh_word *words, size_t count)
{
    for (size_t i = 0, j = count; i + 1 < j; i++) {
        dh_word kept = words[i];
        words[i] = words[--j];
        words[j] = kept;
    }
}

/* Takes the words over. */
static int put_words(dhp_proxy *self, const dh_word *words, size_t count, int is_left)
{
    dh_word deque = dhp_word_for_store(self);
    if (deque == 0) /* Python code ran: the new words are left to the collector */
        return -1;
    int rc = is_left ? dh_deque_extend_left(self->core->heap, deque, words, count)
                     : dh_deque_extend(self->core->heap, deque, words, count);
    if (DH_LIKELY(rc == 0))
        return 0;
    dhp_words_drop(self->core, words, count);
    return dhp_raise(self->core, rc);
}

int dhp_deque_extend(dhp_proxy *self, PyObject *iterable, int is_left)
{
    dh_word *words;
    size_t count;
    PyObject *keep;
    if (dhp_word_for_store(self) == 0 ||
        dhp_list_words(self->core, iterable, &words, &count, &keep) < 0)
        return -1;
    if (is_left)
        reverse_words(words, count);
    int rc = put_words(self, words, count, is_left);
    Py_XDECREF(keep);
    free(words);
    return rc;
}

static PyObject *deque_put(PyObject *obj, PyObject *value, int is_left)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word word;
    if (dhp_word_for_store(self) == 0 || dhp_word_from(self->core, value, &word) < 0 ||
        put_words(self, &word, 1, is_left) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(append_doc, "append($self, value, /)\n--\n\n"
                         "Add a value at the right end. O(1); writes at most five pages.\n\n"
                         "A full deque loses its leftmost value.\n\n"
                         ">>> heap.root['jobs'] = heap.deque(maxlen=1000)\n"
                         ">>> heap.root['jobs'].append({'id': 1})");
static PyObject *deque_append(PyObject *self, PyObject *value) { return deque_put(self, value, 0); }

PyDoc_STRVAR(appendleft_doc, "appendleft($self, value, /)\n--\n\n"
                             "Add a value at the left end. O(1); writes at most five pages.\n\n"
                             "A full deque loses its rightmost value.\n\n"
                             ">>> queue = heap.deque([2])\n"
                             ">>> queue.appendleft(1)\n"
                             ">>> queue\n"
                             "deque([1, 2])");
static PyObject *deque_appendleft(PyObject *self, PyObject *value)
{
    return deque_put(self, value, 1);
}

PyDoc_STRVAR(extend_doc, "extend($self, iterable, /)\n--\n\n"
                         "Add all values of an iterable at the right end. O(values).\n\n"
                         "All or nothing: the iterable is read to its end first.\n\n"
                         ">>> queue = heap.deque([1])\n"
                         ">>> queue.extend([2, 3])\n"
                         ">>> queue\n"
                         "deque([1, 2, 3])");
static PyObject *deque_extend(PyObject *self, PyObject *iterable)
{
    if (dhp_deque_extend((dhp_proxy *)self, iterable, 0) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(extendleft_doc,
             "extendleft($self, iterable, /)\n--\n\n"
             "Add all values of an iterable at the left end, the last one leftmost. O(values).\n\n"
             "All or nothing: the iterable is read to its end first.\n\n"
             ">>> queue = heap.deque([1])\n"
             ">>> queue.extendleft([2, 3])\n"
             ">>> queue\n"
             "deque([3, 2, 1])");
static PyObject *deque_extendleft(PyObject *self, PyObject *iterable)
{
    if (dhp_deque_extend((dhp_proxy *)self, iterable, 1) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(pop_doc, "pop($self, /)\n--\n\n"
                      "Remove and return the rightmost value. O(1).\n\n"
                      "Raises IndexError when the deque is empty.\n\n"
                      ">>> heap.deque([1, 2]).pop()\n"
                      "2");
static PyObject *deque_pop(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_list_pop((dhp_proxy *)self, -1, "pop from an empty deque");
}

PyDoc_STRVAR(popleft_doc, "popleft($self, /)\n--\n\n"
                          "Remove and return the leftmost value. O(1).\n\n"
                          "Raises IndexError when the deque is empty.\n\n"
                          ">>> heap.deque([1, 2]).popleft()\n"
                          "1");
static PyObject *deque_popleft(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_list_pop((dhp_proxy *)self, 0, "pop from an empty deque");
}

/* --- in the middle ---------------------------------------------------------------------------- */

PyDoc_STRVAR(insert_doc, "insert($self, index, value, /)\n--\n\n"
                         "Put a value before index. O(log len).\n\n"
                         "Raises IndexError when the deque is full.\n\n"
                         ">>> queue = heap.deque([1, 3])\n"
                         ">>> queue.insert(1, 2)\n"
                         ">>> queue\n"
                         "deque([1, 2, 3])");
static PyObject *deque_insert(PyObject *obj, PyObject *args)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_deque_state state;
    Py_ssize_t index;
    PyObject *value;
    dh_word word;
    if (!PyArg_ParseTuple(args, "nO:insert", &index, &value) || dhp_word_for_store(self) == 0 ||
        dhp_word_from(self->core, value, &word) < 0 || dhp_deque_read(self, &state) < 0)
        return NULL;
    if (state.length >= state.maxlen) {
        dhp_words_drop(self->core, &word, 1);
        PyErr_SetString(PyExc_IndexError, "deque already at its maximum size");
        return NULL;
    }
    Py_ssize_t length = (Py_ssize_t)state.length;
    if (index < 0)
        index = index + length < 0 ? 0 : index + length;
    if (dhp_list_splice(self, index > length ? length : index, 0, &word, 1) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(rotate_doc, "rotate($self, n=1, /)\n--\n\n"
                         "Move n values from the right end to the left; negative: the other way "
                         "round.\n\n"
                         "O(min(n, len - n)).\n\n"
                         ">>> queue = heap.deque([1, 2, 3])\n"
                         ">>> queue.rotate()\n"
                         ">>> queue\n"
                         "deque([3, 1, 2])");
static PyObject *deque_rotate(PyObject *obj, PyObject *args)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    Py_ssize_t steps = 1;
    if (!PyArg_ParseTuple(args, "|n:rotate", &steps))
        return NULL;
    dh_word deque = dhp_word_for_store(self);
    if (deque == 0)
        return NULL;
    int rc = dh_deque_rotate(self->core->heap, deque, steps);
    if (rc == 0)
        Py_RETURN_NONE;
    dhp_raise(self->core, rc);
    return NULL;
}

static PyObject *deque_done(dhp_proxy *self, int rc)
{
    if (rc == 0)
        Py_RETURN_NONE;
    dhp_raise(self->core, rc);
    return NULL;
}

PyDoc_STRVAR(reverse_doc, "reverse($self, /)\n--\n\nReverse in place. O(len).\n\n"
                          ">>> queue = heap.deque([1, 2])\n"
                          ">>> queue.reverse()\n"
                          ">>> queue\n"
                          "deque([2, 1])");
static PyObject *deque_reverse(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word deque = dhp_word_for_store(self);
    (void)ignored;
    return deque != 0 ? deque_done(self, dh_list_reverse(self->core->heap, deque)) : NULL;
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove everything; maxlen stays. O(len).\n\n"
                        ">>> queue = heap.deque([1], maxlen=5)\n"
                        ">>> queue.clear()\n"
                        ">>> queue\n"
                        "deque([], maxlen=5)");
static PyObject *deque_clear(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word deque = dhp_word_for_store(self);
    (void)ignored;
    return deque != 0 ? deque_done(self, dh_list_clear(self->core->heap, deque)) : NULL;
}

/* --- items ------------------------------------------------------------------------------------ */

static int out_of_range(void)
{
    PyErr_SetString(PyExc_IndexError, "deque index out of range");
    return -1;
}

PyObject *dhp_deque_item(PyObject *obj, Py_ssize_t index)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word item, deque = dhp_word(self);
    if (deque == 0)
        return NULL;
    int rc = index < 0 ? DH_E_ABSENT : dh_list_get(self->core->heap, deque, (uint64_t)index, &item);
    if (DH_LIKELY(rc == 0))
        return dhp_object_from(self->core, item);
    if (rc == DH_E_ABSENT)
        out_of_range();
    else
        dhp_raise(self->core, rc);
    return NULL;
}

static int item_delete(dhp_proxy *self, Py_ssize_t index)
{
    dh_deque_state state;
    if (dhp_word_for_store(self) == 0 || dhp_deque_read(self, &state) < 0)
        return -1;
    if (index < 0 || (uint64_t)index >= state.length)
        return out_of_range();
    return dhp_list_splice(self, index, 1, NULL, 0);
}

static int deque_ass_item(PyObject *obj, Py_ssize_t index, PyObject *value)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word word, deque;
    if (value == NULL)
        return item_delete(self, index);
    if (dhp_word_for_store(self) == 0 || dhp_word_from(self->core, value, &word) < 0 ||
        (deque = dhp_word_for_store(self)) == 0)
        return -1;
    int rc = index < 0 ? DH_E_ABSENT : dh_list_set(self->core->heap, deque, (uint64_t)index, word);
    if (DH_LIKELY(rc == 0))
        return 0;
    dh_value_drop(self->core->heap, word);
    return rc == DH_E_ABSENT ? out_of_range() : dhp_raise(self->core, rc);
}

/* --- + and * ---------------------------------------------------------------------------------- */

static int is_deque(const dhp_state *state, PyObject *obj)
{
    return Py_TYPE(obj) == state->deque_type || PyObject_TypeCheck(obj, state->plain_deque_type);
}

/* A plain one, with the left one's maxlen. */
static PyObject *deque_concat(PyObject *left, PyObject *right)
{
    dhp_proxy *self = (dhp_proxy *)left;
    if (!is_deque(self->core->state, right)) {
        PyObject *name = PyType_GetName(Py_TYPE(right));
        if (name != NULL)
            PyErr_Format(PyExc_TypeError, "can only concatenate deque (not \"%U\") to deque", name);
        Py_XDECREF(name);
        return NULL;
    }
    PyObject *sum = dhp_deque_copy(self);
    PyObject *done = sum != NULL ? PyObject_CallMethod(sum, "extend", "O", right) : NULL;
    if (done == NULL)
        Py_CLEAR(sum);
    Py_XDECREF(done);
    return sum;
}

static PyObject *deque_inplace_concat(PyObject *self, PyObject *iterable)
{
    if (dhp_deque_extend((dhp_proxy *)self, iterable, 0) < 0)
        return NULL;
    return Py_NewRef(self);
}

static PyObject *deque_repeat(PyObject *self, Py_ssize_t times)
{
    PyObject *copy = dhp_deque_copy((dhp_proxy *)self);
    PyObject *result = copy ? PySequence_Repeat(copy, times) : NULL;
    Py_XDECREF(copy);
    return result;
}

static PyObject *deque_inplace_repeat(PyObject *obj, Py_ssize_t times)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_deque_state state;
    if (dhp_deque_read(self, &state) < 0)
        return NULL;
    /* As many repeats as leave their mark: the end of more would be the same. */
    if (state.length > 0 && state.maxlen != DH_DEQUE_UNBOUNDED &&
        (uint64_t)(times > 0 ? times : 0) > state.maxlen / state.length + 1)
        times = (Py_ssize_t)(state.maxlen / state.length + 1);
    PyObject *repeated = dhp_list_inplace_repeat(obj, times);
    if (repeated == NULL || dhp_deque_read(self, &state) < 0 || state.length <= state.maxlen)
        return repeated;
    if (dhp_list_splice(self, 0, (Py_ssize_t)(state.length - state.maxlen), NULL, 0) < 0)
        Py_CLEAR(repeated);
    return repeated;
}

/* --- the rest --------------------------------------------------------------------------------- */

PyDoc_STRVAR(copy_doc, "copy($self, /)\n--\n\n"
                       "Return a collections.deque with the same values and maxlen; containers in "
                       "it are the heap's own. O(len).\n\n"
                       ">>> heap.deque([1, 2]).copy()\n"
                       "deque([1, 2])");
static PyObject *deque_copy_method(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_deque_copy((dhp_proxy *)self);
}

static PyObject *repr_of(dhp_proxy *self)
{
    dh_deque_state state;
    PyObject *elements = dhp_list_copy_raw(self); /* values that cannot be read, too */
    PyObject *text = elements != NULL ? PyObject_Repr(elements) : NULL;
    Py_XDECREF(elements);
    if (text == NULL || dhp_deque_read(self, &state) < 0) { /* a repr may have closed the heap */
        Py_XDECREF(text);
        return NULL;
    }
    PyObject *whole =
        state.maxlen == DH_DEQUE_UNBOUNDED
            ? PyUnicode_FromFormat("deque(%U)", text)
            : PyUnicode_FromFormat("deque(%U, maxlen=%zu)", text, (size_t)state.maxlen);
    Py_DECREF(text);
    return whole;
}

static PyObject *deque_repr(PyObject *self)
{
    int entered = Py_ReprEnter(self);
    if (entered != 0)
        return entered > 0 ? PyUnicode_FromString("[...]") : NULL;
    PyObject *text = repr_of((dhp_proxy *)self);
    Py_ReprLeave(self);
    return text;
}

static PyObject *deque_get_maxlen(PyObject *self, void *closure)
{
    dh_deque_state state;
    (void)closure;
    return dhp_deque_read((dhp_proxy *)self, &state) < 0 ? NULL : maxlen_object(&state);
}

static PyObject *deque_iter_slot(PyObject *self)
{
    return dhp_deque_iter_new((dhp_proxy *)self, 0);
}

PyDoc_STRVAR(reversed_doc, "__reversed__($self, /)\n--\n\nThe values, rightmost first.\n\n"
                           ">>> list(reversed(heap.deque([1, 2])))\n"
                           "[2, 1]");
static PyObject *deque_reversed(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return dhp_deque_iter_new((dhp_proxy *)self, 1);
}

PyDoc_STRVAR(class_getitem_doc, "__class_getitem__($cls, item, /)\n--\n\n"
                                "Deque[int] in annotations; no effect at run time.");

static PyMethodDef deque_methods[] = {
    {"append", deque_append, METH_O, append_doc},
    {"appendleft", deque_appendleft, METH_O, appendleft_doc},
    {"extend", deque_extend, METH_O, extend_doc},
    {"extendleft", deque_extendleft, METH_O, extendleft_doc},
    {"pop", deque_pop, METH_NOARGS, pop_doc},
    {"popleft", deque_popleft, METH_NOARGS, popleft_doc},
    {"insert", deque_insert, METH_VARARGS, insert_doc},
    {"rotate", deque_rotate, METH_VARARGS, rotate_doc},
    {"reverse", deque_reverse, METH_NOARGS, reverse_doc},
    {"clear", deque_clear, METH_NOARGS, clear_doc},
    {"copy", deque_copy_method, METH_NOARGS, copy_doc},
    {"remove", dhp_deque_remove, METH_O, dhp_deque_remove_doc},
    {"index", (PyCFunction)(void (*)(void))dhp_deque_index, METH_FASTCALL, dhp_deque_index_doc},
    {"count", dhp_deque_count, METH_O, dhp_deque_count_doc},
    {"__reversed__", deque_reversed, METH_NOARGS, reversed_doc},
    {"__copy__", deque_copy_method, METH_NOARGS, "A plain shallow copy."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef deque_getset[] = {
    {"maxlen", deque_get_maxlen, NULL, "The length that is never exceeded, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    deque_doc,
    "A deque that lives in a heap, with all methods of collections.deque.\n\n"
    "Made with heap.deque(). Plain containers stored in it are copied in, the heap's own "
    "are linked.\n"
    "copy(), + and * give a collections.deque. Compares with those and with other Deques.");

static PyType_Slot deque_slots[] = {
    {Py_tp_doc, (void *)deque_doc},
    {Py_tp_dealloc, dhp_proxy_dealloc},
    {Py_tp_methods, deque_methods},
    {Py_tp_getset, deque_getset},
    {Py_tp_repr, deque_repr},
    {Py_tp_richcompare, dhp_deque_richcompare},
    {Py_tp_iter, deque_iter_slot},
    {Py_sq_length, dhp_list_length},
    {Py_sq_item, dhp_deque_item},
    {Py_sq_ass_item, deque_ass_item},
    {Py_sq_contains, dhp_deque_contains},
    {Py_sq_concat, deque_concat},
    {Py_sq_repeat, deque_repeat},
    {Py_sq_inplace_concat, deque_inplace_concat},
    {Py_sq_inplace_repeat, deque_inplace_repeat},
    {0, NULL},
};

PyType_Spec dhp_deque_spec = {"dirtyheap.Deque", sizeof(dhp_proxy), 0, Py_TPFLAGS_DEFAULT,
                              deque_slots};
