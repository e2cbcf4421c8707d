/* convert_copy.c -- copies of plain containers, with what is in them.
 *
 * Exact built-in types only: no subclass can bring its own __iter__ or __eq__. What is met twice is
 * copied once. The cells belong to the journal that the conversion opened; a failure here takes
 * nothing back by itself.
 */
#include "convert.h"

#include <stdlib.h>

/* --- the memo --------------------------------------------------------------------------------- */

static uint64_t memo_key(PyObject *obj) { return (uint64_t)(uintptr_t)obj; }

static int memo_add(dhp_conversion *c, PyObject *obj, dh_word word)
{
    /* Who has one reference in all has one slot that leads to it, and is not met again. */
    if (Py_REFCNT(obj) == 1 && c->shared_tuples == 0)
        return 0;
    int rc = dhp_memo_add(&c->memo, memo_key(obj), word);
    return rc == 0 ? 0 : dhp_stop_with_code(c, rc);
}

/* --- copies ----------------------------------------------------------------------------------- */

static int copy_tuple(dhp_conversion *c, PyObject *tuple, dh_word *word_out)
{
    size_t count = (size_t)PyTuple_Size(tuple);
    dh_word *words = malloc((count + 1) * sizeof *words);
    int is_shared = Py_REFCNT(tuple) > 1;
    int rc = words != NULL ? 0 : dhp_stop_with_code(c, ENOMEM);

    c->shared_tuples += is_shared;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = dhp_convert_any(c, PyTuple_GetItem(tuple, (Py_ssize_t)i), &words[i]);
        if (rc != 0)
            dhp_note_index(c, (Py_ssize_t)i);
    }
    c->shared_tuples -= is_shared;
    if (rc == 0) {
        rc = dh_tuple_new(c->core->heap, words, count, word_out);
        if (rc != 0)
            rc = dhp_stop_with_code(c, rc);
    }
    free(words);
    if (rc != 0 || dhp_memo_find(&c->memo, memo_key(tuple)) != DH_EMPTY)
        return rc; /* met again below itself, through a list or dict: that copy is remembered */
    return memo_add(c, tuple, *word_out);
}

/* An element of a set. One that is refused, itself and not for something in it, is said to be one. */
static int word_from_element(dhp_conversion *c, PyObject *element, dh_word *word_out)
{
    if (dhp_convert_any(c, element, word_out) == 0)
        return 0;
    if (c->fail == DHP_FAIL_TYPE && c->culprit == element)
        c->fail = DHP_FAIL_ELEMENT;
    return -1;
}

/* What an exact frozenset holds can be hashed: no containers but records, which are linked. */
static int copy_frozenset(dhp_conversion *c, PyObject *frozenset, dh_word *word_out)
{
    size_t count = (size_t)PySet_Size(frozenset), i = 0;
    dh_word *words = malloc((count + 1) * sizeof *words);
    PyObject *element, *iter = words != NULL ? PyObject_GetIter(frozenset) : NULL;
    int is_shared = Py_REFCNT(frozenset) > 1;
    int rc = words == NULL ? dhp_stop_with_code(c, ENOMEM) : iter == NULL ? dhp_stop_raised(c) : 0;

    c->shared_tuples += is_shared;
    while (rc == 0 && i < count && (element = PyIter_Next(iter)) != NULL) {
        rc = word_from_element(c, element, &words[i]);
        if (rc == 0 && dh_is_container(words[i]) && !dh_is_ref_to(words[i], DH_T_RECORD))
            rc = dhp_stop_with(c, DHP_FAIL_ELEMENT, element); /* a packer may give one */
        i++;
        Py_DECREF(element);
    }
    c->shared_tuples -= is_shared;
    Py_XDECREF(iter);
    if (rc == 0) {
        rc = dh_frozenset_new(c->core->heap, words, i, word_out);
        if (rc != 0)
            rc = dhp_stop_with_code(c, rc);
    }
    free(words);
    return rc != 0 ? rc : memo_add(c, frozenset, *word_out);
}

static int copy_element(dhp_conversion *c, dh_word copy, PyObject *element)
{
    dh_word word;
    dhp_key key;
    bool was_new;
    int ready = dhp_key_init_plain(c->core, element, c->packing, &key);
    if (ready < 0)
        return dhp_stop_raised(c);
    int rc = word_from_element(c, element, &word);
    if (ready == DHP_KEY_NONE) /* then the copy has failed, too, and knows what in it is refused */
        return rc != 0 ? rc : dhp_stop_with(c, DHP_FAIL_ELEMENT, element);
    if (rc == 0) {
        rc = dh_set_add(c->core->heap, copy, &key.key, word, &was_new);
        if (rc != 0)
            rc = dhp_stop_with_code(c, rc);
        else if (!was_new && !dh_is_items(word)) /* two NaNs: as in copy_entry */
            dh_value_drop(c->core->heap, word);
    }
    dhp_key_finish(&key);
    return rc;
}

