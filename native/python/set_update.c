/* set_update.c -- changing a Set by whole sets and iterables: all or nothing.
 *
 * Three steps. (1) Everything that can run Python code: list the elements of the iterables, find out
 * which elements of the set they equal. (2) With Python's collector paused: add; this can run out of
 * capacity, and is undone by removing what was added. (3) Remove, which needs no memory. Where the
 * others are Sets of the same heap the core does it all.
 */
#include "state.h"

#include <stdlib.h>

/* --- steps 2 and 3 ---------------------------------------------------------------------------- */

/* Beside codes of the core: an exception is set; no heap can hold the element. */
enum { RAISED = -1000, REFUSED = -1001 };

static int add_element(dhp_core *core, dh_word set, PyObject *element, dhp_packing *packing,
                       bool *was_new_out)
{
    dhp_key key;
    dh_word word;
    *was_new_out = false;
    int ready = dhp_key_init_plain(core, element, packing, &key);
    if (ready != DHP_KEY_READY)
        return ready < 0 ? RAISED : REFUSED;
    bool is_other_form = PyBool_Check(element) || PyFloat_CheckExact(element) || key.is_packed;
    int rc =
        dh_set_add(core->heap, set, &key.key, is_other_form ? DH_EMPTY : key.key.word, was_new_out);
    if (rc == DH_E_ABSENT) {
        rc = dhp_word_with(core, element, packing, &word) == 0 ? 0 : RAISED;
        if (rc == 0) {
            rc = dh_set_add(core->heap, set, &key.key, word, was_new_out);
            if (rc != 0)
                dh_value_drop(core->heap, word);
        }
    }
    dhp_key_finish(&key);
    return rc;
}

/* Making an exception may have run anything: undo only what is still there, as it was left. */
static void undo_adds(dhp_proxy *self, uint64_t version, uint64_t count)
{
    uint64_t now;
    dh_word set = self->handle.word;
    if (set != 0 && dh_set_version(self->core->heap, set, &now) == 0 && now == version)
        dh_set_undo_adds(self->core->heap, set, count);
}

/* Add the elements of a plain list, which nobody else has. With Python's collector paused. 0,
 * DHP_RETRY: nothing was added, packed forms are missing; -1. */
static int add_listed(dhp_proxy *self, PyObject *elements, dhp_packing *packing)
{
    dhp_core *core = self->core;
    dh_word set = dhp_word_for_store(self);
    Py_ssize_t count = PyList_Size(elements);
    uint64_t added_count = 0, version = 0;
    PyObject *element = NULL;
    if (set == 0)
        return -1;
    int rc = dh_set_reserve(core->heap, set, (uint64_t)count);
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        bool was_new = false;
        element = PyList_GetItem(elements, i);
        rc = dh_set_version(core->heap, set, &version);
        if (rc == 0)
            rc = add_element(core, set, element, packing, &was_new);
        added_count += rc == 0 && was_new;
    }
    if (rc == 0)
        return 0;
    undo_adds(self, version, added_count);
    if (rc == REFUSED && dhp_packing_lacks(core, packing, element))
        return DHP_RETRY;
    return rc == RAISED ? -1 : rc == REFUSED ? dhp_set_refuse(element) : dhp_raise(core, rc);
}

/* Take the elements out that a plain set has, which are the set's own. The same; all packed forms are
 * there. */
static int remove_all(dhp_proxy *self, PyObject *victims, const dhp_packing *packing)
{
    dh_word set = dhp_word_for_store(self);
    PyObject *victim, *iter = set != 0 ? PyObject_GetIter(victims) : NULL;
    int rc = iter != NULL ? 0 : RAISED;
    while (rc == 0 && (victim = PyIter_Next(iter)) != NULL) {
        dhp_key key;
        int ready = dhp_key_init_plain(self->core, victim, packing, &key);
        rc = ready < 0 ? RAISED : DH_E_ABSENT;
        if (ready == DHP_KEY_READY) {
            rc = dh_set_remove(self->core->heap, set, &key.key);
            dhp_key_finish(&key);
        }
        if (rc == DH_E_ABSENT) /* gone already, by Python code in step 1 */
            rc = 0;
        Py_DECREF(victim);
    }
    Py_XDECREF(iter);
    return rc == 0 ? 0 : rc == RAISED ? -1 : dhp_raise(self->core, rc);
}

static int change_with(dhp_proxy *self, PyObject *additions, PyObject *victims,
                       dhp_packing *packing)
{
    int was_enabled = dhp_gc_pause();
    int rc = additions != NULL ? add_listed(self, additions, packing) : 0;
    if (rc == 0 && victims != NULL)
        rc = remove_all(self, victims, packing);
    dhp_gc_resume(was_enabled);
    return rc;
}

/* Add, then remove. Either may be NULL. Packers run before anything is stored. */
static int change(dhp_proxy *self, PyObject *additions, PyObject *victims)
{
    dhp_packing packing = {0};
    int rc = victims != NULL ? dhp_packing_gather(self->core, &packing, victims) : 0;
    if (rc == 0)
        rc = change_with(self, additions, victims, &packing);
    while (rc == DHP_RETRY)
        rc = dhp_packing_gather(self->core, &packing, additions) < 0
                 ? -1
                 : change_with(self, additions, victims, &packing);
    dhp_packing_finish(self->core, &packing);
    return rc;
}

