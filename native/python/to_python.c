/* to_python.c -- whole graphs as plain Python objects.
 *
 * Inside the heap no Python code runs: Python's collector is paused, all keys are exact built-in
 * objects, and packed values stay placeholders until the walk is over. Around it, in plain containers that hold containers of a heap, keys are the user's: what
 * such a container holds is listed before it is followed, and the heap asked for anew each time.
 */
#include "records.h"
#include "sorted_type.h"

typedef struct {
    dhp_core *core; /* of the first container of a heap; NULL: none met yet */
    /* Containers met so far -> their copies, owned. A container of the heap is known by its word, a
     * plain one by its address with bit 0 set, which no ref has. */
    dhp_memo memo;
    uint64_t count_before;  /* of the core's placeholders, at its first container */
    PyObject *ndarray_type; /* owned, or NULL: numpy is not imported */
    PyObject *sources;      /* list of the plain ones: kept, so that no address is used again */
} plain_copy;

/* The copy made before as a new reference, or NULL. */
static PyObject *plain_known(const plain_copy *c, uint64_t key)
{
    PyObject *copy = (PyObject *)(uintptr_t)dhp_memo_find(&c->memo, key);
    return Py_XNewRef(copy);
}

/* Holds the copy: in a damaged file a parent may lose it again (a key twice in one dict). */
static int plain_remember(plain_copy *c, uint64_t key, PyObject *copy)
{
    if (dhp_memo_add(&c->memo, key, (uint64_t)(uintptr_t)copy) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(copy);
    return 0;
}

static PyObject *plain_from(plain_copy *c, dh_word word);

static int plain_fill_dict(plain_copy *c, dh_word word, PyObject *copy)
{
    dh_dict_pos position = {0, 0};
    dh_word key, value;
    int rc, failed = 0;

    while (!failed && (rc = dh_dict_next(c->core->heap, word, &position, &key, &value)) == 1) {
        PyObject *key_obj = dhp_raw_key(c->core, key);
        PyObject *value_obj = key_obj ? plain_from(c, value) : NULL;
        failed = value_obj == NULL || PyDict_SetItem(copy, key_obj, value_obj) < 0;
        Py_XDECREF(key_obj);
        Py_XDECREF(value_obj);
    }
    return failed ? -1 : rc < 0 ? dhp_raise(c->core, rc) : 0;
}

static int plain_fill_list(plain_copy *c, dh_word word, PyObject *copy)
{
    Py_ssize_t count = PyList_Size(copy);
    for (Py_ssize_t i = 0; i < count; i++) {
        dh_word item_word;
        int rc = dh_list_get(c->core->heap, word, (uint64_t)i, &item_word);
        if (rc != 0)
            return dhp_raise(c->core, rc);
        PyObject *item = plain_from(c, item_word);
        if (item == NULL || PyList_SetItem(copy, i, item) < 0)
            return -1;
    }
    return 0;
}

static PyObject *plain_dict(plain_copy *c, dh_word word)
{
    PyObject *copy = PyDict_New();
    if (copy != NULL && (plain_remember(c, word, copy) < 0 || plain_fill_dict(c, word, copy) < 0))
        Py_CLEAR(copy);
    return copy;
}

static int plain_fill_sorted(plain_copy *c, dh_word word, PyObject *copy)
{
    dh_sorted_span span = {NULL, NULL, 0, 0};
    int rc, failed = 0;

    while ((rc = dh_sorted_span_at(c->core->heap, word, span.first + span.count, &span)) == 0) {
        for (uint64_t i = 0; !failed && i < span.count; i++) {
            PyObject *key_obj = dhp_raw_from(c->core, dh_load(&span.keys[i]));
            PyObject *value_obj = key_obj ? plain_from(c, dh_load(&span.values[i])) : NULL;
            failed = value_obj == NULL || PyDict_SetItem(copy, key_obj, value_obj) < 0;
            Py_XDECREF(key_obj);
            Py_XDECREF(value_obj);
        }
        if (failed)
            return -1;
    }
    return rc != DH_E_ABSENT ? dhp_raise(c->core, rc) : 0;
}

static PyObject *plain_sorted(plain_copy *c, dh_word word)
{
    PyObject *copy = PyDict_New();
    if (copy != NULL && (plain_remember(c, word, copy) < 0 || plain_fill_sorted(c, word, copy) < 0))
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_list(plain_copy *c, dh_word word)
{
    uint64_t length;
    int rc = dh_list_length(c->core->heap, word, &length);
    if (rc != 0) {
        dhp_raise(c->core, rc);
        return NULL;
    }
    PyObject *copy = PyList_New((Py_ssize_t)length);
    if (copy != NULL && (plain_remember(c, word, copy) < 0 || plain_fill_list(c, word, copy) < 0))
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_deque(plain_copy *c, dh_word word)
{
    dh_deque_state state;
    int rc = dh_deque_read(c->core->heap, word, &state);
    if (rc != 0) {
        dhp_raise(c->core, rc);
        return NULL;
    }
    PyObject *type = (PyObject *)c->core->state->plain_deque_type;
    PyObject *items = PyList_New((Py_ssize_t)state.length), *done = NULL;
    PyObject *copy = items == NULL ? NULL
                     : state.maxlen == DH_DEQUE_UNBOUNDED
                         ? PyObject_CallNoArgs(type)
                         : PyObject_CallFunction(type, "()K", state.maxlen);
    if (copy != NULL && plain_remember(c, word, copy) == 0 && plain_fill_list(c, word, items) == 0)
        done = PyObject_CallMethod(copy, "extend", "O", items);
    if (done == NULL)
        Py_CLEAR(copy);
    Py_XDECREF(done);
    Py_XDECREF(items);
    return copy;
}

static PyObject *plain_tuple(plain_copy *c, dh_word word)
{
    const dh_word *words;
    size_t count;
    int rc = dh_tuple_read(c->core->heap, word, &words, &count);
    if (rc != 0) {
        dhp_raise(c->core, rc);
        return NULL;
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *item = plain_from(c, dh_load(&words[i]));
        if (item == NULL || PyTuple_SetItem(tuple, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(tuple);
    }
    /* Known already: met again below itself, through a list or dict. */
    if (tuple != NULL && dh_tuple_is_shared(c->core->heap, word) &&
        dhp_memo_find(&c->memo, word) == 0 && plain_remember(c, word, tuple) < 0)
        Py_CLEAR(tuple);
    return tuple;
}

/* It holds values, and records, which stay what they are, as they do as keys of a dict. */
static PyObject *plain_frozenset(plain_copy *c, dh_word word)
{
    PyObject *copy = dhp_raw_from(c->core, word);
    if (copy != NULL && dh_tuple_is_shared(c->core->heap, word) &&
        plain_remember(c, word, copy) < 0)
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_set(plain_copy *c, dh_word word)
{
    dh_dict_pos position = {0, 0};
    dh_word element;
    int rc;
    PyObject *copy = PySet_New(NULL);
    if (copy == NULL || plain_remember(c, word, copy) < 0) {
        Py_XDECREF(copy);
        return NULL;
    }
    while ((rc = dh_set_next(c->core->heap, word, &position, &element)) == 1)
        if (dhp_set_put(c->core, copy, element) < 0)
            break;
    if (rc < 0)
        dhp_raise(c->core, rc);
    if (rc != 0)
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_buffer(plain_copy *c, dh_word word)
{
    uint8_t *data;
    uint64_t size;
    int rc = dh_buffer_read(c->core->heap, word, &data, &size);
    if (rc != 0) {
        dhp_raise(c->core, rc);
        return NULL;
    }
    PyObject *copy = PyByteArray_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    if (copy != NULL && plain_remember(c, word, copy) < 0)
        Py_CLEAR(copy);
    return copy;
}

/* Add one field to the copy; what the record was stored without is left out. */
static int plain_field(plain_copy *c, PyObject *copy, PyObject *name, dh_word word)
{
    PyObject *value = word != DH_EMPTY ? plain_from(c, word) : NULL;
    int rc = value != NULL ? PyDict_SetItem(copy, name, value) : word != DH_EMPTY ? -1 : 0;
    Py_XDECREF(value);
    return rc;
}

static int plain_fill_stored(plain_copy *c, const dh_record_view *view, PyObject *copy)
{
    dh_class_view class;
    int rc = dh_class_read(c->core->heap, view->class_word, &class);
    if (rc != 0)
        return dhp_raise(c->core, rc);
    for (size_t i = 0; rc == 0 && i < class.count; i++) {
        dh_word word;
        if (!dh_record_load(view, dh_record_place(view, &class, i), &word))
            return dhp_raise(c->core, DH_E_CORRUPT);
        PyObject *name = dhp_class_text(c->core, class.words[3 * i]);
        rc = name != NULL ? plain_field(c, copy, name, word) : -1;
        Py_XDECREF(name);
    }
    return rc;
}

/* As the class of this program shows it; a default_factory is not called. */
static int plain_fill_record(plain_copy *c, const dh_record_view *view, const dhp_schema *schema,
                             PyObject *copy)
{
    const dhp_layout *layout = dhp_layout_named(c->core, view->class_word, schema);
    int rc = layout != NULL ? 0 : -1;
    if (layout != NULL && layout->state == DHP_MISFITS)
        return plain_fill_stored(c, view, copy);
    for (Py_ssize_t i = 0; rc == 0 && i < schema->count; i++) {
        const dhp_field_info *field = &schema->fields[i];
        dh_word word;
        if (!dh_record_load(view, dhp_layout_place(layout, view, i), &word))
            word = DH_EMPTY;
        rc = word == DH_EMPTY && field->fallback != NULL
                 ? PyDict_SetItem(copy, field->name, field->fallback)
                 : plain_field(c, copy, field->name, word);
    }
    return rc;
}

static PyObject *plain_record(plain_copy *c, dh_word word)
{
    dh_record_view view;
    const dhp_stored_class *class = dhp_record_class(c->core, word);
    PyObject *copy = class != NULL ? PyDict_New() : NULL;
    if (copy == NULL)
        return NULL;
    int rc = dh_record_open(c->core->heap, word, &view);
    if (rc != 0)
        dhp_raise(c->core, rc);
    if (rc != 0 || plain_remember(c, word, copy) < 0 ||
        (class->schema != NULL ? plain_fill_record(c, &view, class->schema, copy)
                               : plain_fill_stored(c, &view, copy)) < 0)
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_container(plain_copy *c, dh_word word)
{
    switch (dh_ref_type(word)) {
    case DH_T_DICT:
        return plain_dict(c, word);
    case DH_T_SORTED:
        return plain_sorted(c, word);
    case DH_T_LIST:
        return plain_list(c, word);
    case DH_T_SET:
        return plain_set(c, word);
    case DH_T_DEQUE:
        return plain_deque(c, word);
    case DH_T_TUPLE:
        return plain_tuple(c, word);
    case DH_T_FROZENSET:
        return plain_frozenset(c, word);
    case DH_T_ARRAY: /* a placeholder, whether an ndarray is alive or not */
        c->core->placeholders_count++;
        return dhp_proxy_get(c->core, word);
    case DH_T_RECORD:
        return plain_record(c, word);
    default:
        return plain_buffer(c, word);
    }
}

static PyObject *plain_from(plain_copy *c, dh_word word)
{
    if (!dh_is_container(word) && !dh_is_items(word))
        return dhp_raw_from(c->core, word);
    PyObject *copy = plain_known(c, word);
    if (copy != NULL || dhp_recursion_enter(" while a heap's value is copied") != 0)
        return copy;
    copy = plain_container(c, word);
    dhp_recursion_leave();
    return copy;
}

/* --- plain containers that hold containers of a heap ------------------------------------------ */

static PyObject *plain_any(plain_copy *c, dhp_state *state, PyObject *obj);

static PyObject *plain_proxy(plain_copy *c, dhp_state *state, dhp_proxy *proxy)
{
    dh_word word = dhp_word(proxy);
    if (word == 0)
        return NULL;
    if (c->core == NULL) {
        c->core = proxy->core;
        c->count_before = proxy->core->placeholders_count;
    }
    return c->core == proxy->core ? plain_from(c, word) : dhp_to_python(state, (PyObject *)proxy);
}

/* A new list or dict with copies of what obj holds. */
static int plain_fill(plain_copy *c, dhp_state *state, PyObject *obj, PyObject *copy)
{
    int is_dict = PyDict_CheckExact(obj), rc = 0;
    PyObject *items = is_dict ? PyDict_Items(obj) : PyList_AsTuple(obj);
    Py_ssize_t count = items ? PyObject_Size(items) : -1;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        PyObject *item = is_dict ? PyList_GetItem(items, i) : PyTuple_GetItem(items, i);
        PyObject *made = plain_any(c, state, is_dict ? PyTuple_GetItem(item, 1) : item);
        rc = made == NULL ? -1
             : is_dict    ? PyDict_SetItem(copy, PyTuple_GetItem(item, 0), made)
                          : PyList_Append(copy, made);
        Py_XDECREF(made);
    }
    Py_XDECREF(items);
    return count < 0 ? -1 : rc;
}

static PyObject *plain_outer(plain_copy *c, dhp_state *state, PyObject *obj)
{
    uint64_t key = (uint64_t)(uintptr_t)obj | 1;
    PyObject *copy = plain_known(c, key);
    if (copy != NULL)
        return copy;
    copy = PyDict_CheckExact(obj) ? PyDict_New() : PyList_New(0);
    if (copy != NULL && (PyList_Append(c->sources, obj) < 0 || plain_remember(c, key, copy) < 0 ||
                         plain_fill(c, state, obj, copy) < 0))
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_outer_tuple(plain_copy *c, dhp_state *state, PyObject *obj)
{
    Py_ssize_t count = PyTuple_Size(obj);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *item = plain_any(c, state, PyTuple_GetItem(obj, i));
        if (item == NULL || PyTuple_SetItem(tuple, i, item) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* An ndarray may be the heap's too. */
static PyObject *plain_ndarray(plain_copy *c, dhp_state *state, PyObject *obj)
{
    uint64_t key = (uint64_t)(uintptr_t)obj | 1;
    PyObject *copy = plain_known(c, key);
    if (copy != NULL)
        return copy;
    copy = dhp_ndarray_copy(state, obj);
    if (copy != NULL && (PyList_Append(c->sources, obj) < 0 || plain_remember(c, key, copy) < 0))
        Py_CLEAR(copy);
    return copy;
}

static PyObject *plain_any(plain_copy *c, dhp_state *state, PyObject *obj)
{
    if ((PyObject *)Py_TYPE(obj) == c->ndarray_type)
        return plain_ndarray(c, state, obj);
    if (dhp_is_proxy(state, obj))
        return plain_proxy(c, state, (dhp_proxy *)obj);
    if (!PyDict_CheckExact(obj) && !PyList_CheckExact(obj) && !PyTuple_CheckExact(obj))
        return Py_NewRef(obj);
    if (dhp_recursion_enter(" while a value is copied") != 0)
        return NULL;
    PyObject *copy =
        PyTuple_CheckExact(obj) ? plain_outer_tuple(c, state, obj) : plain_outer(c, state, obj);
    dhp_recursion_leave();
    return copy;
}

PyObject *dhp_to_python(dhp_state *state, PyObject *obj)
{
    plain_copy c = {.ndarray_type = dhp_ndarray_type(), .sources = PyList_New(0)};
    int was_enabled = dhp_gc_pause();
    PyObject *copy = c.sources != NULL ? plain_any(&c, state, obj) : NULL;
    dhp_gc_resume(was_enabled);
    if (copy != NULL && c.core != NULL && c.core->placeholders_count != c.count_before &&
        dhp_resolve_all(c.core, &c.memo) < 0)
        Py_CLEAR(copy);
    dhp_memo_release(&c.memo);
    Py_XDECREF(c.sources);
    Py_XDECREF(c.ndarray_type);
    return copy;
}
