/* set_algebra.c -- what Sets make and answer together with others: plain sets, truth values.
 *
 * Methods take any iterable, operators only what is set-like, as with the built-in type. Two Sets of
 * one heap are compared word by word, and an object is made for what goes into the result alone;
 * everything else goes through Python objects and the iterator, so it may meet any change on the way.
 */
#include "state.h"

#include <stdlib.h>

/* --- two sets of one heap --------------------------------------------------------------------- */

/* Elements of self that are in other (wanted) or are not, as a plain set. */
static PyObject *pick_words(dhp_proxy *self, dhp_proxy *other, bool wanted)
{
    dh_heap *heap = self->core->heap;
    dh_dict_pos position = {0, 0};
    uint64_t mine = 0, theirs = 0;
    dh_word word, found, set = dhp_word(self), other_set = set ? dhp_word(other) : 0;
    if (other_set == 0)
        return NULL;
    uint64_t count_before = self->core->placeholders_count;
    int was_enabled = dhp_gc_pause();
    PyObject *picked = PySet_New(NULL);
    int rc = dh_set_length(heap, set, &mine);
    if (rc == 0)
        rc = dh_set_length(heap, other_set, &theirs);
    /* What both have can be found by walking either. */
    bool walk_other = wanted && theirs < mine;
    dh_word walked = walk_other ? other_set : set, asked = walk_other ? set : other_set;
    rc = rc != 0 || picked == NULL ? -1 : 1;
    while (rc == 1 && (rc = dh_set_next(heap, walked, &position, &word)) == 1) {
        int absent = dh_set_find_word(heap, asked, word, &found);
        if (absent != 0 && absent != DH_E_ABSENT) {
            dhp_raise(self->core, absent);
            rc = -1;
        } else if ((absent == 0) == wanted) {
            rc = dhp_set_put(self->core, picked, walk_other ? found : word) < 0 ? -1 : 1;
        }
    }
    dhp_gc_resume(was_enabled);
    if (rc == 0)
        return dhp_resolve_inside(self->core, count_before, picked);
    if (!PyErr_Occurred())
        dhp_raise(self->core, DH_E_CORRUPT);
    Py_XDECREF(picked);
    return NULL;
}

/* --- any iterable ----------------------------------------------------------------------------- */

/* Put the stored element that obj equals into a plain set, if there is one. */
static int put_stored(dhp_proxy *self, PyObject *obj, PyObject *plain)
{
    dhp_key key;
    dh_word word;
    int ready = dhp_key_find(self->core, obj, &key);
    if (ready != DHP_KEY_READY)
        return ready < 0 ? -1 : 0;
    int was_enabled = dhp_gc_pause();
    dh_word set = dhp_word(self);
    int rc = set != 0 ? dh_set_find(self->core->heap, set, &key.key, &word) : DH_E_CLOSED;
    int failed = set == 0 || (rc == 0 && dhp_set_put(self->core, plain, word) < 0);
    dhp_gc_resume(was_enabled);
    dhp_key_finish(&key);
    if (failed)
        return -1;
    return rc == 0 || rc == DH_E_ABSENT ? 0 : dhp_raise(self->core, rc);
}

PyObject *dhp_set_common(dhp_proxy *self, PyObject *others)
{
    uint64_t count_before = self->core->placeholders_count;
    PyObject *obj, *iter = PyObject_GetIter(others);
    PyObject *common = iter != NULL ? PySet_New(NULL) : NULL;
    while (common != NULL && (obj = PyIter_Next(iter)) != NULL) {
        /* As the built-in does: elements must have a hash, not only equal something. */
        if (put_stored(self, obj, common) < 0)
            Py_CLEAR(common);
        Py_DECREF(obj);
    }
    Py_XDECREF(iter);
    if (common != NULL && PyErr_Occurred())
        Py_CLEAR(common);
    return dhp_resolve_inside(self->core, count_before, common);
}

/* result.<method>(other) for all of them. */
static PyObject *change_plain(PyObject *result, const char *method, PyObject *const *others,
                              Py_ssize_t count)
{
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *done = PyObject_CallMethod(result, method, "(O)", others[i]);
        if (done == NULL)
            Py_CLEAR(result);
        Py_XDECREF(done);
    }
    return result;
}

PyObject *dhp_set_union(PyObject *self, PyObject *const *others, Py_ssize_t count)
{
    return change_plain(dhp_set_copy((dhp_proxy *)self), "update", others, count);
}

PyObject *dhp_set_intersection(PyObject *obj, PyObject *const *others, Py_ssize_t count)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    if (count == 0)
        return dhp_set_copy(self);
    PyObject *common = dhp_is_set_here(self->core, others[0])
                           ? pick_words(self, (dhp_proxy *)others[0], true)
                           : dhp_set_common(self, others[0]);
    return change_plain(common, "intersection_update", others + 1, count - 1);
}

PyObject *dhp_set_difference(PyObject *obj, PyObject *const *others, Py_ssize_t count)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    if (count == 1 && dhp_is_set_here(self->core, others[0]))
        return pick_words(self, (dhp_proxy *)others[0], false);
    return change_plain(dhp_set_copy(self), "difference_update", others, count);
}

PyObject *dhp_set_symmetric_difference(PyObject *self, PyObject *other)
{
    return change_plain(dhp_set_copy((dhp_proxy *)self), "symmetric_difference_update", &other, 1);
}

/* --- questions -------------------------------------------------------------------------------- */

static int is_mine(PyObject *obj)
{
    return PyType_GetSlot(Py_TYPE(obj), Py_nb_or) == (void *)dhp_set_or;
}

