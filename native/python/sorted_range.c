/* sorted_range.c -- SortedDict by position and by ranges of keys.
 *
 * Keys and indexes are made first, which may run Python code; positions are found last, and are
 * worth nothing after the next such code.
 */
#include "sorted_type.h"

static int index_error(void)
{
    PyErr_SetString(PyExc_IndexError, "sorted dict index out of range");
    return -1;
}

/* --- rank ------------------------------------------------------------------------------------- */

/* 0, or DHP_RAISED. */
static int rank_of(dhp_proxy *self, const dhp_key *key, bool is_right, uint64_t *rank_out,
                   bool *is_found_out)
{
    dh_word sorted = dhp_word(self);
    if (sorted == 0)
        return DHP_RAISED;
    int rc = dh_sorted_rank(self->core->heap, sorted, &key->key, is_right, rank_out, is_found_out);
    if (rc == 0)
        return 0;
    dhp_raise(self->core, rc);
    return DHP_RAISED;
}

static PyObject *bisect(dhp_proxy *self, PyObject *key_obj, bool is_right)
{
    dhp_key key;
    uint64_t rank;
    bool is_found;
    if (dhp_sorted_key(self->core, key_obj, DHP_KEY_TO_PLACE, &key) != DHP_KEY_READY)
        return NULL;
    int rc = rank_of(self, &key, is_right, &rank, &is_found);
    dhp_key_finish(&key);
    return rc == 0 ? PyLong_FromUnsignedLongLong(rank) : NULL;
}

const char dhp_sorted_bisect_left_doc[] =
    "bisect_left($self, value, /)\n--\n\n"
    "Return how many keys are smaller than value. O(log len).\n\n"
    "Raises TypeError when value cannot be compared with the keys.\n\n"
    ">>> heap.sorted_dict({10: 'a', 20: 'b'}).bisect_left(20)\n1";
PyObject *dhp_sorted_bisect_left(PyObject *self, PyObject *key)
{
    return bisect((dhp_proxy *)self, key, false);
}

const char dhp_sorted_bisect_right_doc[] =
    "bisect_right($self, value, /)\n--\n\n"
    "Return how many keys are smaller than value or equal to it. O(log len).\n\n"
    ">>> heap.sorted_dict({10: 'a', 20: 'b'}).bisect_right(20)\n2";
const char dhp_sorted_bisect_doc[] = "bisect($self, value, /)\n--\n\nThe same as bisect_right.";
PyObject *dhp_sorted_bisect_right(PyObject *self, PyObject *key)
{
    return bisect((dhp_proxy *)self, key, true);
}

int dhp_sorted_position(dhp_proxy *self, PyObject *key_obj, uint64_t *index_out)
{
    dhp_key key;
    bool is_found = false;
    int ready = dhp_sorted_key(self->core, key_obj, DHP_KEY_TO_FIND, &key);
    dh_word sorted = dhp_word(self);
    if (ready != DHP_KEY_READY || sorted == 0) {
        if (ready == DHP_KEY_READY)
            dhp_key_finish(&key);
        return ready < 0 || sorted == 0 ? DHP_RAISED : DH_E_ABSENT;
    }
    int rc = dh_sorted_rank(self->core->heap, sorted, &key.key, false, index_out, &is_found);
    dhp_key_finish(&key);
    if (rc == DH_E_UNORDERED) /* nor can it be there */
        return DH_E_ABSENT;
    if (rc == 0)
        return is_found ? 0 : DH_E_ABSENT;
    dhp_raise(self->core, rc);
    return DHP_RAISED;
}

/* --- index ------------------------------------------------------------------------------------ */