/* --- step 1 ----------------------------------------------------------------------------------- */

/* Append what an iterable gives to a list. Not list.extend: that believes a __length_hint__. */
static int list_elements(PyObject *elements, PyObject *iterable)
{
    PyObject *element, *iter = PyObject_GetIter(iterable);
    int rc = iter != NULL ? 0 : -1;
    while (rc == 0 && (element = PyIter_Next(iter)) != NULL) {
        rc = PyList_Append(elements, element);
        Py_DECREF(element);
    }
    Py_XDECREF(iter);
    return rc == 0 && PyErr_Occurred() ? -1 : rc;
}

/* One Set of the same heap: the core does it all. */
static int change_by_set(dhp_proxy *self, PyObject *other,
                         int (*work)(dh_heap *, dh_word set, dh_word other))
{
    dh_word set = dhp_word_for_store(self), other_set = set ? dhp_word((dhp_proxy *)other) : 0;
    if (other_set == 0)
        return -1;
    int rc = work(self->core->heap, set, other_set);
    return rc == 0 ? 0 : dhp_raise(self->core, rc);
}

int dhp_set_update(dhp_proxy *self, PyObject *const *others, Py_ssize_t count)
{
    if (dhp_word_for_store(self) == 0)
        return -1;
    if (count == 1 && dhp_is_set_here(self->core, others[0]))
        return change_by_set(self, others[0], dh_set_merge);
    PyObject *elements = PyList_New(0);
    int rc = elements != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++)
        rc = list_elements(elements, others[i]);
    if (rc == 0)
        rc = change(self, elements, NULL);
    Py_XDECREF(elements);
    return rc;
}

static int keep_set(dh_heap *heap, dh_word set, dh_word other)
{
    return dh_set_subtract(heap, set, other, false);
}

static int take_out_set(dh_heap *heap, dh_word set, dh_word other)
{
    return dh_set_subtract(heap, set, other, true);
}

int dhp_set_keep(dhp_proxy *self, PyObject *const *others, Py_ssize_t count)
{
    if (dhp_word_for_store(self) == 0)
        return -1;
    if (count == 1 && dhp_is_set_here(self->core, others[0]))
        return change_by_set(self, others[0], keep_set);
    PyObject *kept = dhp_set_intersection((PyObject *)self, others, count);
    PyObject *victims = kept != NULL ? dhp_set_copy(self) : NULL;
    PyObject *done =
        victims != NULL ? PyObject_CallMethod(victims, "difference_update", "(O)", kept) : NULL;
    int rc = done != NULL ? change(self, NULL, victims) : -1;
    Py_XDECREF(done);
    Py_XDECREF(victims);
    Py_XDECREF(kept);
    return rc;
}

int dhp_set_take_out(dhp_proxy *self, PyObject *const *others, Py_ssize_t count)
{
    if (dhp_word_for_store(self) == 0)
        return -1;
    if (count == 1 && dhp_is_set_here(self->core, others[0]))
        return change_by_set(self, others[0], take_out_set);
    PyObject *elements = PyList_New(0);
    int rc = elements != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++)
        rc = list_elements(elements, others[i]);
    PyObject *victims = rc == 0 ? dhp_set_common(self, elements) : NULL;
    rc = victims != NULL ? change(self, NULL, victims) : -1;
    Py_XDECREF(victims);
    Py_XDECREF(elements);
    return rc;
}

/* What the set has of other's elements, and a list of the others. */
static int split(dhp_proxy *self, PyObject *other, PyObject **victims_out, PyObject *additions)
{
    PyObject *element, *iter = PyObject_GetIter(other);
    int rc = iter != NULL ? 0 : -1;
    while (rc == 0 && (element = PyIter_Next(iter)) != NULL) {
        rc = dhp_set_contains((PyObject *)self, element);
        if (rc >= 0)
            rc = rc == 0 ? PyList_Append(additions, element) : 0;
        Py_DECREF(element);
    }
    Py_XDECREF(iter);
    *victims_out = rc == 0 && !PyErr_Occurred() ? dhp_set_common(self, other) : NULL;
    return *victims_out != NULL ? 0 : -1;
}

int dhp_set_toggle(dhp_proxy *self, PyObject *other)
{
    if (dhp_word_for_store(self) == 0)
        return -1;
    if (dhp_is_set_here(self->core, other))
        return change_by_set(self, other, dh_set_toggle);
    /* What an iterable gives twice counts once; a dict keeps the order. */
    PyObject *once = PyDict_New(), *additions = PyList_New(0), *victims = NULL;
    PyObject *element, *iter = PyObject_GetIter(other);
    int rc = once != NULL && additions != NULL && iter != NULL ? 0 : -1;
    while (rc == 0 && (element = PyIter_Next(iter)) != NULL) {
        rc = PyDict_SetItem(once, element, Py_None);
        Py_DECREF(element);
    }
    if (rc == 0 && !PyErr_Occurred() && split(self, once, &victims, additions) == 0)
        rc = change(self, additions, victims);
    else
        rc = -1;
    Py_XDECREF(iter);
    Py_XDECREF(victims);
    Py_XDECREF(additions);
    Py_XDECREF(once);
    return rc;
}
