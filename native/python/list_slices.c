/* list_slices.c -- item and slice access of a List, and what is built from splices.
 *
 * A slice names positions, and positions are worth nothing after Python code ran: bounds are
 * unpacked and values converted first, the length is read last.
 */
#include "state.h"

#include <stdlib.h>

/* --- words to insert -------------------------------------------------------------------------- */

static dh_word *words_new(size_t count)
{
    dh_word *words = count < SIZE_MAX / sizeof *words ? malloc((count + 1) * sizeof *words) : NULL;
    if (words == NULL)
        PyErr_NoMemory();
    return words;
}

int dhp_list_snapshot(dhp_proxy *self, dh_word **words_out, size_t *count_out)
{
    Py_ssize_t length = dhp_list_length((PyObject *)self);
    dh_word *words = length >= 0 ? words_new((size_t)length) : NULL;
    uint64_t i = 0, span;
    if (words == NULL)
        return -1;
    while (i < (uint64_t)length) {
        const dh_word *from = dh_list_span(self->core->heap, self->handle.word, i, &span);
        if (from == NULL || span == 0) {
            free(words);
            return dhp_raise(self->core, DH_E_CORRUPT);
        }
        for (uint64_t end = span < (uint64_t)length - i ? i + span : (uint64_t)length; i < end;)
            words[i++] = dh_load(from++);
    }
    *words_out = words;
    *count_out = (size_t)length;
    return 0;
}

/* Make words[from + i] a clone of words[i % period], for i < count. All or nothing. */
static int clone_words(dhp_core *core, dh_word *words, size_t period, size_t from, size_t count)
{
    int rc = 0;
    dh_journal_begin(core->heap);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = dh_value_clone(core->heap, words[i % period], &words[from + i]);
    if (rc == 0) {
        dh_journal_commit(core->heap);
        return 0;
    }
    dh_journal_abort(core->heap);
    return dhp_raise(core, rc);
}

static int words_from_list(dhp_core *core, dhp_proxy *list, dh_word **words_out, size_t *count_out)
{
    if (dhp_list_snapshot(list, words_out, count_out) < 0)
        return -1;
    if (clone_words(core, *words_out, *count_out, 0, *count_out) == 0)
        return 0;
    free(*words_out);
    return -1;
}

/* A plain list of what an iterable gives. Not PySequence_List: that believes a __length_hint__, and a
 * wrong one ends in a MemoryError. */
static PyObject *elements_of(PyObject *iterable)
{
    PyObject *iterator = PyObject_GetIter(iterable), *element;
    PyObject *elements = iterator != NULL ? PyList_New(0) : NULL;
    while (elements != NULL && (element = PyIter_Next(iterator)) != NULL) {
        if (PyList_Append(elements, element) < 0)
            Py_CLEAR(elements);
        Py_DECREF(element);
    }
    Py_XDECREF(iterator);
    if (elements != NULL && PyErr_Occurred())
        Py_CLEAR(elements);
    return elements;
}

int dhp_list_words(dhp_core *core, PyObject *iterable, dh_word **words_out, size_t *count_out,
                   PyObject **keep_out)
{
    PyTypeObject *type = Py_TYPE(iterable);
    *keep_out = NULL;
    if ((type == core->state->list_type || type == core->state->deque_type) &&
        ((dhp_proxy *)iterable)->core == core)
        return words_from_list(core, (dhp_proxy *)iterable, words_out, count_out);
    PyObject *plain = PyList_CheckExact(iterable) || PyTuple_CheckExact(iterable)
                          ? Py_NewRef(iterable)
                          : elements_of(iterable);
    int rc = -1;
    if (plain != NULL && core->heap == NULL) /* the iterable may have closed it */
        rc = dhp_raise_named(core->state, "HeapClosedError", "the heap is closed");
    else if (plain != NULL)
        rc = dhp_words_from_sequence(core, plain, words_out, count_out);
    if (rc == 0)
        *keep_out = plain;
    else
        Py_XDECREF(plain);
    return rc;
}