/* A bound of a sequence's index(): an int, or None. */
static int bound_from(PyObject *obj, Py_ssize_t fallback, Py_ssize_t *out)
{
    *out = fallback;
    if (obj == NULL || obj == Py_None)
        return 0;
    *out = PyNumber_AsSsize_t(obj, NULL);
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

int dhp_sorted_index_bounds(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t *start_out,
                            Py_ssize_t *stop_out)
{
    if (bound_from(nargs > 1 ? args[1] : NULL, 0, start_out) < 0)
        return -1;
    return bound_from(nargs > 2 ? args[2] : NULL, PY_SSIZE_T_MAX, stop_out);
}

const char dhp_sorted_index_doc[] =
    "index($self, value, start=None, stop=None)\n--\n\n"
    "Return the position of a key, from start on and before stop. O(log len).\n\n"
    "Raises ValueError when it is not there.\n\n"
    ">>> heap.sorted_dict({'a': 1, 'b': 2}).index('b')\n1";
PyObject *dhp_sorted_index(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"value", "start", "stop", NULL};
    PyObject *given[3] = {NULL, Py_None, Py_None};
    Py_ssize_t start, stop, length;
    uint64_t index;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:index", names, &given[0], &given[1],
                                     &given[2]) ||
        dhp_sorted_index_bounds(given, 3, &start, &stop) < 0)
        return NULL;
    int rc = dhp_sorted_position((dhp_proxy *)obj, given[0], &index);
    if (rc == DHP_RAISED || (length = dhp_sorted_length(obj)) < 0)
        return NULL;
    if (start < 0)
        start += length;
    if (stop < 0)
        stop += length;
    if (rc == 0 && (Py_ssize_t)index >= start && (Py_ssize_t)index < stop)
        return PyLong_FromUnsignedLongLong(index);
    PyErr_Format(PyExc_ValueError, "%R is not in the sorted dict", given[0]);
    return NULL;
}

/* --- by position ------------------------------------------------------------------------------ */

/* Words of the entry at a position. 0 or -1. */
static int entry_at(dhp_proxy *self, Py_ssize_t index, uint64_t *at_out, dh_word *key_out,
                    dh_word *value_out)
{
    dh_sorted_span span;
    Py_ssize_t length = dhp_sorted_length((PyObject *)self);
    if (length < 0)
        return -1;
    if (index < 0)
        index += length;
    if (index < 0 || index >= length)
        return index_error();
    int rc = dh_sorted_span_at(self->core->heap, self->handle.word, (uint64_t)index, &span);
    if (rc != 0)
        return dhp_raise(self->core, rc);
    *at_out = (uint64_t)index;
    *key_out = dh_load(&span.keys[*at_out - span.first]);
    *value_out = dh_load(&span.values[*at_out - span.first]);
    return 0;
}

static PyObject *pair_from(dhp_core *core, dh_word key_word, dh_word value_word)
{
    PyObject *key, *value;
    if (dhp_objects_from_pair(core, key_word, value_word, &key, &value) < 0)
        return NULL;
    PyObject *pair = PyTuple_Pack(2, key, value);
    Py_DECREF(key);
    Py_DECREF(value);
    return pair;
}

PyObject *dhp_sorted_at(dhp_proxy *self, Py_ssize_t index, dhp_dict_part part)
{
    dh_word key, value;
    uint64_t at;
    if (entry_at(self, index, &at, &key, &value) < 0)
        return NULL;
    if (part == DHP_ITEMS)
        return pair_from(self->core, key, value);
    return dhp_object_from(self->core, part == DHP_KEYS ? key : value);
}

/* The argument of peekitem and popitem. */
static int index_argument(PyObject *args, PyObject *kwargs, const char *format,
                          Py_ssize_t *index_out)
{
    static char *names[] = {"index", NULL};
    PyObject *given = NULL;
    *index_out = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &given))
        return -1;
    if (given != NULL) /* one that is too large is no position either: clipped */
        *index_out = PyNumber_AsSsize_t(given, NULL);
    return *index_out == -1 && PyErr_Occurred() ? -1 : 0;
}

const char dhp_sorted_peekitem_doc[] =
    "peekitem($self, index=-1)\n--\n\n"
    "Return the (key, value) at a position; negative ones count from the end. O(log len).\n\n"
    "Raises IndexError.\n\n"
    ">>> heap.sorted_dict({2: 'b', 1: 'a'}).peekitem(0)\n(1, 'a')";