static int copy_set(dhp_conversion *c, PyObject *set, dh_word *word_out)
{
    dh_heap *heap = c->core->heap;
    dh_word copy;
    int rc = dh_set_new(heap, &copy);
    if (rc == 0)
        rc = dh_set_reserve(heap, copy, (uint64_t)PySet_Size(set));
    if (rc != 0)
        return dhp_stop_with_code(c, rc);
    if (memo_add(c, set, copy) < 0)
        return -1;
    PyObject *element, *iter = PyObject_GetIter(set);
    rc = iter != NULL ? 0 : dhp_stop_raised(c);
    while (rc == 0 && (element = PyIter_Next(iter)) != NULL) {
        rc = copy_element(c, copy, element);
        Py_DECREF(element);
    }
    Py_XDECREF(iter);
    *word_out = copy;
    return rc;
}

static int copy_list(dhp_conversion *c, PyObject *list, dh_word *word_out)
{
    dh_heap *heap = c->core->heap;
    dh_word copy;
    int rc = dh_list_new(heap, &copy);
    if (rc != 0)
        return dhp_stop_with_code(c, rc);
    if (memo_add(c, list, copy) < 0)
        return -1;
    Py_ssize_t count = PyList_Size(list);
    for (Py_ssize_t i = 0; i < count; i++) {
        dh_word item;
        if (dhp_convert_any(c, PyList_GetItem(list, i), &item) < 0) {
            dhp_note_index(c, i);
            return -1;
        }
        rc = dh_list_append(heap, copy, item);
        if (rc != 0)
            return dhp_stop_with_code(c, rc);
    }
    *word_out = copy;
    return 0;
}

/* The elements are listed first: there is no other way to them without an iterator. */
static int fill_deque(dhp_conversion *c, PyObject *deque, dh_word copy)
{
    PyObject *elements = PySequence_List(deque);
    Py_ssize_t count = elements != NULL ? PyList_Size(elements) : -1;
    int rc = count < 0 ? dhp_stop_raised(c) : 0;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        dh_word item;
        rc = dhp_convert_any(c, PyList_GetItem(elements, i), &item);
        if (rc != 0)
            dhp_note_index(c, i);
        else if ((rc = dh_list_append(c->core->heap, copy, item)) != 0)
            rc = dhp_stop_with_code(c, rc);
    }
    Py_XDECREF(elements);
    return rc;
}

static int copy_deque(dhp_conversion *c, PyObject *deque, dh_word *word_out)
{
    PyObject *maxlen_obj = PyObject_GetAttrString(deque, "maxlen");
    uint64_t maxlen = DH_DEQUE_UNBOUNDED;
    if (maxlen_obj != NULL && maxlen_obj != Py_None)
        maxlen = PyLong_AsUnsignedLongLong(maxlen_obj);
    Py_XDECREF(maxlen_obj);
    if (PyErr_Occurred())
        return dhp_stop_raised(c);
    int rc = dh_deque_new(c->core->heap, maxlen, word_out);
    if (rc != 0)
        return dhp_stop_with_code(c, rc);
    return memo_add(c, deque, *word_out) < 0 ? -1 : fill_deque(c, deque, *word_out);
}

/* One entry of a plain dict into the copy. */
static int copy_entry(dhp_conversion *c, dh_word copy, PyObject *key_obj, PyObject *value_obj)
{
    dh_word key_word, value;
    dhp_key key;
    bool was_new;

    if (dhp_convert_any(c, value_obj, &value) < 0) {
        dhp_note_place(c, key_obj);
        return -1;
    }
    int ready = dhp_key_init_plain(c->core, key_obj, c->packing, &key);
    if (ready == DHP_KEY_NONE)
        return dhp_stop_with(
            c, dhp_packing_lacks(c->core, c->packing, key_obj) ? DHP_FAIL_UNPACKED : DHP_FAIL_KEY,
            key_obj);
    if (ready < 0)
        return dhp_stop_raised(c);
    if (key.key.tag == 's' && !key.is_packed) {
        int stored = dh_dict_set_str(c->core->heap, copy, &key.key, value);
        dhp_key_finish(&key);
        return stored == 0 ? 0 : dhp_stop_with_code(c, stored);
    }
    int rc = dhp_convert_any(c, key_obj, &key_word);
    if (rc == 0) {
        rc = dh_dict_set(c->core->heap, copy, &key.key, key_word, value, &was_new);
        if (rc != 0)
            rc = dhp_stop_with_code(c, rc);
        else if (!was_new && !dh_is_items(key_word)) /* two NaNs: differ to Python, not to us; a
            tuple may stand in the memo and is left to the collector */
            dh_value_drop(c->core->heap, key_word);
    }
    dhp_key_finish(&key);
    return rc;
}