/* Takes the words over, the array not. */
int dhp_list_splice(dhp_proxy *self, Py_ssize_t start, Py_ssize_t removed, dh_word *words,
                    size_t count)
{
    dh_word list = dhp_word_for_store(self);
    if (list == 0) /* Python code ran: the new words are left to the collector */
        return -1;
    int rc =
        dh_list_splice(self->core->heap, list, (uint64_t)start, (uint64_t)removed, words, count);
    if (rc == 0)
        return 0;
    dhp_words_drop(self->core, words, count);
    return dhp_raise(self->core, rc);
}

int dhp_list_extend(dhp_proxy *self, PyObject *iterable)
{
    dh_word *words;
    size_t count;
    PyObject *keep;
    if (dhp_word_for_store(self) == 0 ||
        dhp_list_words(self->core, iterable, &words, &count, &keep) < 0)
        return -1;
    Py_ssize_t length = dhp_list_length((PyObject *)self);
    int rc = length < 0 ? -1 : dhp_list_splice(self, length, 0, words, count);
    Py_XDECREF(keep);
    free(words);
    return rc;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* With Python's collector paused. */
static PyObject *slice_copy(dhp_proxy *self, Py_ssize_t start, Py_ssize_t step, Py_ssize_t count)
{
    PyObject *copy = PyList_New(count);
    for (Py_ssize_t i = 0; copy != NULL && i < count; i++) {
        dh_word word;
        int rc =
            dh_list_get(self->core->heap, self->handle.word, (uint64_t)(start + i * step), &word);
        if (rc != 0)
            dhp_raise(self->core, rc);
        PyObject *item = rc == 0 ? dhp_raw_from(self->core, word) : NULL;
        if (item == NULL || PyList_SetItem(copy, i, item) < 0)
            Py_CLEAR(copy);
    }
    return copy;
}

static PyObject *slice_get(dhp_proxy *self, PyObject *slice)
{
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0)
        return NULL;
    PyObject *copy = NULL;
    uint64_t count_before = self->core->placeholders_count;
    int was_enabled = dhp_gc_pause();
    Py_ssize_t length = dhp_list_length((PyObject *)self);
    if (length >= 0)
        copy = slice_copy(self, start, step, PySlice_AdjustIndices(length, &start, &stop, step));
    dhp_gc_resume(was_enabled);
    return dhp_resolve_inside(self->core, count_before, copy);
}

