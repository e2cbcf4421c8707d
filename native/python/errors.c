/* errors.c -- from codes of the core to Python exceptions.
 *
 * The table code -> class is dirtyheap/errors.py, and only there; it is imported when the first
 * error happens, so that importing the compiled module needs nothing of the package. Making an
 * exception runs Python code: never call anything here between two stores.
 */
#include "state.h"

/* Borrowed, or NULL with an exception. */
static PyObject *errors_module(dhp_state *state)
{
    if (state->errors == NULL)
        state->errors = PyImport_ImportModule("dirtyheap.errors");
    return state->errors;
}

/* Raise what dirtyheap.errors.error_from_code makes of it. Steals text, which may be NULL. */
static int raise_code(dhp_state *state, int rc, PyObject *text)
{
    PyObject *module = text ? errors_module(state) : NULL;
    PyObject *error = NULL;
    if (module != NULL)
        error = PyObject_CallMethod(module, "error_from_code", "iO", rc, text);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    Py_XDECREF(text);
    return -1;
}

int dhp_raise(dhp_core *core, int rc)
{
    PyObject *text = PyUnicode_FromString(core->heap ? dh_heap_error_text(core->heap) : "");
    if (core->heap != NULL)
        core->heap->error_text[0] = '\0'; /* told once: it must not explain the next failure */
    return raise_code(core->state, rc, text);
}

int dhp_raise_open(dhp_state *state, int rc)
{
    return raise_code(state, rc, PyUnicode_FromString(dh_heap_open_error()));
}

int dhp_raise_named(dhp_state *state, const char *name, const char *text)
{
    PyObject *module = errors_module(state);
    PyObject *class = module ? PyObject_GetAttrString(module, name) : NULL;
    if (class != NULL) {
        PyErr_SetString(class, text);
        Py_DECREF(class);
    }
    return -1;
}

int dhp_raise_dead(dhp_proxy *self)
{
    dhp_state *state = self->core->state;
    if (self->core->heap == NULL)
        return dhp_raise_named(state, "HeapClosedError", "the heap is closed");
    return dhp_raise_named(state, "StaleObjectError",
                           "this container was made after the state that the heap shows now: a "
                           "rollback took it back; read it again from heap.root");
}

int dhp_raise_key(PyObject *key)
{
    /* A tuple would be spread over the arguments of KeyError. */
    PyObject *args = PyTuple_Pack(1, key);
    if (args != NULL) {
        PyErr_SetObject(PyExc_KeyError, args);
        Py_DECREF(args);
    }
    return -1;
}
