/* due.c -- telling Python that a collection is due.
 *
 * It becomes due in the middle of an operation, where no Python code may run: a thread carries it out of
 * there. Not a pending call: that comes to the main thread only, which may be waiting for the one that
 * allocates, and in the middle of anything, so that it must not wait for what the main thread holds.
 */
#include "state.h"

#define NO_THREAD ((unsigned long)-1) /* PYTHREAD_INVALID_THREAD_ID, which abi3 does not have */

static void run_due(void *context)
{
    PyGILState_STATE gil = PyGILState_Ensure();
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
    PyThread_release_lock(core->due_lock);
    Py_DECREF((PyObject *)core);
    PyGILState_Release(gil);
}

int dhp_due(void *context)
{
    dhp_core *core = context;

    if (core->on_due == NULL || PyThread_acquire_lock(core->due_lock, NOWAIT_LOCK) == 0)
        return -1;
    Py_INCREF((PyObject *)core);
    if (PyThread_start_new_thread(run_due, core) != NO_THREAD)
        return 0;
    Py_DECREF((PyObject *)core); /* none is to be had: it is tried again with the next page */
    PyThread_release_lock(core->due_lock);
    return -1;
}

PyObject *dhp_wait_due(PyObject *self, PyObject *Py_UNUSED(unused))
{
    dhp_core *core = (dhp_core *)self;

    Py_BEGIN_ALLOW_THREADS;
    PyThread_acquire_lock(core->due_lock, WAIT_LOCK);
    PyThread_release_lock(core->due_lock);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
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
