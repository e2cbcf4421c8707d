/* block_type.c -- what hold() and transaction() return: the object of a `with` statement.
 *
 * Written in C because CPython delivers interrupts where a Python function begins: the end of a
 * block written in Python can be left out, and a change that was to be undone would be in the next
 * commit. Here nothing runs between the exception and the undoing. If the undoing itself fails the
 * core says so for ever (undo_failed), and no verb goes on.
 */
#include "state.h"

struct dhp_block {
    PyObject_HEAD dhp_core *core;
    PyObject *owner;  /* what `as` gives: the Heap                                  */
    PyObject *lock;   /* acquire() and release(), by one thread                     */
    PyObject *check;  /* called under the lock: raises when no block can begin now */
    PyObject *commit; /* called at the end of the outermost transaction; NULL: hold */
    dh_capture *savepoint;
    dhp_block *outer;     /* the transaction around this one                         */
    uint64_t mark;        /* savepoints with a larger one were taken inside or later */
    unsigned long thread; /* that entered                                        */
    enum { NEW, ENTERED, ENDED } state;
};

static bool is_transaction(const dhp_block *self) { return self->commit != NULL; }

/* --- savepoints ------------------------------------------------------------------------------- */

static int take_savepoint(dhp_block *self)
{
    dh_heap *heap = self->core->heap;
    int rc;
    if (heap == NULL)
        return dhp_raise(self->core, DH_E_CLOSED);
    Py_BEGIN_ALLOW_THREADS /* the stop takes the GIL itself */
        rc = dh_savepoint_take(heap, &self->savepoint);
    Py_END_ALLOW_THREADS if (rc != 0) return dhp_raise(self->core, rc);
    self->outer = self->core->blocks;
    self->mark = ++self->core->marks_count;
    self->core->blocks = self;
    return 0;
}

/* Also when blocks end in another order than they began. */
static void unlink_block(dhp_block *self)
{
    dhp_block **at = &self->core->blocks;
    while (*at != NULL && *at != self)
        at = &(*at)->outer;
    if (*at == self)
        *at = self->outer;
    self->outer = NULL;
}

static void drop_savepoint(dhp_block *self)
{
    unlink_block(self);
    if (self->savepoint != NULL && self->core->heap != NULL)
        dh_savepoint_drop(self->core->heap, self->savepoint);
    self->savepoint = NULL;
}

void dhp_blocks_drop(dhp_core *core)
{
    while (core->blocks != NULL)
        drop_savepoint(core->blocks);
}

uint64_t dhp_blocks_mark(const dhp_core *core) { return core->blocks ? core->blocks->mark : 0; }

/* Back to the start of the block. */
static int undo(dhp_block *self)
{
    dhp_core *core = self->core;
    dh_heap *heap = core->heap;
    uint64_t pages, stop_ns;
    int rc;
    if (self->savepoint == NULL) /* closed inside the block */
        return 0;
    if (core->undone_mark == 0 || self->mark < core->undone_mark)
        core->undone_mark = self->mark;
    Py_BEGIN_ALLOW_THREADS rc = dh_show_state(heap, self->savepoint, &pages, &stop_ns);
    Py_END_ALLOW_THREADS if (rc == 0) return 0;
    self->core->undo_failed = 1;
    return dhp_raise(self->core, rc);
}

/* --- with ------------------------------------------------------------------------------------- */