/* An index object's number; may run Python code. */
static int index_of(PyObject *item, Py_ssize_t *index_out)
{
    if (!PyIndex_Check(item)) {
        PyObject *name = PyType_GetName(Py_TYPE(item));
        if (name != NULL)
            PyErr_Format(PyExc_TypeError, "list indices must be integers or slices, not %U", name);
        Py_XDECREF(name);
        return -1;
    }
    *index_out = PyNumber_AsSsize_t(item, PyExc_IndexError);
    return *index_out == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Count a negative index from the end; still negative when there is no such place. */
static int index_from_start(dhp_proxy *self, Py_ssize_t *index)
{
    if (DH_LIKELY(*index >= 0))
        return 0;
    Py_ssize_t length = dhp_list_length((PyObject *)self);
    *index += length;
    return length < 0 ? -1 : 0;
}

static int out_of_range(void)
{
    PyErr_SetString(PyExc_IndexError, "list assignment index out of range");
    return -1;
}

PyObject *dhp_list_subscript(PyObject *obj, PyObject *item)
{
    if (DH_LIKELY(PyLong_CheckExact(item))) {
        int overflow;
        long long index = PyLong_AsLongLongAndOverflow(item, &overflow);
        if (DH_LIKELY(index >= 0 && overflow == 0))
            return dhp_list_item(obj, (Py_ssize_t)index);
    } else if (PySlice_Check(item)) {
        return slice_get((dhp_proxy *)obj, item);
    }
    Py_ssize_t index;
    if (index_of(item, &index) < 0 || index_from_start((dhp_proxy *)obj, &index) < 0)
        return NULL;
    return dhp_list_item(obj, index);
}

/* --- writing ---------------------------------------------------------------------------------- */

static int item_set(dhp_proxy *self, PyObject *item, PyObject *value)
{
    Py_ssize_t index;
    dh_word word, list;
    if (index_of(item, &index) < 0 || dhp_word_for_store(self) == 0 ||
        dhp_word_from(self->core, value, &word) < 0 || index_from_start(self, &index) < 0 ||
        (list = dhp_word_for_store(self)) == 0)
        return -1;
    int rc = index < 0 ? DH_E_ABSENT : dh_list_set(self->core->heap, list, (uint64_t)index, word);
    if (DH_LIKELY(rc == 0))
        return 0;
    dh_value_drop(self->core->heap, word);
    return rc == DH_E_ABSENT ? out_of_range() : dhp_raise(self->core, rc);
}

static int item_delete(dhp_proxy *self, PyObject *item)
{
    Py_ssize_t index;
    if (index_of(item, &index) < 0 || index_from_start(self, &index) < 0)
        return -1;
    Py_ssize_t length = dhp_list_length((PyObject *)self);
    if (length < 0)
        return -1;
    return index < 0 || index >= length ? out_of_range() : dhp_list_splice(self, index, 1, NULL, 0);
}

/* Drop every step-th value from start on; NONE stays in its place. */
static int drop_strided(dh_heap *heap, dh_word list, uint64_t start, uint64_t step, uint64_t count)
{
    uint64_t span;
    for (uint64_t i = 0; i < count; i++) {
        dh_word *slot = dh_list_slots(heap, list, start + i * step, &span);
        if (slot == NULL)
            return DH_E_CORRUPT;
        dh_word old = dh_load(slot);
        dh_store(slot, DH_NONE);
        dh_value_drop(heap, old);
    }
    return 0;
}

/* Drop every step-th value from start on, close the gaps, cut the tail off. step > 1. */
static int delete_strided(dh_heap *heap, dh_word list, uint64_t start, uint64_t step,
                          uint64_t count)
{
    uint64_t length, from_span = 0, to_span = 0, to = start;
    dh_word *from_slot = NULL, *to_slot = NULL;
    int rc = drop_strided(heap, list, start, step, count);
    if (rc == 0)
        rc = dh_list_length(heap, list, &length);
    if (rc != 0)
        return rc;
    for (uint64_t from = start; from < length; from++, from_slot++, from_span--) {
        if (from_span == 0)
            from_slot = dh_list_slots(heap, list, from, &from_span);
        if (from_slot == NULL)
            return DH_E_CORRUPT;
        if ((from - start) % step == 0 && (from - start) / step < count)
            continue;
        if (to_span == 0)
            to_slot = dh_list_slots(heap, list, to, &to_span);
        if (to_slot == NULL)
            return DH_E_CORRUPT;
        dh_store(to_slot++, dh_load(from_slot));
        dh_store(from_slot, DH_NONE); /* one owner */
        to_span--;
        to++;
    }
    return dh_list_splice(heap, list, to, length - to, NULL, 0);
}

static int slice_delete(dhp_proxy *self, Py_ssize_t start, Py_ssize_t step, Py_ssize_t count)
{
    if (count == 0)
        return dhp_word_for_store(self) != 0 ? 0 : -1;
    if (step < 0) {
        start += (count - 1) * step;
        step = -step;
    }
    if (step == 1)
        return dhp_list_splice(self, start, count, NULL, 0);
    dh_word list = dhp_word_for_store(self);
    if (list == 0)
        return -1;
    int rc =
        delete_strided(self->core->heap, list, (uint64_t)start, (uint64_t)step, (uint64_t)count);
    return rc == 0 ? 0 : dhp_raise(self->core, rc);
}

/* As many values as positions. */
static int slice_overwrite(dhp_proxy *self, Py_ssize_t start, Py_ssize_t step, dh_word *words,
                           size_t count)
{
    dh_word list = dhp_word_for_store(self);
    int rc = 0;
    size_t i = 0;
    if (list == 0)
        return -1;
    for (; rc == 0 && i < count; i++)
        rc =
            dh_list_set(self->core->heap, list, (uint64_t)(start + (Py_ssize_t)i * step), words[i]);
    if (rc == 0)
        return 0;
    dhp_words_drop(self->core, words + i - 1, count - i + 1);
    return dhp_raise(self->core, rc);
}

static int slice_set(dhp_proxy *self, PyObject *slice, PyObject *iterable)
{
    Py_ssize_t start, stop, step;
    dh_word *words;
    size_t count;
    PyObject *keep;
    int rc = -1;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0 || dhp_word_for_store(self) == 0)
        return -1;
    if (dhp_list_words(self->core, iterable, &words, &count, &keep) < 0)
        return -1;
    Py_ssize_t length = dhp_list_length((PyObject *)self);
    if (length >= 0) {
        Py_ssize_t places = PySlice_AdjustIndices(length, &start, &stop, step);
        if (step == 1) {
            rc = dhp_list_splice(self, start, places, words, count);
        } else if ((size_t)places == count) {
            rc = slice_overwrite(self, start, step, words, count);
        } else {
            dhp_words_drop(self->core, words, count);
            PyErr_Format(PyExc_ValueError,
                         "attempt to assign sequence of size %zu to extended slice of size %zd",
                         count, places);
        }
    }
    Py_XDECREF(keep);
    free(words);
    return rc;
}

