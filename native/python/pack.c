/* pack.c -- packed forms: what packers, Python code, make of values that the core does not know.
 *
 * Conversion runs no Python code. When it meets a value without a word of its own it stops and is
 * undone; then, here, everything below the value that needs a packer is found in one walk and
 * packed; then conversion begins again with the table of packed forms. A packer may do anything
 * meanwhile, to the value and to the heap: what it changed is met by the next round, and rounds are
 * bounded. Must never be called between two stores.
 */
#include "state.h"

#include <stdlib.h>

#define PACKING_ROUNDS_MAX 16

/* --- who packs -------------------------------------------------------------------------------- */

/* Module dirtyheap.scalars and its tables, imported when first needed. */
static int scalars_load(dhp_state *state)
{
    if (state->packers != NULL)
        return 0;
    if (dhp_dates_load(state) < 0)
        return -1;
    PyObject *module = PyImport_ImportModule("dirtyheap.scalars");
    PyObject *lazy = module ? PyObject_GetAttrString(module, "lazy_packers") : NULL;
    PyObject *unpackers = lazy ? PyObject_GetAttrString(module, "unpackers") : NULL;
    PyObject *packers = unpackers ? PyObject_GetAttrString(module, "packers") : NULL;
    if (packers == NULL) {
        Py_XDECREF(unpackers);
        Py_XDECREF(lazy);
        Py_XDECREF(module);
        return -1;
    }
    dhp_replace(&state->scalars, module);
    dhp_replace(&state->lazy_packers, lazy);
    dhp_replace(&state->unpackers, unpackers);
    dhp_replace(&state->packers, packers);
    return 0;
}

PyObject *dhp_scalars(dhp_state *state) { return scalars_load(state) == 0 ? state->scalars : NULL; }

/* Ask whoever speaks for the module that the type is from; a new reference, NULL: nobody. */
static PyObject *lazy_packer(dhp_state *state, PyTypeObject *type)
{
    PyObject *module = PyObject_GetAttrString((PyObject *)type, "__module__");
    PyObject *finder = NULL, *packer = NULL;
    if (module == NULL)
        PyErr_Clear();
    else if (PyUnicode_CheckExact(module))
        finder = Py_XNewRef(PyDict_GetItemWithError(state->lazy_packers, module));
    if (finder != NULL)
        packer = PyObject_CallFunctionObjArgs(finder, (PyObject *)type, NULL);
    if (packer == Py_None)
        Py_CLEAR(packer);
    Py_XDECREF(finder);
    Py_XDECREF(module);
    return packer;
}

/* A new reference; NULL: none, with or without an exception. May run Python code. */
static PyObject *packer_of(dhp_state *state, PyObject *obj)
{
    if (scalars_load(state) < 0)
        return NULL;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject *packer = PyDict_GetItemWithError(state->packers, (PyObject *)type);
    if (packer != NULL)
        return Py_NewRef(packer);
    return PyErr_Occurred() ? NULL : lazy_packer(state, type);
}

int dhp_has_packer(dhp_core *core, PyObject *obj)
{
    PyObject *packer = packer_of(core->state, obj);
    Py_XDECREF(packer);
    return packer != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
}

/* (bytes or None, bytes), a container of a heap, or NotImplemented. */
static int is_form(dhp_core *core, PyObject *form)
{
    if (form == Py_NotImplemented || dhp_is_proxy(core->state, form))
        return 1;
    if (!PyTuple_CheckExact(form) || PyTuple_Size(form) != 2)
        return 0;
    PyObject *key = PyTuple_GetItem(form, 0), *payload = PyTuple_GetItem(form, 1);
    return (key == Py_None || (PyBytes_CheckExact(key) && PyBytes_Size(key) > 0)) &&
           PyBytes_CheckExact(payload) && PyBytes_Size(payload) > 0;
}

static PyObject *pack_object(dhp_core *core, PyObject *obj)
{
    PyObject *packer = packer_of(core->state, obj);
    if (packer == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_NotImplemented);
    PyObject *form = PyObject_CallFunctionObjArgs(packer, (PyObject *)core, obj, NULL);
    if (form != NULL && !is_form(core, form)) {
        PyErr_Format(PyExc_TypeError,
                     "the packer %R must return (key, payload), a container or NotImplemented, "
                     "not %R",
                     packer, form);
        Py_CLEAR(form);
    }
    Py_DECREF(packer);
    return form;
}

