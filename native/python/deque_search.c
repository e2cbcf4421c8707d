/* deque_search.c -- walking a Deque: iterator, finding values, comparing.
 *
 * As in collections.deque, a walk that meets another number of changes than it began with raises
 * instead of going on. The number stands in the arena: a rollback takes it back along with the
 * elements.
 */
#include "state.h"

enum { NOT_FOUND = -1, FAILED = -2 };

static PyObject *mutated(void)
{
    PyErr_SetString(PyExc_RuntimeError, "deque mutated during iteration");
    return NULL;
}

/* --- iterator --------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD dhp_proxy *deque; /* owned */
    const dh_word *changes_at;      /* in the head, where it stays while the handle is good */
    uint64_t changes;
    dh_list_run run; /* around index, or around what came before */
    Py_ssize_t index;
    Py_ssize_t left;
    int is_reversed;
} deque_iter;

PyObject *dhp_deque_iter_new(dhp_proxy *deque, int is_reversed)
{
    dh_deque_state state;
    if (dhp_deque_read(deque, &state) < 0)
        return NULL;
    deque_iter *self = PyObject_New(deque_iter, deque->core->state->deque_iter_type);
    if (self == NULL)
        return NULL;
    self->deque = (dhp_proxy *)Py_NewRef((PyObject *)deque);
    self->changes_at = state.changes_at;
    self->changes = state.changes;
    self->run = (dh_list_run){.count = 0};
    self->left = (Py_ssize_t)state.length;
    self->index = is_reversed ? self->left - 1 : 0;
    self->is_reversed = is_reversed;
    return (PyObject *)self;
}

static void iter_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    Py_DECREF((PyObject *)((deque_iter *)obj)->deque);
    PyObject_Free(obj);
    Py_DECREF(type);
}

/* The element at index, looked up from the deque's head; NULL with an exception. */
static const dh_word *iter_seek(deque_iter *self)
{
    dh_deque_state state;
    if (dhp_deque_read(self->deque, &state) < 0)
        return NULL;
    if ((uint64_t)self->left > state.length) {
        self->left = 0;
        mutated();
        return NULL;
    }
    uint64_t index = (uint64_t)self->index;
    dhp_core *core = self->deque->core;
    int rc = dh_list_run_at(core->heap, self->deque->handle.word, index, &self->run);
    if (rc == 0)
        return self->run.words + (index - self->run.first);
    dhp_raise(core, rc == DH_E_ABSENT ? DH_E_CORRUPT : rc);
    return NULL;
}

static PyObject *iter_next(PyObject *obj)
{
    deque_iter *self = (deque_iter *)obj;
    if (dhp_word(self->deque) == 0)
        return NULL;
    if (dh_load(self->changes_at) != self->changes) {
        self->left = 0;
        return mutated();
    }
    if (self->left == 0)
        return NULL;
    dhp_core *core = self->deque->core;
    const dh_word *slot = dh_list_run_slot(core->heap, &self->run, (uint64_t)self->index);
    if (slot == NULL && (slot = iter_seek(self)) == NULL)
        return NULL;
    self->index += self->is_reversed ? -1 : 1;
    self->left--;
    return dhp_object_from(core, dh_load(slot));
}