PyObject *dhp_sorted_peekitem(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Py_ssize_t index;
    if (index_argument(args, kwargs, "|O:peekitem", &index) < 0)
        return NULL;
    return dhp_sorted_at((dhp_proxy *)self, index, DHP_ITEMS);
}

/* With Python's collector paused: words of the entry, as long as it can be removed. */
static int takeable_entry(dhp_proxy *self, Py_ssize_t index, uint64_t *at_out, dh_word words_out[2])
{
    Py_ssize_t length =
        dhp_word_for_store(self) != 0 ? dhp_sorted_length((PyObject *)self) : (Py_ssize_t)-1;
    if (length == 0)
        PyErr_SetString(PyExc_KeyError, "popitem(): dictionary is empty");
    return length > 0 && entry_at(self, index, at_out, &words_out[0], &words_out[1]) == 0
               ? 0
               : DHP_RAISED;
}

/* Remove the entry if it is still the one that the raw objects were made from. */
static int take_out(dhp_proxy *self, Py_ssize_t index, const dh_word words[2],
                    PyObject *const raws[2])
{
    dh_word now[2];
    uint64_t at;
    int rc = takeable_entry(self, index, &at, now);
    if (rc != 0)
        return rc;
    if (now[0] != words[0] || now[1] != words[1] || !dhp_is_still(self->core, now[0], raws[0]) ||
        !dhp_is_still(self->core, now[1], raws[1]))
        return DHP_TAKE_AGAIN;
    rc = dh_sorted_delete_at(self->core->heap, self->handle.word, at);
    if (rc == 0)
        return 0;
    dhp_raise(self->core, rc);
    return DHP_RAISED;
}

/* The entry as a pair, then out with it. Unpacking runs Python code: look again afterwards. */
static int take_once(dhp_proxy *self, Py_ssize_t index, PyObject **pair_out)
{
    uint64_t at, count_before = self->core->placeholders_count;
    PyObject *raws[2] = {NULL, NULL}, *pair = NULL;
    dh_word words[2];
    int was_enabled = dhp_gc_pause();
    int rc = takeable_entry(self, index, &at, words);
    if (rc == 0)
        rc = dhp_raws_from_pair(self->core, words[0], words[1], &raws[0], &raws[1]);
    if (rc == 0)
        pair = PyTuple_Pack(2, raws[0], raws[1]);
    if (pair != NULL && self->core->placeholders_count != count_before) {
        dhp_gc_resume(was_enabled);
        pair = dhp_resolve(self->core, count_before, pair);
        was_enabled = dhp_gc_pause();
    }
    rc = pair != NULL ? take_out(self, index, words, raws) : DHP_RAISED;
    dhp_gc_resume(was_enabled);
    Py_XDECREF(raws[0]);
    Py_XDECREF(raws[1]);
    if (rc == 0)
        *pair_out = pair;
    else
        Py_XDECREF(pair);
    return rc;
}

const char dhp_sorted_popitem_doc[] =
    "popitem($self, index=-1)\n--\n\n"
    "Remove and return the (key, value) at a position, the last one unless said. O(log len).\n\n"
    "Raises KeyError when the dict is empty, IndexError when there is no such position.";
PyObject *dhp_sorted_popitem(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    Py_ssize_t index;
    if (index_argument(args, kwargs, "|O:popitem", &index) < 0)
        return NULL;
    PyObject *pair = NULL;
    int rc = DHP_TAKE_AGAIN;
    for (int i = 0; rc == DHP_TAKE_AGAIN && i < DHP_TAKES_MAX; i++)
        rc = take_once(self, index, &pair);
    if (rc == DHP_TAKE_AGAIN)
        dhp_sorted_raise_restless();
    return pair;
}

/* --- ranges ----------------------------------------------------------------------------------- */

/* The position where a range begins or ends, or the fallback without a key. */
static int range_end(dhp_proxy *self, const dhp_key *key, bool is_right, uint64_t fallback,
                     uint64_t *at_out)
{
    bool is_found;
    *at_out = fallback;
    return key != NULL ? rank_of(self, key, is_right, at_out, &is_found) : 0;
}