/* Where in the dict a conversion stopped. */
static void note_number(dhp_conversion *c, PyObject *dict, Py_ssize_t number)
{
    PyObject *key = NULL, *value;
    Py_ssize_t position = 0;
    while (number-- >= 0 && PyDict_Next(dict, &position, &key, &value))
        ;
    if (key != NULL)
        dhp_note_place(c, key);
}

/* All values of a plain dict, which come in its order. */
int dhp_convert_values(dhp_conversion *c, PyObject *dict, PyObject *const *values, dh_word *words)
{
    Py_ssize_t count = PyDict_Size(dict);
    for (Py_ssize_t i = 0; i < count; i++)
        if (dhp_convert_any(c, values[i], &words[i]) < 0) {
            note_number(c, dict, i);
            return -1;
        }
    return 0;
}

/* A dict whose keys are known as a shape. The arena never moves, and nobody sees the copy before it
 * is complete: the values are made where they stay. */
static int copy_shaped(dhp_conversion *c, PyObject *dict, PyObject *const *values, dh_word shape,
                       dh_word *word_out)
{
    dh_word *words;
    int rc = dh_dict_new_shaped(c->core->heap, shape, word_out, &words);
    if (rc != 0)
        return dhp_stop_with_code(c, rc);
    return memo_add(c, dict, *word_out) < 0 ? -1 : dhp_convert_values(c, dict, values, words);
}

static int copy_dict(dhp_conversion *c, PyObject *dict, dh_word *word_out)
{
    dh_heap *heap = c->core->heap;
    PyObject *values[DH_SHAPE_KEYS_MAX];
    dh_word shape = dhp_shape_of_dict(c->core, dict, values);
    if (shape != DH_EMPTY)
        return copy_shaped(c, dict, values, shape, word_out);
    PyObject *key, *value;
    Py_ssize_t position = 0;
    dh_word copy;
    int rc = dh_dict_new(heap, &copy);
    if (rc == 0)
        rc = dh_dict_reserve(heap, copy, (uint64_t)PyDict_Size(dict));
    if (rc != 0)
        return dhp_stop_with_code(c, rc);
    if (memo_add(c, dict, copy) < 0)
        return -1;
    while (PyDict_Next(dict, &position, &key, &value))
        if (copy_entry(c, copy, key, value) < 0)
            return -1;
    *word_out = copy;
    return 0;
}

static int copy_container(dhp_conversion *c, PyObject *obj, dh_word *word_out)
{
    PyTypeObject *type = Py_TYPE(obj);
    dh_word known = dhp_memo_find(&c->memo, memo_key(obj));
    if (known != DH_EMPTY) {
        if (dh_is_items(known))
            dh_tuple_share(c->core->heap, known);
        *word_out = known;
        return 0;
    }
    if (dhp_recursion_enter(" while a value is copied into a heap") != 0)
        return dhp_stop_raised(c);
    int rc = type == &PyDict_Type        ? copy_dict(c, obj, word_out)
             : type == &PyList_Type      ? copy_list(c, obj, word_out)
             : type == &PySet_Type       ? copy_set(c, obj, word_out)
             : type == &PyTuple_Type     ? copy_tuple(c, obj, word_out)
             : type == &PyFrozenSet_Type ? copy_frozenset(c, obj, word_out)
                                         : copy_deque(c, obj, word_out);
    dhp_recursion_leave();
    return rc;
}

int dhp_convert_any(dhp_conversion *c, PyObject *obj, dh_word *word_out)
{
    if (dhp_word_from_int(obj, word_out))
        return 0;
    int done = dhp_convert_scalar(c, obj, word_out);
    if (done != 0)
        return done > 0 ? 0 : -1;
    return copy_container(c, obj, word_out);
}