int dhp_list_ass_subscript(PyObject *obj, PyObject *item, PyObject *value)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    Py_ssize_t start, stop, step;
    if (!PySlice_Check(item))
        return value != NULL ? item_set(self, item, value) : item_delete(self, item);
    if (value != NULL)
        return slice_set(self, item, value);
    if (PySlice_Unpack(item, &start, &stop, &step) < 0)
        return -1;
    Py_ssize_t length = dhp_list_length(obj);
    if (length < 0)
        return -1;
    Py_ssize_t count = PySlice_AdjustIndices(length, &start, &stop, step);
    return slice_delete(self, start, step, count);
}

/* --- + and * ---------------------------------------------------------------------------------- */

/* A plain list of a list or one of ours. */
static PyObject *plain_list_of(PyObject *obj)
{
    if (PyType_GetSlot(Py_TYPE(obj), Py_tp_richcompare) == (void *)dhp_list_richcompare)
        return dhp_list_copy((dhp_proxy *)obj);
    if (PyList_Check(obj))
        return PyList_GetSlice(obj, 0, PyList_Size(obj));
    PyObject *name = PyType_GetName(Py_TYPE(obj));
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "can only concatenate a list (not '%U') to a List", name);
    Py_XDECREF(name);
    return NULL;
}

PyObject *dhp_list_concat(PyObject *left, PyObject *right)
{
    PyObject *mine = plain_list_of(left), *result = NULL;
    PyObject *theirs = mine != NULL ? plain_list_of(right) : NULL;
    if (theirs != NULL)
        result = PySequence_Concat(mine, theirs);
    Py_XDECREF(theirs);
    Py_XDECREF(mine);
    return result;
}

PyObject *dhp_list_repeat(PyObject *self, Py_ssize_t times)
{
    PyObject *copy = dhp_list_copy((dhp_proxy *)self);
    PyObject *result = copy ? PySequence_Repeat(copy, times) : NULL;
    Py_XDECREF(copy);
    return result;
}

static int append_repeats(dhp_proxy *self, size_t times)
{
    dh_word *words, *bigger;
    size_t count;
    if (dhp_list_snapshot(self, &words, &count) < 0)
        return -1;
    if (count > self->core->heap->arena.capacity_pages * DH_PAGE_WORDS / times) {
        free(words);
        return dhp_raise(self->core, DH_E_FULL);
    }
    bigger = realloc(words, (count * times + 1) * sizeof *words);
    if (bigger == NULL) {
        free(words);
        PyErr_NoMemory();
        return -1;
    }
    int rc = clone_words(self->core, bigger, count, count, count * (times - 1));
    if (rc == 0)
        rc = dhp_list_splice(self, (Py_ssize_t)count, 0, bigger + count, count * (times - 1));
    free(bigger);
    return rc;
}

PyObject *dhp_list_inplace_repeat(PyObject *obj, Py_ssize_t times)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    Py_ssize_t length = dhp_list_length(obj);
    dh_word list = dhp_word_for_store(self);
    int rc = 0;
    if (length < 0 || list == 0)
        return NULL;
    if (times <= 0)
        rc = dhp_list_splice(self, 0, length, NULL, 0);
    else if (times > 1 && length > 0)
        rc = append_repeats(self, (size_t)times);
    return rc == 0 ? Py_NewRef(obj) : NULL;
}