static PyObject *range_iter(dhp_proxy *self, const dhp_key *minimum, const dhp_key *maximum,
                            const int inclusive[2], int is_reversed)
{
    uint64_t start, stop;
    if (range_end(self, minimum, !inclusive[0], 0, &start) != 0 ||
        range_end(self, maximum, inclusive[1], UINT64_MAX, &stop) != 0)
        return NULL;
    return dhp_sorted_iter_new(self, DHP_KEYS, start, stop, is_reversed);
}

/* A pair of truth values. */
static int inclusive_from(PyObject *obj, int inclusive_out[2])
{
    inclusive_out[0] = inclusive_out[1] = 1;
    if (obj == NULL)
        return 0;
    if (!PySequence_Check(obj) || PySequence_Size(obj) != 2) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_SetString(PyExc_TypeError,
                            "inclusive must be a pair of booleans, such as (True, False)");
        return -1;
    }
    for (Py_ssize_t i = 0; i < 2; i++) {
        PyObject *item = PySequence_GetItem(obj, i);
        inclusive_out[i] = item != NULL ? PyObject_IsTrue(item) : -1;
        Py_XDECREF(item);
        if (inclusive_out[i] < 0)
            return -1;
    }
    return 0;
}

const char dhp_sorted_irange_doc[] =
    "irange($self, minimum=None, maximum=None, inclusive=(True, True), reverse=False)\n--\n\n"
    "Return an iterator over the keys between minimum and maximum.\n\n"
    "None: no bound. inclusive: whether each bound itself belongs to the range. O(log len), and "
    "O(1) a key.\n\n"
    ">>> list(heap.sorted_dict({'a': 1, 'b': 2, 'c': 3}).irange('b', reverse=True))\n['c', 'b']";
PyObject *dhp_sorted_irange(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"minimum", "maximum", "inclusive", "reverse", NULL};
    dhp_proxy *self = (dhp_proxy *)obj;
    PyObject *ends[2] = {Py_None, Py_None}, *inclusive_obj = NULL, *made = NULL;
    dhp_key keys[2];
    int inclusive[2], is_reversed = 0, rc = 0, ready[2] = {0, 0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOOp:irange", names, &ends[0], &ends[1],
                                     &inclusive_obj, &is_reversed) ||
        inclusive_from(inclusive_obj, inclusive) < 0)
        return NULL;
    for (int i = 0; i < 2 && rc == 0; i++)
        if (ends[i] != Py_None) {
            rc = dhp_sorted_key(self->core, ends[i], DHP_KEY_TO_PLACE, &keys[i]);
            ready[i] = rc == DHP_KEY_READY;
        }
    if (rc == 0)
        made = range_iter(self, ready[0] ? &keys[0] : NULL, ready[1] ? &keys[1] : NULL, inclusive,
                          is_reversed);
    for (int i = 0; i < 2; i++)
        if (ready[i])
            dhp_key_finish(&keys[i]);
    return made;
}

const char dhp_sorted_islice_doc[] =
    "islice($self, start=None, stop=None, reverse=False)\n--\n\n"
    "Return an iterator over the keys at positions [start, stop), as a slice means them.\n\n"
    "O(log len), and O(1) a key.\n\n"
    ">>> list(heap.sorted_dict({'a': 1, 'b': 2, 'c': 3}).islice(-2))\n['b', 'c']";
PyObject *dhp_sorted_islice(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"start", "stop", "reverse", NULL};
    PyObject *ends[2] = {Py_None, Py_None};
    Py_ssize_t start, stop;
    int is_reversed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOp:islice", names, &ends[0], &ends[1],
                                     &is_reversed) ||
        bound_from(ends[0], 0, &start) < 0 || bound_from(ends[1], PY_SSIZE_T_MAX, &stop) < 0)
        return NULL;
    Py_ssize_t length = dhp_sorted_length(obj);
    if (length < 0)
        return NULL;
    PySlice_AdjustIndices(length, &start, &stop, 1);
    return dhp_sorted_iter_new((dhp_proxy *)obj, DHP_KEYS, (uint64_t)start, (uint64_t)stop,
                               is_reversed);
}