static int call(PyObject *function)
{
    PyObject *result = PyObject_CallNoArgs(function);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* Keeps the exception that is set, if one is. */
static void release_lock(dhp_block *self)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *result = PyObject_CallMethod(self->lock, "release", NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(self->lock);
    Py_XDECREF(result);
    PyErr_Restore(type, value, trace);
}

static PyObject *block_enter(PyObject *obj, PyObject *ignored)
{
    dhp_block *self = (dhp_block *)obj;
    (void)ignored;
    if (self->state != NEW) {
        PyErr_SetString(PyExc_RuntimeError, "this block has begun already: ask for a new one");
        return NULL;
    }
    /* Before the lock: in a forked child its owner may not exist. */
    if (self->core->heap == NULL || self->core->heap->is_forked) {
        dhp_raise(self->core, self->core->heap ? DH_E_FORKED : DH_E_CLOSED);
        return NULL;
    }
    PyObject *acquired = PyObject_CallMethod(self->lock, "acquire", NULL);
    if (acquired == NULL)
        return NULL;
    Py_DECREF(acquired);
    if (call(self->check) < 0 || (is_transaction(self) && take_savepoint(self) < 0)) {
        release_lock(self);
        return NULL;
    }
    self->thread = PyThread_get_thread_ident();
    self->state = ENTERED;
    return Py_NewRef(self->owner);
}

/* What this block or one inside it does from now on cannot be undone: no verb is to go on. The
 * savepoint is left to the process's end, for its owner may be inside the core with others. */
static void abandon(dhp_block *self)
{
    self->state = ENDED;
    self->core->undo_failed = 1;
    unlink_block(self);
    self->savepoint = NULL;
}

static int raise_order(dhp_block *self)
{
    return dhp_raise_named(self->core->state, "HeapPoisonedError",
                           "transactions ended in another order than they began: close the heap "
                           "and open it again at its last commit");
}

/* Not the innermost: a suspended generator began another inside it, and may yet go on. */
static int end_transaction(dhp_block *self, int is_failing)
{
    int is_innermost = self->core->blocks == self;
    int rc = is_failing || !is_innermost ? undo(self) : 0;
    if (!is_innermost && self->savepoint != NULL) {
        self->core->undo_failed = 1;
        dhp_blocks_drop(self->core);
    }
    drop_savepoint(self);
    if (rc < 0 || is_failing)
        return rc;
    if (self->core->undo_failed)
        return raise_order(self);
    return self->core->blocks == NULL ? call(self->commit) : 0;
}

static PyObject *block_exit(PyObject *obj, PyObject *args)
{
    dhp_block *self = (dhp_block *)obj;
    PyObject *type, *value, *trace;
    int rc = 0;
    if (!PyArg_ParseTuple(args, "OOO:__exit__", &type, &value, &trace))
        return NULL;
    if (self->state != ENTERED) {
        PyErr_SetString(PyExc_RuntimeError, "this block has not begun, or has ended");
        return NULL;
    }
    if (self->thread != PyThread_get_thread_ident()) {
        abandon(self);
        PyErr_SetString(PyExc_RuntimeError, "this block began in another thread: the heap can "
                                            "only be closed now");
        return NULL;
    }
    self->state = ENDED;
    if (is_transaction(self))
        rc = end_transaction(self, type != Py_None);
    release_lock(self);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
}

/* --- life ------------------------------------------------------------------------------------- */

PyObject *dhp_block_new(dhp_core *core, PyObject *args)
{
    PyObject *owner, *lock, *check, *commit;
    if (!PyArg_ParseTuple(args, "OOOO:block", &owner, &lock, &check, &commit))
        return NULL;
    dhp_block *self = PyObject_New(dhp_block, core->state->block_type);
    if (self == NULL)
        return NULL;
    self->core = (dhp_core *)Py_NewRef((PyObject *)core);
    self->owner = Py_NewRef(owner);
    self->lock = Py_NewRef(lock);
    self->check = Py_NewRef(check);
    self->commit = commit == Py_None ? NULL : Py_NewRef(commit);
    self->savepoint = NULL;
    self->outer = NULL;
    self->mark = 0;
    self->thread = 0;
    self->state = NEW;
    return (PyObject *)self;
}

/* A block that was entered by hand and never left: what it did stays, uncommitted. In another
 * thread than its own the lock cannot be given back, and nothing be undone. */
static void block_dealloc(PyObject *obj)
{
    dhp_block *self = (dhp_block *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    if (self->state == ENTERED && self->thread != PyThread_get_thread_ident()) {
        abandon(self);
    } else if (self->state == ENTERED) {
        drop_savepoint(self);
        release_lock(self);
    }
    Py_XDECREF(self->commit);
    Py_DECREF(self->check);
    Py_DECREF(self->lock);
    Py_DECREF(self->owner);
    Py_DECREF(self->core);
    PyObject_Free(obj);
    Py_DECREF(type);
}

static PyMethodDef block_methods[] = {
    {"__enter__", block_enter, METH_NOARGS, "Begin; waits for the heap's lock."},
    {"__exit__", block_exit, METH_VARARGS, "End: undo, or commit, or neither; give the lock back."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot block_slots[] = {
    {Py_tp_doc, (void *)"A block of hold() or transaction(), for one `with` statement."},
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_methods, block_methods},
    {0, NULL},
};

PyType_Spec dhp_block_spec = {"dirtyheap._native.Block", sizeof(dhp_block), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, block_slots};
