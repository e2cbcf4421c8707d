/* proxy.c -- the life of a container's Python object: made once, found again, dropped.
 *
 * The handle table of the core points at the handle inside the object: that makes the object a
 * root of the collector and gives identity. So an object must leave the table before anything of
 * it goes, and before weak references are told (their callbacks may look the container up again).
 * Proxies are not tracked by Python's collector: making one must never start it.
 */
#include "records.h"

/* A class made in Python is one that Python's collector knows, whatever its base. */
static bool is_collected(PyTypeObject *type)
{
    return (PyType_GetFlags(type) & Py_TPFLAGS_HAVE_GC) != 0;
}

/* Zeroed: a class may add members. Never tracked: a proxy holds nothing that leads back to it. */
static dhp_proxy *proxy_alloc(PyTypeObject *type)
{
    if (!is_collected(type))
        return (dhp_proxy *)PyType_GenericAlloc(type, 0);
    int was_enabled = dhp_gc_pause();
    PyObject *self = PyType_GenericAlloc(type, 0);
    if (self != NULL)
        PyObject_GC_UnTrack(self);
    dhp_gc_resume(was_enabled);
    return (dhp_proxy *)self;
}

static PyObject *proxy_new(dhp_core *core, dh_word word)
{
    PyTypeObject *type = core->state->types[dh_ref_type(word)];
    if (dh_is_ref_to(word, DH_T_RECORD)) {
        const dhp_stored_class *class = dhp_record_class(core, word);
        if (class == NULL)
            return NULL;
        type = class->type;
    }
    const dh_word *head = dh_deref(core->heap, word, dh_ref_type(word), DH_HEAD_BYTES);
    if (type == NULL || head == NULL || !dh_is_meta(dh_load(head))) {
        (void)dhp_raise_named(core->state, "HeapCorruptError",
                              "a container is damaged: there is no head where a reference leads");
        return NULL;
    }
    dhp_proxy *self = proxy_alloc(type);
    if (self == NULL)
        return NULL;
    self->handle.word = word;
    self->handle.serial = dh_meta_serial(dh_load(head));
    self->weakrefs = NULL;
    self->core = (dhp_core *)Py_NewRef((PyObject *)core);
    int rc = dh_handles_add(&core->heap->handles, &self->handle);
    if (rc != 0) {
        self->handle.word = 0; /* not in the table: dealloc must not remove it */
        Py_DECREF(self);
        dhp_raise(core, rc);
        return NULL;
    }
    return (PyObject *)self;
}

PyObject *dhp_proxy_get(dhp_core *core, dh_word word)
{
    dh_handle *handle = dh_handles_find(&core->heap->handles, word);
    if (handle == NULL)
        return proxy_new(core, word);
    if (handle->word != word) {
        (void)dhp_raise_named(core->state, "HeapCorruptError",
                              "two references of different types lead to one container");
        return NULL;
    }
    return Py_NewRef((PyObject *)dhp_proxy_of(handle));
}

PyObject *dhp_proxy_refuse_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    PyObject *name = PyType_GetName(type);
    if (name != NULL) {
        PyObject *verb = PyObject_CallMethod(name, "lower", NULL);
        if (verb != NULL)
            PyErr_Format(PyExc_TypeError,
                         "cannot create '%U' directly: it lives in a heap, use "
                         "heap.%U()",
                         name, verb);
        Py_XDECREF(verb);
        Py_DECREF(name);
    }
    return NULL;
}

/* getitem([plain], 0): needs nothing of this package to be read back, and keeps cycles as they are,
 * which a call of dict or list would not. */
static PyObject *proxy_reduce(PyObject *self, PyObject *protocol)
{
    (void)protocol;
    PyObject *plain = dhp_to_python(((dhp_proxy *)self)->core->state, self);
    PyObject *operators = plain != NULL ? PyImport_ImportModule("operator") : NULL;
    PyObject *getitem = operators != NULL ? PyObject_GetAttrString(operators, "getitem") : NULL;
    PyObject *reduced = getitem != NULL ? Py_BuildValue("O([O]i)", getitem, plain, 0) : NULL;
    Py_XDECREF(getitem);
    Py_XDECREF(operators);
    Py_XDECREF(plain);
    return reduced;
}

PyObject *dhp_proxy_deepcopy(PyObject *self, PyObject *memo)
{
    (void)memo;
    return dhp_to_python(((dhp_proxy *)self)->core->state, self);
}

void dhp_proxy_dealloc(PyObject *obj)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    if (self->handle.word != 0) {
        dh_handles_remove(&self->core->heap->handles, &self->handle);
        self->handle.word = 0;
    }
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(obj);
    Py_DECREF(self->core);
    if (is_collected(type))
        PyObject_GC_Del(obj);
    else
        PyObject_Free(obj);
    Py_DECREF(type);
}

int dhp_check_writable(dhp_core *core)
{
    if (core->heap == NULL)
        return dhp_raise_named(core->state, "HeapClosedError", "the heap is closed");
    int rc = dh_store_gate(core->heap);
    return rc == 0 ? 0 : dhp_raise(core, rc);
}

int dhp_is_writable(dhp_core *core)
{
    if (core->heap == NULL)
        return 0;
    if (dh_store_gate(core->heap) == 0)
        return 1;
    core->heap->error_text[0] = '\0'; /* no failure of the caller's */
    return 0;
}

static PyMethodDef container_methods[] = {
    {"__copy__", dhp_proxy_deepcopy, METH_NOARGS, "A plain shallow copy."},
    {"__deepcopy__", dhp_proxy_deepcopy, METH_O, "A plain copy, as to_python makes it."},
    {"__reduce_ex__", proxy_reduce, METH_O, "Pickles as a plain object."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef container_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(dhp_proxy, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(container_doc,
             "What all containers of a heap have in common: identity, weak references, plain "
             "copies.");

static PyType_Slot container_slots[] = {
    {Py_tp_doc, (void *)container_doc},
    {Py_tp_new, dhp_proxy_refuse_new},
    {Py_tp_dealloc, dhp_proxy_dealloc},
    {Py_tp_members, container_members},
    {Py_tp_methods, container_methods},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {0, NULL},
};

PyType_Spec dhp_container_spec = {"dirtyheap._native.Container", sizeof(dhp_proxy), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, container_slots};
