/* due.c -- telling Python that a collection is due.
 *
 * It becomes due in the middle of an operation, where no Python code may run: a pending call carries it
 * out of there, to the main thread between two of its instructions.
 */
#include "state.h"

static int run_due(void *context)
{
    dhp_core *core = context;
    PyObject *on_due = core->on_due;

    if (on_due != NULL && core->heap != NULL) {
        Py_INCREF(on_due); /* it may set another */
        PyObject *result = PyObject_CallNoArgs(on_due);
        if (result == NULL)
            PyErr_WriteUnraisable(on_due);
        Py_XDECREF(result);
        Py_DECREF(on_due);
    }
    Py_DECREF((PyObject *)core);
    return 0;
}

int dhp_due(void *context)
{
    PyObject *core = context;

    if (((dhp_core *)core)->on_due == NULL)
        return -1;
    Py_INCREF(core);
    if (Py_AddPendingCall(run_due, core) == 0)
        return 0;
    Py_DECREF(core); /* no room: it is tried again with the next page */
    return -1;
}

PyObject *dhp_set_on_due(PyObject *self, PyObject *callable)
{
    dhp_core *core = (dhp_core *)self;
    PyObject *before = core->on_due;

    Py_INCREF(callable);
    core->on_due = callable;
    Py_XDECREF(before);
    Py_RETURN_NONE;
}