static PyObject *iter_length_hint(PyObject *obj, PyObject *ignored)
{
    (void)ignored;
    return PyLong_FromSsize_t(((deque_iter *)obj)->left);
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

PyType_Spec dhp_deque_iter_spec = {"dirtyheap._native.DequeIterator", sizeof(deque_iter), 0,
                                   Py_TPFLAGS_DEFAULT, iter_slots};

/* --- finding ---------------------------------------------------------------------------------- */

/* Through Python's ==, which may do anything, [start, stop) of a deque that long. */
static Py_ssize_t scan_objects(dhp_proxy *self, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                               Py_ssize_t *count_out, uint64_t changes)
{
    dh_deque_state state;
    for (Py_ssize_t i = start; i < stop; i++) {
        PyObject *item = dhp_deque_item((PyObject *)self, i);
        int equal = item != NULL ? PyObject_RichCompareBool(item, value, Py_EQ) : -1;
        Py_XDECREF(item);
        if (equal < 0 || dhp_deque_read(self, &state) < 0)
            return FAILED;
        if (state.changes != changes || (equal && count_out == NULL))
            return i;
        if (equal)
            ++*count_out;
    }
    return NOT_FOUND;
}

static Py_ssize_t scan(dhp_proxy *self, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                       Py_ssize_t *count_out, PyObject *mutated_error, const char *mutated_text)
{
    dh_deque_state state;
    if (dhp_deque_read(self, &state) < 0)
        return FAILED;
    uint64_t changes = state.changes;
    if ((uint64_t)stop > state.length)
        stop = (Py_ssize_t)state.length;
    Py_ssize_t found = dhp_list_is_scalar(value)
                           ? dhp_list_scan(self, value, start, stop, count_out)
                           : scan_objects(self, value, start, stop, count_out, changes);
    if (found == FAILED || dhp_deque_read(self, &state) < 0)
        return FAILED;
    if (state.changes != changes) {
        PyErr_SetString(mutated_error, mutated_text);
        return FAILED;
    }
    return found;
}

static Py_ssize_t find(dhp_proxy *self, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                       Py_ssize_t *count_out)
{
    return scan(self, value, start, stop, count_out, PyExc_RuntimeError,
                "deque mutated during iteration");
}

int dhp_deque_contains(PyObject *self, PyObject *value)
{
    Py_ssize_t found = find((dhp_proxy *)self, value, 0, PY_SSIZE_T_MAX, NULL);
    return found == FAILED ? -1 : found >= 0;
}

const char dhp_deque_count_doc[] = "count($self, value, /)\n--\n\n"
                                   "Return how many items equal value. O(len).";
PyObject *dhp_deque_count(PyObject *self, PyObject *value)
{
    Py_ssize_t count = 0;
    if (find((dhp_proxy *)self, value, 0, PY_SSIZE_T_MAX, &count) == FAILED)
        return NULL;
    return PyLong_FromSsize_t(count);
}

const char dhp_deque_index_doc[] = "index($self, value, start=0, stop=sys.maxsize, /)\n--\n\n"
                                   "Return the first index of value in [start, stop). O(len).\n\n"
                                   "Raises ValueError when it is not there.";
PyObject *dhp_deque_index(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t start, stop;
    if (dhp_list_index_bounds((dhp_proxy *)obj, args, nargs, &start, &stop) < 0)
        return NULL;
    Py_ssize_t found = find((dhp_proxy *)obj, args[0], start, stop, NULL);
    if (found >= 0)
        return PyLong_FromSsize_t(found);
    if (found == NOT_FOUND)
        PyErr_Format(PyExc_ValueError, "%R is not in deque", args[0]);
    return NULL;
}

const char dhp_deque_remove_doc[] = "remove($self, value, /)\n--\n\n"
                                    "Remove the first item that equals value. O(len).\n\n"
                                    "Raises ValueError when there is none, IndexError when "
                                    "comparing changed the deque.";
PyObject *dhp_deque_remove(PyObject *obj, PyObject *value)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    if (dhp_word_for_store(self) == 0)
        return NULL;
    Py_ssize_t found = scan(self, value, 0, PY_SSIZE_T_MAX, NULL, PyExc_IndexError,
                            "deque mutated during remove().");
    if (found == NOT_FOUND)
        PyErr_SetString(PyExc_ValueError, "deque.remove(x): x not in deque");
    if (found < 0 || dhp_list_splice(self, found, 1, NULL, 0) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- comparing -------------------------------------------------------------------------------- */

static PyObject *compare_ends(int has_mine, int has_theirs, int op)
{
    switch (op) {
    case Py_LT:
        return PyBool_FromLong(has_theirs);
    case Py_LE:
        return PyBool_FromLong(!has_mine);
    case Py_EQ:
        return PyBool_FromLong(!has_mine && !has_theirs);
    case Py_NE:
        return PyBool_FromLong(has_mine || has_theirs);
    case Py_GT:
        return PyBool_FromLong(has_mine);
    default:
        return PyBool_FromLong(!has_theirs);
    }
}

/* The first place where both differ decides. */
static PyObject *compare_items(PyObject *mine_iter, PyObject *theirs_iter, int op)
{
    for (;;) {
        PyObject *mine = PyIter_Next(mine_iter), *result = NULL;
        PyObject *theirs = mine != NULL || !PyErr_Occurred() ? PyIter_Next(theirs_iter) : NULL;
        int equal = 1;
        if (!PyErr_Occurred() && (mine == NULL || theirs == NULL))
            result = compare_ends(mine != NULL, theirs != NULL, op);
        else if (!PyErr_Occurred())
            equal = PyObject_RichCompareBool(mine, theirs, Py_EQ);
        if (equal == 0)
            result = op == Py_EQ   ? Py_NewRef(Py_False)
                     : op == Py_NE ? Py_NewRef(Py_True)
                                   : PyObject_RichCompare(mine, theirs, op);
        Py_XDECREF(mine);
        Py_XDECREF(theirs);
        if (result != NULL || PyErr_Occurred())
            return result;
    }
}

PyObject *dhp_deque_richcompare(PyObject *obj, PyObject *other, int op)
{
    const dhp_state *state = ((dhp_proxy *)obj)->core->state;
    if (Py_TYPE(other) != state->deque_type && !PyObject_TypeCheck(other, state->plain_deque_type))
        Py_RETURN_NOTIMPLEMENTED;
    Py_ssize_t mine = PyObject_Size(obj), theirs = mine < 0 ? -1 : PyObject_Size(other);
    if (theirs < 0)
        return NULL;
    if (mine != theirs && (op == Py_EQ || op == Py_NE))
        return PyBool_FromLong(op == Py_NE);
    PyObject *mine_iter = PyObject_GetIter(obj), *result = NULL;
    PyObject *theirs_iter = mine_iter != NULL ? PyObject_GetIter(other) : NULL;
    if (theirs_iter != NULL)
        result = compare_items(mine_iter, theirs_iter, op);
    Py_XDECREF(theirs_iter);
    Py_XDECREF(mine_iter);
    return result;
}
