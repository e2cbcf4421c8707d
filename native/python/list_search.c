/* list_search.c -- finding values in a List, and comparing Lists.
 *
 * Two ways to look. A value that can be a key of a heap's dict is compared by the core, word by
 * word, and no Python code runs. Any other goes through Python's ==, which may do anything to the
 * list: it is asked for its word at every step.
 */
#include "state.h"

enum { NOT_FOUND = -1, FAILED = -2, OPAQUE = -3 };

int dhp_list_is_scalar(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    return type == &PyLong_Type || type == &PyUnicode_Type || type == &PyFloat_Type ||
           type == &PyBool_Type || type == &PyBytes_Type || value == Py_None;
}

/* Does the stored word equal the key? Ints and short strings have one word each, so an inline word
 * equals the key's or nothing. */
static int word_equals(const dh_heap *heap, const dh_key *key, dh_word word)
{
    if (word == key->word)
        return key->word != 0;
    if (dh_is_int(word) || dh_is_short(word))
        return 0;
    return dh_key_matches(heap, key, word);
}

/* Walk [*at_out, stop) and count matches, or stop at the first (count_out NULL). A value whose type
 * alone knows what it equals stops the walk: OPAQUE. *at_out: where it stopped. */
static Py_ssize_t scan_words(dhp_proxy *self, const dh_key *key, uint64_t *at_out, uint64_t stop,
                             Py_ssize_t *count_out)
{
    dh_heap *heap = self->core->heap;
    uint64_t i = *at_out, span;
    const dh_word *words;
    while (i < stop && (words = dh_list_span(heap, self->handle.word, i, &span)) != NULL) {
        for (uint64_t end = span < stop - i ? i + span : stop; i < end; i++) {
            dh_word word = dh_load(words++);
            int equal = word_equals(heap, key, word);
            *at_out = i;
            if (equal < 0)
                return dhp_raise(self->core, equal), FAILED;
            if (equal && count_out == NULL)
                return (Py_ssize_t)i;
            if (equal)
                ++*count_out;
            else if (DH_UNLIKELY(dh_is_ref_to(word, DH_T_EXT)) && dh_ext_is_opaque(heap, word))
                return OPAQUE;
        }
    }
    return NOT_FOUND;
}

/* The item as an object; NULL without exception beyond the end. */
static PyObject *item_or_end(dhp_proxy *self, Py_ssize_t index)
{
    dh_word item, list = dhp_word(self);
    if (list == 0)
        return NULL;
    int rc = dh_list_get(self->core->heap, list, (uint64_t)index, &item);
    if (rc == 0)
        return dhp_object_from(self->core, item);
    if (rc != DH_E_ABSENT)
        dhp_raise(self->core, rc);
    return NULL;
}

static Py_ssize_t scan_objects(dhp_proxy *self, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                               Py_ssize_t *count_out)
{
    PyObject *item;
    for (Py_ssize_t i = start; i < stop && (item = item_or_end(self, i)) != NULL; i++) {
        int equal = PyObject_RichCompareBool(item, value, Py_EQ);
        Py_DECREF(item);
        if (equal < 0)
            return FAILED;
        if (equal && count_out == NULL)
            return i;
        if (equal)
            ++*count_out;
    }
    return PyErr_Occurred() ? FAILED : NOT_FOUND;
}

static Py_ssize_t scan_scalar(dhp_proxy *self, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                              Py_ssize_t *count_out)
{
    dhp_key key;
    if (dhp_key_init(self->core, value, &key) != DHP_KEY_READY)
        return FAILED;
    Py_ssize_t length = dhp_list_length((PyObject *)self), found = length < 0 ? FAILED : OPAQUE;
    uint64_t at = (uint64_t)start;
    while (found == OPAQUE) {
        found =
            scan_words(self, &key.key, &at, (uint64_t)(stop < length ? stop : length), count_out);
        if (found != OPAQUE)
            break;
        Py_ssize_t place = (Py_ssize_t)at++;
        found = scan_objects(self, value, place, place + 1, count_out);
        if (found == NOT_FOUND)
            found = (length = dhp_list_length((PyObject *)self)) < 0 ? FAILED : OPAQUE;
    }
    dhp_key_finish(&key);
    return found;
}

Py_ssize_t dhp_list_scan(dhp_proxy *self, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                         Py_ssize_t *count_out)
{
    return dhp_list_is_scalar(value) ? scan_scalar(self, value, start, stop, count_out)
                                     : scan_objects(self, value, start, stop, count_out);
}

int dhp_list_contains(PyObject *self, PyObject *value)
{
    Py_ssize_t found = dhp_list_scan((dhp_proxy *)self, value, 0, PY_SSIZE_T_MAX, NULL);
    return found == FAILED ? -1 : found >= 0;
}

const char dhp_list_count_doc[] = "count($self, value, /)\n--\n\n"
                                  "Return how many items equal value. O(len).";
PyObject *dhp_list_count(PyObject *self, PyObject *value)
{
    Py_ssize_t count = 0;
    if (dhp_list_scan((dhp_proxy *)self, value, 0, PY_SSIZE_T_MAX, &count) == FAILED)
        return NULL;
    return PyLong_FromSsize_t(count);
}