typedef int (*set_question)(const dh_heap *, dh_word, dh_word);

/* Answered by the core, for two sets of one heap. 1, 0, -1. */
static int ask(PyObject *set, PyObject *other, set_question question)
{
    dhp_core *core = ((dhp_proxy *)set)->core;
    dh_word word = dhp_word((dhp_proxy *)set), other_word = word ? dhp_word((dhp_proxy *)other) : 0;
    if (other_word == 0)
        return -1;
    int answer = question(core->heap, word, other_word);
    return answer < 0 ? dhp_raise(core, answer) : answer;
}

/* `in` takes a set for the frozenset of its elements; as an element of something it is refused. */
static int has_element(PyObject *container, PyObject *item)
{
    bool is_set = PySet_Check(item) || is_mine(item);
    if (DH_UNLIKELY(is_set) && PyObject_Hash(item) == -1)
        return -1;
    return PySequence_Contains(container, item);
}

/* Is there, among all, an element whose presence in container is not `expected`? 0: yes, 1: no, -1. */
static int all_are(PyObject *all, PyObject *container, int expected)
{
    PyObject *item, *iter = PyObject_GetIter(all);
    int present = iter != NULL ? expected : -1;
    while (present == expected && (item = PyIter_Next(iter)) != NULL) {
        present = has_element(container, item);
        Py_DECREF(item);
    }
    Py_XDECREF(iter);
    return present < 0 || PyErr_Occurred() ? -1 : present == expected;
}

/* Has set (a set of any kind) all elements of other (a Set)? */
static int has_all(PyObject *set, PyObject *other)
{
    if (dhp_is_set_here(((dhp_proxy *)other)->core, set))
        return ask(set, other, dh_set_has_all);
    Py_ssize_t mine = PyObject_Size(other), theirs = mine < 0 ? -1 : PyObject_Size(set);
    if (theirs < 0)
        return -1;
    return mine > theirs ? 0 : all_are(other, set, 1);
}

PyObject *dhp_set_isdisjoint(PyObject *self, PyObject *other)
{
    int common = -1;
    if (dhp_is_set_here(((dhp_proxy *)self)->core, other)) {
        common = ask(self, other, dh_set_has_any);
    } else {
        int disjoint = all_are(other, self, 0);
        common = disjoint < 0 ? -1 : !disjoint;
    }
    return common < 0 ? NULL : PyBool_FromLong(!common);
}

PyObject *dhp_set_issubset(PyObject *self, PyObject *other)
{
    int is_set = PyAnySet_Check(other) || dhp_is_set(((dhp_proxy *)self)->core, other);
    PyObject *set = is_set ? Py_NewRef(other) : PySet_New(other);
    int answer = set != NULL ? has_all(set, self) : -1;
    Py_XDECREF(set);
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

PyObject *dhp_set_issuperset(PyObject *self, PyObject *other)
{
    int answer = dhp_is_set_here(((dhp_proxy *)self)->core, other)
                     ? ask(self, other, dh_set_has_all)
                     : all_are(other, self, 1);
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

/* other is set-like. 1, 0, -1. */
static int compare(PyObject *self, PyObject *other, int op)
{
    Py_ssize_t mine = dhp_set_length(self), theirs = mine < 0 ? -1 : PyObject_Size(other);
    if (theirs < 0)
        return -1;
    switch (op) {
    case Py_EQ:
        return mine == theirs ? has_all(other, self) : 0;
    case Py_LT:
        return mine < theirs ? has_all(other, self) : 0;
    case Py_LE:
        return mine <= theirs ? has_all(other, self) : 0;
    case Py_GT:
        return mine > theirs ? all_are(other, self, 1) : 0;
    default:
        return mine >= theirs ? all_are(other, self, 1) : 0;
    }
}

PyObject *dhp_set_richcompare(PyObject *self, PyObject *other, int op)
{
    if (!dhp_is_set_like(((dhp_proxy *)self)->core->state, other))
        Py_RETURN_NOTIMPLEMENTED;
    int answer = compare(self, other, op == Py_NE ? Py_EQ : op);
    return answer < 0 ? NULL : PyBool_FromLong(op == Py_NE ? !answer : answer);
}

/* --- operators -------------------------------------------------------------------------------- */

static int is_operand(PyObject *obj) { return PyAnySet_Check(obj) || is_mine(obj); }

/* One of the operands is a Set; the other is one or a plain set, else Python asks the other. A result
 * is plain, of the type of a plain left operand. */
static PyObject *operate(PyObject *left, PyObject *right, const char *method)
{
    if (!is_operand(left) || !is_operand(right))
        Py_RETURN_NOTIMPLEMENTED;
    if (is_mine(left))
        return PyObject_CallMethod(left, method, "(O)", right);
    PyObject *result = PyFrozenSet_Check(left) ? PyFrozenSet_New(left) : PySet_New(left);
    PyObject *done = result ? PyObject_CallMethod(result, method, "(O)", right) : NULL;
    Py_XDECREF(result);
    return done;
}

PyObject *dhp_set_or(PyObject *left, PyObject *right) { return operate(left, right, "union"); }
PyObject *dhp_set_and(PyObject *left, PyObject *right)
{
    return operate(left, right, "intersection");
}
PyObject *dhp_set_sub(PyObject *left, PyObject *right)
{
    return operate(left, right, "difference");
}
PyObject *dhp_set_xor(PyObject *left, PyObject *right)
{
    return operate(left, right, "symmetric_difference");
}
