/* list_sort.c -- List.sort: Python decides the order, then the words are put into it.
 *
 * The items are copied out and Python's own list.sort orders their positions (so it is stable, and
 * key= and reverse= mean what they always mean). Keys and comparisons are the user's code: the
 * list is written only if its words are still the ones that were sorted.
 */
#include "state.h"

#include <stdlib.h>

/* What was sorted: the words, then their order. */
typedef struct {
    dh_word *words;
    size_t count;
    PyObject *items; /* plain list of the same values          */
    PyObject *order; /* plain list of positions, sorted or not */
} sorting;

static int sorting_begin(sorting *s, dhp_proxy *self)
{
    uint64_t count_before = self->core->placeholders_count;
    int was_enabled = dhp_gc_pause();
    *s = (sorting){0};
    int rc = dhp_list_snapshot(self, &s->words, &s->count);
    if (rc == 0) {
        s->items = dhp_list_copy_raw(self);
        s->order = s->items ? PyList_New((Py_ssize_t)s->count) : NULL;
        rc = s->order != NULL ? 0 : -1;
    }
    for (size_t i = 0; rc == 0 && i < s->count; i++) {
        PyObject *position = PyLong_FromSize_t(i);
        rc = position ? PyList_SetItem(s->order, (Py_ssize_t)i, position) : -1;
    }
    dhp_gc_resume(was_enabled);
    s->items = dhp_resolve_inside(self->core, count_before, s->items);
    return s->items != NULL ? rc : -1;
}

static void sorting_finish(sorting *s)
{
    free(s->words);
    Py_XDECREF(s->items);
    Py_XDECREF(s->order);
}

/* Replace the items by their keys. */
static int sorting_call_key(sorting *s, PyObject *key)
{
    for (size_t i = 0; i < s->count; i++) {
        PyObject *item = PyList_GetItem(s->items, (Py_ssize_t)i);
        PyObject *made = item ? PyObject_CallFunctionObjArgs(key, item, NULL) : NULL;
        if (made == NULL || PyList_SetItem(s->items, (Py_ssize_t)i, made) < 0)
            return -1;
    }
    return 0;
}

/* order.sort(key=items.__getitem__, reverse=reverse) */
static int sorting_run(sorting *s, int is_reversed)
{
    PyObject *getitem = PyObject_GetAttrString(s->items, "__getitem__");
    PyObject *sort = getitem ? PyObject_GetAttrString(s->order, "sort") : NULL;
    PyObject *args = sort ? PyTuple_New(0) : NULL;
    PyObject *kwargs =
        args ? Py_BuildValue("{s:O,s:i}", "key", getitem, "reverse", is_reversed) : NULL;
    PyObject *done = kwargs ? PyObject_Call(sort, args, kwargs) : NULL;
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(sort);
    Py_XDECREF(getitem);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* The words in their new order; every word exactly once, or its cell would have two owners. */
static dh_word *ordered_words(const sorting *s)
{
    dh_word *ordered = malloc((s->count + 1) * sizeof *ordered);
    char *seen = calloc(s->count + 1, 1);
    int is_sound = ordered && seen && PyList_Size(s->order) == (Py_ssize_t)s->count;
    for (size_t i = 0; is_sound && i < s->count; i++) {
        size_t from = PyLong_AsSize_t(PyList_GetItem(s->order, (Py_ssize_t)i));
        is_sound = from < s->count && !seen[from];
        if (is_sound) {
            seen[from] = 1;
            ordered[i] = s->words[from];
        }
    }
    if (!is_sound) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        free(ordered);
        ordered = NULL;
    }
    free(seen);
    return ordered;
}

/* Is the list still the one that was sorted? */
static int check_unchanged(const sorting *s, dhp_proxy *self)
{
    dh_word *now;
    size_t count;
    if (dhp_list_snapshot(self, &now, &count) < 0)
        return -1;
    int is_same = count == s->count && memcmp(now, s->words, count * sizeof *now) == 0;
    free(now);
    if (is_same)
        return 0;
    PyErr_SetString(PyExc_ValueError, "list modified during sort");
    return -1;
}

/* Writes only words that differ: a sorted list stays clean. */
static int store_words(dhp_proxy *self, const dh_word *words, size_t count)
{
    uint64_t span;
    for (size_t i = 0; i < count;) {
        dh_word *slots = dh_list_slots(self->core->heap, self->handle.word, i, &span);
        if (slots == NULL || span == 0)
            return dhp_raise(self->core, DH_E_CORRUPT);
        for (size_t end = span < count - i ? i + span : count; i < end; i++, slots++)
            if (dh_load(slots) != words[i])
                dh_store(slots, words[i]);
    }
    return 0;
}

static int sort_list(dhp_proxy *self, PyObject *key, int is_reversed)
{
    sorting s;
    dh_word *ordered = NULL;
    int rc = sorting_begin(&s, self);
    if (rc == 0 && key != Py_None)
        rc = sorting_call_key(&s, key);
    if (rc == 0)
        rc = sorting_run(&s, is_reversed);
    if (rc == 0) {
        ordered = ordered_words(&s);
        rc = ordered != NULL && dhp_word_for_store(self) != 0 ? check_unchanged(&s, self) : -1;
    }
    if (rc == 0)
        rc = store_words(self, ordered, s.count);
    free(ordered);
    sorting_finish(&s);
    return rc;
}

const char dhp_list_sort_doc[] =
    "sort($self, /, *, key=None, reverse=False)\n--\n\n"
    "Sort in place, stably, as list.sort does. O(len log len); writes only what moves.\n\n"
    "Raises ValueError when the list was changed meanwhile, by key or a comparison; then, and "
    "after\n"
    "any other exception, it keeps its order.";
PyObject *dhp_list_sort(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "reverse", NULL};
    PyObject *key = Py_None;
    int is_reversed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$Op:sort", names, &key, &is_reversed) ||
        dhp_word_for_store((dhp_proxy *)obj) == 0 ||
        sort_list((dhp_proxy *)obj, key, is_reversed) < 0)
        return NULL;
    Py_RETURN_NONE;
}