/* --- one walk --------------------------------------------------------------------------------- */

/* What is below a value: plain containers still to be looked into, objects that need a packer. */
typedef struct {
    dhp_core *core;
    const dhp_packing *packing;
    dhp_memo seen;     /* addresses of what was met more than once, perhaps */
    PyObject *pending; /* list */
    PyObject *found;   /* list */
} walk;

/* Needs neither a packer nor a look inside. */
static int is_leaf(dhp_core *core, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    dhp_date_form form;
    return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type ||
           obj == Py_None || type == &PyBool_Type || type == &PyBytes_Type ||
           dhp_is_proxy(core->state, obj) || dhp_date_pack(core->state, obj, &form);
}

static int is_plain_container(const dhp_core *core, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    return type == &PyTuple_Type || type == &PyList_Type || type == &PyDict_Type ||
           type == &PySet_Type || type == &PyFrozenSet_Type ||
           type == core->state->plain_deque_type;
}

static int walk_meet(walk *w, PyObject *obj)
{
    uint64_t address = (uint64_t)(uintptr_t)obj;
    if (is_leaf(w->core, obj) || dhp_packing_find(w->packing, obj) != NULL)
        return 0;
    if (Py_REFCNT(obj) > 1) {
        if (dhp_memo_find(&w->seen, address) != 0)
            return 0;
        if (dhp_memo_add(&w->seen, address, 1) != 0) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return PyList_Append(is_plain_container(w->core, obj) ? w->pending : w->found, obj);
}

static int walk_into(walk *w, PyObject *obj);

/* By way of a list of its elements, which it goes on to hold. */
static int walk_into_deque(walk *w, PyObject *deque)
{
    PyObject *elements = PySequence_List(deque);
    int rc = elements != NULL ? walk_into(w, elements) : -1;
    Py_XDECREF(elements);
    return rc;
}

static int walk_into_set(walk *w, PyObject *set)
{
    PyObject *element, *iter = PyObject_GetIter(set);
    int rc = iter != NULL ? 0 : -1;
    while (rc == 0 && (element = PyIter_Next(iter)) != NULL) {
        rc = walk_meet(w, element);
        Py_DECREF(element); /* the set holds it */
    }
    Py_XDECREF(iter);
    return rc;
}

static int walk_into(walk *w, PyObject *obj)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    if (PyDict_CheckExact(obj)) {
        while (PyDict_Next(obj, &position, &key, &value))
            if (walk_meet(w, key) < 0 || walk_meet(w, value) < 0)
                return -1;
        return 0;
    }
    if (PyAnySet_CheckExact(obj))
        return walk_into_set(w, obj);
    if (Py_TYPE(obj) == w->core->state->plain_deque_type)
        return walk_into_deque(w, obj);
    int is_list = PyList_CheckExact(obj);
    Py_ssize_t count = is_list ? PyList_Size(obj) : PyTuple_Size(obj);
    for (Py_ssize_t i = 0; i < count; i++)
        if (walk_meet(w, is_list ? PyList_GetItem(obj, i) : PyTuple_GetItem(obj, i)) < 0)
            return -1;
    return 0;
}

static PyObject *take_last(PyObject *list)
{
    Py_ssize_t last = PyList_Size(list) - 1;
    if (last < 0)
        return NULL;
    PyObject *obj = Py_NewRef(PyList_GetItem(list, last));
    if (PyList_SetSlice(list, last, last + 1, NULL) < 0)
        Py_CLEAR(obj);
    return obj;
}

/* A new list of the objects that need a packer, each once. Runs no Python code. */
static PyObject *find_unpacked(dhp_core *core, const dhp_packing *packing, PyObject *obj)
{
    walk w = {.core = core, .packing = packing};
    int was_enabled = dhp_gc_pause();
    w.pending = PyList_New(0);
    w.found = w.pending ? PyList_New(0) : NULL;
    int rc = w.found != NULL ? walk_meet(&w, obj) : -1;
    PyObject *next;
    while (rc == 0 && (next = take_last(w.pending)) != NULL) {
        rc = walk_into(&w, next);
        Py_DECREF(next); /* its parent, or the caller, holds it */
    }
    if (rc < 0 || PyErr_Occurred())
        Py_CLEAR(w.found);
    dhp_memo_finish(&w.seen);
    Py_XDECREF(w.pending);
    dhp_gc_resume(was_enabled);
    return w.found;
}

/* --- the table -------------------------------------------------------------------------------- */