/* A bound as in a slice: clipped, negative from the end. */
static int bound_of(dhp_proxy *self, PyObject *arg, Py_ssize_t *bound_out)
{
    if (!PyIndex_Check(arg)) {
        PyErr_SetString(PyExc_TypeError,
                        "slice indices must be integers or have an __index__ method");
        return -1;
    }
    Py_ssize_t bound = PyNumber_AsSsize_t(arg, NULL);
    if (bound == -1 && PyErr_Occurred())
        return -1;
    if (bound < 0) {
        Py_ssize_t length = dhp_list_length((PyObject *)self);
        if (length < 0)
            return -1;
        bound = bound + length < 0 ? 0 : bound + length;
    }
    *bound_out = bound;
    return 0;
}

int dhp_list_index_bounds(dhp_proxy *self, PyObject *const *args, Py_ssize_t nargs,
                          Py_ssize_t *start_out, Py_ssize_t *stop_out)
{
    *start_out = 0;
    *stop_out = PY_SSIZE_T_MAX;
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "index expected 1 to 3 arguments, got %zd", nargs);
        return -1;
    }
    if (nargs > 1 && bound_of(self, args[1], start_out) < 0)
        return -1;
    return nargs > 2 ? bound_of(self, args[2], stop_out) : 0;
}

const char dhp_list_index_doc[] = "index($self, value, start=0, stop=sys.maxsize, /)\n--\n\n"
                                  "Return the first index of value in [start, stop). O(len).\n\n"
                                  "Raises ValueError when it is not there.";
PyObject *dhp_list_index(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    Py_ssize_t start, stop;
    if (dhp_list_index_bounds(self, args, nargs, &start, &stop) < 0)
        return NULL;
    Py_ssize_t found = dhp_list_scan(self, args[0], start, stop, NULL);
    if (found >= 0)
        return PyLong_FromSsize_t(found);
    if (found == NOT_FOUND)
        PyErr_Format(PyExc_ValueError, "%R is not in list", args[0]);
    return NULL;
}

const char dhp_list_remove_doc[] = "remove($self, value, /)\n--\n\n"
                                   "Remove the first item that equals value. O(len).\n\n"
                                   "Raises ValueError when there is none.";
PyObject *dhp_list_remove(PyObject *obj, PyObject *value)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    if (dhp_word_for_store(self) == 0)
        return NULL;
    Py_ssize_t found = dhp_list_scan(self, value, 0, PY_SSIZE_T_MAX, NULL);
    if (found == NOT_FOUND)
        PyErr_SetString(PyExc_ValueError, "list.remove(x): x not in list");
    if (found < 0)
        return NULL;
    Py_ssize_t length = dhp_list_length(obj); /* comparing may have shortened it */
    if (length < 0 || (found < length && dhp_list_splice(self, found, 1, NULL, 0) < 0))
        return NULL;
    Py_RETURN_NONE;
}

/* --- comparing -------------------------------------------------------------------------------- */

static PyObject *other_item(PyObject *other, Py_ssize_t index)
{
    if (!PyList_Check(other))
        return item_or_end((dhp_proxy *)other, index);
    return index < PyList_Size(other) ? Py_NewRef(PyList_GetItem(other, index)) : NULL;
}

static int compare_sizes(Py_ssize_t mine, Py_ssize_t theirs, int op)
{
    switch (op) {
    case Py_LT:
        return mine < theirs;
    case Py_LE:
        return mine <= theirs;
    case Py_EQ:
        return mine == theirs;
    case Py_NE:
        return mine != theirs;
    case Py_GT:
        return mine > theirs;
    default:
        return mine >= theirs;
    }
}

/* The first place where both differ decides. 1: found, result in *result_out. 0: none, -1. */
static int compare_items(dhp_proxy *self, PyObject *other, int op, PyObject **result_out)
{
    for (Py_ssize_t i = 0;; i++) {
        PyObject *mine = item_or_end(self, i);
        PyObject *theirs = mine ? other_item(other, i) : NULL;
        int equal = theirs ? PyObject_RichCompareBool(mine, theirs, Py_EQ) : -1;
        if (equal == 0)
            *result_out = op == Py_EQ   ? Py_NewRef(Py_False)
                          : op == Py_NE ? Py_NewRef(Py_True)
                                        : PyObject_RichCompare(mine, theirs, op);
        Py_XDECREF(mine);
        Py_XDECREF(theirs);
        if (equal == 0)
            return *result_out != NULL ? 1 : -1;
        if (equal < 0)
            return PyErr_Occurred() ? -1 : 0;
    }
}

PyObject *dhp_list_richcompare(PyObject *obj, PyObject *other, int op)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    PyObject *result = NULL;
    if (Py_TYPE(other) != self->core->state->list_type && !PyList_Check(other))
        Py_RETURN_NOTIMPLEMENTED;
    Py_ssize_t mine = dhp_list_length(obj), theirs = mine < 0 ? -1 : PyObject_Size(other);
    if (theirs < 0)
        return NULL;
    if (mine != theirs && (op == Py_EQ || op == Py_NE))
        return PyBool_FromLong(op == Py_NE);
    int found = compare_items(self, other, op, &result);
    if (found != 0)
        return found > 0 ? result : NULL;
    mine = dhp_list_length(obj);
    theirs = mine < 0 ? -1 : PyObject_Size(other);
    return theirs < 0 ? NULL : PyBool_FromLong(compare_sizes(mine, theirs, op));
}