PyObject *dhp_packing_find(const dhp_packing *packing, PyObject *obj)
{
    if (packing == NULL || packing->sources == NULL)
        return NULL;
    return (PyObject *)(uintptr_t)dhp_memo_find(&packing->forms, (uint64_t)(uintptr_t)obj);
}

int dhp_packing_lacks(dhp_core *core, const dhp_packing *packing, PyObject *obj)
{
    if (Py_TYPE(obj) == &PyFrozenSet_Type) {
        PyObject *elements = PySequence_Tuple(obj);
        int lacks_one = elements != NULL && dhp_packing_lacks(core, packing, elements);
        Py_XDECREF(elements);
        PyErr_Clear();
        return lacks_one;
    }
    if (!PyTuple_CheckExact(obj))
        return !is_leaf(core, obj) && !is_plain_container(core, obj) &&
               dhp_packing_find(packing, obj) == NULL;
    if (dhp_recursion_enter(" in a key of a heap's dict") != 0) {
        PyErr_Clear();
        return 0;
    }
    int lacks = 0;
    for (Py_ssize_t i = 0; !lacks && i < PyTuple_Size(obj); i++)
        lacks = dhp_packing_lacks(core, packing, PyTuple_GetItem(obj, i));
    dhp_recursion_leave();
    return lacks;
}

static int packing_add(dhp_packing *packing, PyObject *obj, PyObject *form)
{
    if (PyList_Append(packing->sources, obj) < 0)
        return -1;
    if (dhp_memo_add(&packing->forms, (uint64_t)(uintptr_t)obj, (uint64_t)(uintptr_t)form) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(form);
    return 0;
}

static int pack_found(dhp_core *core, dhp_packing *packing, PyObject *found)
{
    Py_ssize_t count = PyList_Size(found);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *obj = PyList_GetItem(found, i);
        PyObject *form = pack_object(core, obj);
        int rc = form != NULL ? packing_add(packing, obj, form) : -1;
        Py_XDECREF(form);
        if (rc < 0)
            return -1;
    }
    return 0;
}

int dhp_packing_gather(dhp_core *core, dhp_packing *packing, PyObject *obj)
{
    dhp_orphans_release(core);
    if (core->state->packers == NULL) /* C may pack some of them once it knows their types */
        return scalars_load(core->state);
    if (packing->rounds_count++ == PACKING_ROUNDS_MAX) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the value changed each time its parts were packed: a packer must leave it "
                        "alone");
        return -1;
    }
    if (packing->sources == NULL && (packing->sources = PyList_New(0)) == NULL)
        return -1;
    PyObject *found = find_unpacked(core, packing, obj);
    if (found == NULL)
        return -1;
    int rc = pack_found(core, packing, found);
    Py_DECREF(found);
    return rc;
}

/* Who dies now may run Python code, and words are in the air: let it die later. Packed bytes, and
 * containers without weak references, die quietly. */
static void let_go(dhp_core *core, PyObject *obj)
{
    int is_quiet = PyTuple_CheckExact(obj) ||
                   (dhp_is_proxy(core->state, obj) && ((dhp_proxy *)obj)->weakrefs == NULL);
    if (Py_REFCNT(obj) == 1 && !is_quiet) {
        if (core->orphans == NULL)
            core->orphans = PyList_New(0);
        if (core->orphans == NULL || PyList_Append(core->orphans, obj) < 0) {
            PyErr_Clear(); /* a leak rather than a word that nobody can trust */
            return;
        }
    }
    Py_DECREF(obj);
}

void dhp_packing_finish(dhp_core *core, dhp_packing *packing)
{
    if (packing->sources == NULL)
        return;
    int was_enabled = dhp_gc_pause();
    for (Py_ssize_t i = PyList_Size(packing->sources); i-- > 0;) {
        PyObject *obj = Py_NewRef(PyList_GetItem(packing->sources, i));
        PyList_SetSlice(packing->sources, i, i + 1, NULL);
        let_go(core, obj);
    }
    for (size_t i = 0; i < packing->forms.room; i++)
        if (packing->forms.items[i].key != 0)
            let_go(core, (PyObject *)(uintptr_t)packing->forms.items[i].value);
    dhp_memo_finish(&packing->forms);
    Py_CLEAR(packing->sources);
    dhp_gc_resume(was_enabled);
}

void dhp_orphans_release(dhp_core *core) { Py_CLEAR(core->orphans); }
