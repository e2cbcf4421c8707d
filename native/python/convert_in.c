/* convert_in.c -- Python values to words: scalars, links, and copies of plain containers.
 *
 * Exact built-in types only, so nothing here runs Python code: no subclass can bring its own
 * __iter__ or __eq__, and Python's collector is paused for the length of a copy. All cells of a
 * copy are made under one journal; what cannot be stored takes them all back, and only then is the
 * exception made (describing the place calls the repr of a user's keys). What needs a packer stops
 * a conversion in the same way: it is packed (pack.c), and the conversion begins again.
 */
#include "state.h"

#include <stdlib.h>

/* Why a conversion stopped, to be turned into an exception once the arena is at rest. */
typedef enum {
    FAIL_NONE = 0,
    FAIL_RAISED,   /* a Python exception is set already */
    FAIL_CODE,     /* code of the core                  */
    FAIL_TYPE,     /* no heap can hold this value       */
    FAIL_KEY,      /* ... this key                      */
    FAIL_ELEMENT,  /* ... this element of a set         */
    FAIL_UNPACKED, /* not in the table of packed forms  */
    FAIL_FOREIGN,  /* a container of another heap       */
    FAIL_DEAD      /* a stale container                 */
} fail_kind;

/* One conversion, of one value or of many. */
typedef struct {
    dhp_core *core;
    const dhp_packing *packing; /* or NULL */
    dhp_memo memo;              /* address of a plain container -> word of its copy */
    int shared_tuples;          /* on the way here: inside one, everything may be met twice */
    int gc_was_enabled;
    fail_kind fail;
    int rc;
    PyObject *culprit; /* owned */
    PyObject *path;    /* list of keys and indexes, innermost first; or NULL */
} conversion;

/* --- failures --------------------------------------------------------------------------------- */

static int stop_with(conversion *c, fail_kind fail, PyObject *culprit)
{
    c->fail = fail;
    c->culprit = Py_XNewRef(culprit);
    return -1;
}

static int stop_with_code(conversion *c, int rc)
{
    c->fail = FAIL_CODE;
    c->rc = rc;
    return -1;
}

/* Add where we are to the place of a failure below. Loses the place rather than the failure. */
static void note_place(conversion *c, PyObject *key)
{
    if (c->fail == FAIL_NONE || c->fail == FAIL_RAISED || c->fail == FAIL_CODE ||
        c->fail == FAIL_UNPACKED)
        return;
    if (c->path == NULL)
        c->path = PyList_New(0);
    if (c->path == NULL || PyList_Append(c->path, key) < 0)
        PyErr_Clear();
}

static void note_index(conversion *c, Py_ssize_t index)
{
    PyObject *key = PyLong_FromSsize_t(index);
    if (key != NULL)
        note_place(c, key);
    else
        PyErr_Clear();
    Py_XDECREF(key);
}

/* "value['a'][3]" */
static PyObject *place_text(PyObject *path)
{
    PyObject *text = PyUnicode_FromString("value");
    Py_ssize_t count = path ? PyList_Size(path) : 0;
    for (Py_ssize_t i = count - 1; text != NULL && i >= 0; i--) {
        PyObject *longer = PyUnicode_FromFormat("%U[%R]", text, PyList_GetItem(path, i));
        dhp_replace(&text, longer);
    }
    return text;
}

static PyObject *type_text(PyTypeObject *type)
{
    PyObject *name = PyType_GetQualName(type);
    PyObject *module = name ? PyObject_GetAttrString((PyObject *)type, "__module__") : NULL;
    if (module == NULL || !PyUnicode_Check(module) ||
        PyUnicode_CompareWithASCIIString(module, "builtins") == 0) {
        PyErr_Clear();
    } else {
        dhp_replace(&name, PyUnicode_FromFormat("%U.%U", module, name));
    }
    Py_XDECREF(module);
    return name;
}

/* What to do instead. */
static const char *advice_for(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyByteArray_Type || PyMemoryView_Check(obj))
        return "make mutable bytes with heap.buffer() and store that";
    if (PyLong_Check(obj))
        return "convert it with int()";
    if (PyFloat_Check(obj))
        return "convert it with float()";
    if (PyUnicode_Check(obj))
        return "convert it with str()";
    if (PyBytes_Check(obj))
        return "convert it with bytes()";
    if (PyDict_Check(obj))
        return "convert it with dict()";
    if (PyList_Check(obj))
        return "convert it with list()";
    if (PyTuple_Check(obj))
        return "convert it with tuple()";
    if (PyFrozenSet_Check(obj))
        return "convert it with frozenset()";
    if (PySet_Check(obj))
        return "convert it with set()";
    if (PyObject_HasAttrString((PyObject *)type, "__array_finalize__"))
        return "convert it with numpy.asarray(), and of a masked array store the mask beside it";
    if (PyObject_HasAttrString((PyObject *)type, "__array_struct__"))
        return "convert it with value.item()";
    if (PyIndex_Check(obj))
        return "convert it with int()";
    if (PyObject_CheckBuffer(obj))
        return "make a heap.buffer() of its bytes and store that";
    return "store None, bool, int, float, str, bytes, dates, Decimal and the like, containers of "
           "these, or make the type known with dirtyheap.register()";
}

static const char *key_advice_for(PyObject *obj)
{
    if (PyIndex_Check(obj) || PyFloat_Check(obj) || PyUnicode_Check(obj) || PyBytes_Check(obj) ||
        PyTuple_Check(obj) || PyFrozenSet_Check(obj))
        return advice_for(obj);
    return "use None, bool, int, float, str, bytes, dates, Decimal and the like, a tuple or "
           "frozenset "
           "of these, or make the type known with dirtyheap.register()";
}

static void raise_refusal(conversion *c)
{
    PyObject *place = place_text(c->path);
    PyObject *type = place ? type_text(Py_TYPE(c->culprit)) : NULL;
    if (type != NULL && c->fail == FAIL_FOREIGN)
        PyErr_Format(PyExc_ValueError,
                     "%U is a %U of another heap: copy it first, with "
                     "dirtyheap.to_python()",
                     place, type);
    else if (type != NULL && (c->fail == FAIL_KEY || c->fail == FAIL_ELEMENT))
        PyErr_Format(PyExc_TypeError, "%U has %s of type '%U', which a heap cannot hold: %s", place,
                     c->fail == FAIL_KEY ? "a key" : "an element", type,
                     key_advice_for(c->culprit));
    else if (type != NULL)
        PyErr_Format(PyExc_TypeError, "%U is of type '%U', which a heap cannot hold: %s", place,
                     type, advice_for(c->culprit));
    Py_XDECREF(place);
    Py_XDECREF(type);
}

static void raise_failure(conversion *c)
{
    switch (c->fail) {
    case FAIL_NONE:
    case FAIL_RAISED:
    case FAIL_UNPACKED:
        break;
    case FAIL_CODE:
        dhp_raise(c->core, c->rc);
        break;
    case FAIL_DEAD:
        dhp_raise_dead((dhp_proxy *)c->culprit);
        break;
    default:
        raise_refusal(c);
    }
}

/* --- begin and end ---------------------------------------------------------------------------- */

static void conversion_begin(conversion *c, dhp_core *core, const dhp_packing *packing)
{
    *c = (conversion){.core = core, .packing = packing};
    c->gc_was_enabled = dhp_gc_pause();
    dh_journal_begin(core->heap);
}

/* 0; DHP_RETRY, or -1 and the exception set, with everything taken back. */
static int conversion_end(conversion *c, int rc)
{
    if (rc == 0)
        dh_journal_commit(c->core->heap);
    else
        dh_journal_abort(c->core->heap);
    dhp_memo_finish(&c->memo);
    dhp_gc_resume(c->gc_was_enabled);
    if (rc != 0)
        raise_failure(c);
    Py_XDECREF(c->culprit);
    Py_XDECREF(c->path);
    return rc != 0 && c->fail == FAIL_UNPACKED ? DHP_RETRY : rc;
}

/* What is below obj gets its packed forms. 0: begin again. The heap is open and writable then. */
static int pack_for(dhp_core *core, dhp_packing *packing, PyObject *obj)
{
    if (dhp_packing_gather(core, packing, obj) < 0)
        return -1;
    return dhp_check_writable(core);
}

/* --- the memo --------------------------------------------------------------------------------- */

static uint64_t memo_key(PyObject *obj) { return (uint64_t)(uintptr_t)obj; }

static int memo_add(conversion *c, PyObject *obj, dh_word word)
{
    /* Who has one reference in all has one slot that leads to it, and is not met again. */
    if (Py_REFCNT(obj) == 1 && c->shared_tuples == 0)
        return 0;
    int rc = dhp_memo_add(&c->memo, memo_key(obj), word);
    return rc == 0 ? 0 : stop_with_code(c, rc);
}

/* --- scalars and links ------------------------------------------------------------------------ */

/* 0 or a code in c; -1. */
static int made(conversion *c, int rc) { return rc == 0 ? 1 : stop_with_code(c, rc); }

static int raised(conversion *c)
{
    c->fail = FAIL_RAISED;
    return -1;
}

static int word_from_str(conversion *c, PyObject *obj, dh_word *word_out)
{
    Py_ssize_t size;
    PyObject *owner;
    const char *utf8 = dhp_utf8(obj, &size, &owner);
    if (utf8 == NULL)
        return raised(c);
    if (c->core->heap == NULL) /* the error behind a lone surrogate may have run anything */
        return stop_with_code(c, DH_E_CLOSED);
    int rc = dh_str_new(c->core->heap, (const uint8_t *)utf8, (size_t)size, word_out);
    Py_XDECREF(owner);
    return made(c, rc);
}

static int word_from_int(conversion *c, PyObject *obj, dh_word *word_out)
{
    int overflow;
    long long v = PyLong_AsLongLongAndOverflow(obj, &overflow);
    bool is_negative;
    uint8_t *data;
    size_t size;

    if (overflow == 0 && dh_int_fits(v)) {
        *word_out = dh_int(v);
        return 1;
    }
    if (dhp_int_magnitude(obj, &is_negative, &data, &size) < 0)
        return raised(c);
    int rc = dh_bigint_new(c->core->heap, is_negative, data, size, word_out);
    free(data);
    return made(c, rc);
}

static int word_from_proxy(conversion *c, PyObject *obj, dh_word *word_out)
{
    dhp_proxy *proxy = (dhp_proxy *)obj;
    if (proxy->core != c->core)
        return stop_with(c, FAIL_FOREIGN, obj);
    if (proxy->handle.word == 0)
        return stop_with(c, FAIL_DEAD, obj);
    *word_out = proxy->handle.word;
    return 1;
}

/* The one form of packed bytes, without its key when key is None. */
static dh_ext_view ext_of(PyObject *form)
{
    PyObject *key = PyTuple_GetItem(form, 0), *payload = PyTuple_GetItem(form, 1);
    dh_ext_view ext = {.payload = (const uint8_t *)PyBytes_AsString(payload),
                       .payload_size = (size_t)PyBytes_Size(payload)};
    if (key != Py_None) {
        ext.key_tag = (uint8_t)*PyBytes_AsString(key);
        ext.key = (const uint8_t *)PyBytes_AsString(key) + 1;
        ext.key_size = (size_t)PyBytes_Size(key) - 1;
    }
    return ext;
}

/* 0: not one of the types that C packs. */
static int word_from_date(conversion *c, PyObject *obj, dh_word *word_out)
{
    dhp_date_form form;
    int was_enabled = dhp_gc_pause();
    int done = dhp_date_pack(c->core->state, obj, &form);
    dh_ext_view ext = {'x', form.key, form.key_size, form.payload, form.payload_size};
    if (done)
        done = made(c, dh_ext_new(c->core->heap, &ext, word_out));
    dhp_gc_resume(was_enabled);
    return done;
}

static int word_from_packed(conversion *c, PyObject *obj, dh_word *word_out)
{
    int done = word_from_date(c, obj, word_out);
    if (done != 0)
        return done;
    PyObject *form = dhp_packing_find(c->packing, obj);
    if (form == NULL)
        return stop_with(c, FAIL_UNPACKED, obj);
    if (form == Py_NotImplemented)
        return stop_with(c, FAIL_TYPE, obj);
    if (!PyTuple_CheckExact(form))
        return word_from_proxy(c, form, word_out);
    dh_ext_view ext = ext_of(form);
    return made(c, dh_ext_new(c->core->heap, &ext, word_out));
}

/* 1: done, 0: a plain dict, list, set, frozenset or tuple, -1: stopped. */
static int word_from_scalar(conversion *c, PyObject *obj, dh_word *word_out)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyUnicode_Type)
        return word_from_str(c, obj, word_out);
    if (type == &PyLong_Type)
        return word_from_int(c, obj, word_out);
    if (obj == Py_None || type == &PyBool_Type) {
        *word_out = obj == Py_None ? DH_NONE : obj == Py_True ? DH_TRUE : DH_FALSE;
        return 1;
    }
    if (type == &PyFloat_Type) {
        double d = PyFloat_AsDouble(obj);
        return dh_float_fits(d, word_out) ? 1 : made(c, dh_float_new(c->core->heap, d, word_out));
    }
    if (type == &PyDict_Type || type == &PyList_Type || type == &PyTuple_Type ||
        type == &PySet_Type || type == &PyFrozenSet_Type ||
        type == c->core->state->plain_deque_type)
        return 0;
    if (dhp_is_proxy(c->core->state, obj))
        return word_from_proxy(c, obj, word_out);
    if (type == &PyBytes_Type) {
        char *data;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(obj, &data, &size) < 0)
            return raised(c);
        return made(c, dh_bytes_new(c->core->heap, (uint8_t *)data, (size_t)size, word_out));
    }
    return word_from_packed(c, obj, word_out);
}

int dhp_word_scalar(dhp_core *core, PyObject *obj, dh_word *word_out)
{
    conversion c = {.core = core};
    int done = word_from_scalar(&c, obj, word_out);
    if (DH_UNLIKELY(done < 0)) {
        raise_failure(&c);
        Py_XDECREF(c.culprit);
    }
    return c.fail == FAIL_UNPACKED ? 0 : done;
}

/* --- copies ----------------------------------------------------------------------------------- */

static int word_from_any(conversion *c, PyObject *obj, dh_word *word_out);

static int copy_tuple(conversion *c, PyObject *tuple, dh_word *word_out)
{
    size_t count = (size_t)PyTuple_Size(tuple);
    dh_word *words = malloc((count + 1) * sizeof *words);
    int is_shared = Py_REFCNT(tuple) > 1;
    int rc = words != NULL ? 0 : stop_with_code(c, ENOMEM);

    c->shared_tuples += is_shared;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = word_from_any(c, PyTuple_GetItem(tuple, (Py_ssize_t)i), &words[i]);
        if (rc != 0)
            note_index(c, (Py_ssize_t)i);
    }
    c->shared_tuples -= is_shared;
    if (rc == 0) {
        rc = dh_tuple_new(c->core->heap, words, count, word_out);
        if (rc != 0)
            rc = stop_with_code(c, rc);
    }
    free(words);
    if (rc != 0 || dhp_memo_find(&c->memo, memo_key(tuple)) != DH_EMPTY)
        return rc; /* met again below itself, through a list or dict: that copy is remembered */
    return memo_add(c, tuple, *word_out);
}

/* An element of a set. One that is refused, itself and not for something in it, is said to be one. */
static int word_from_element(conversion *c, PyObject *element, dh_word *word_out)
{
    if (word_from_any(c, element, word_out) == 0)
        return 0;
    if (c->fail == FAIL_TYPE && c->culprit == element)
        c->fail = FAIL_ELEMENT;
    return -1;
}

/* What an exact frozenset holds can be hashed: no containers but records, which are linked. */
static int copy_frozenset(conversion *c, PyObject *frozenset, dh_word *word_out)
{
    size_t count = (size_t)PySet_Size(frozenset), i = 0;
    dh_word *words = malloc((count + 1) * sizeof *words);
    PyObject *element, *iter = words != NULL ? PyObject_GetIter(frozenset) : NULL;
    int is_shared = Py_REFCNT(frozenset) > 1;
    int rc = words == NULL ? stop_with_code(c, ENOMEM) : iter == NULL ? raised(c) : 0;

    c->shared_tuples += is_shared;
    while (rc == 0 && i < count && (element = PyIter_Next(iter)) != NULL) {
        rc = word_from_element(c, element, &words[i]);
        if (rc == 0 && dh_is_container(words[i]) && !dh_is_ref_to(words[i], DH_T_RECORD))
            rc = stop_with(c, FAIL_ELEMENT, element); /* a packer may give one */
        i++;
        Py_DECREF(element);
    }
    c->shared_tuples -= is_shared;
    Py_XDECREF(iter);
    if (rc == 0) {
        rc = dh_frozenset_new(c->core->heap, words, i, word_out);
        if (rc != 0)
            rc = stop_with_code(c, rc);
    }
    free(words);
    return rc != 0 ? rc : memo_add(c, frozenset, *word_out);
}

static int copy_element(conversion *c, dh_word copy, PyObject *element)
{
    dh_word word;
    dhp_key key;
    bool was_new;
    int ready = dhp_key_init_plain(c->core, element, c->packing, &key);
    if (ready < 0)
        return raised(c);
    int rc = word_from_element(c, element, &word);
    if (ready == DHP_KEY_NONE) /* then the copy has failed, too, and knows what in it is refused */
        return rc != 0 ? rc : stop_with(c, FAIL_ELEMENT, element);
    if (rc == 0) {
        rc = dh_set_add(c->core->heap, copy, &key.key, word, &was_new);
        if (rc != 0)
            rc = stop_with_code(c, rc);
        else if (!was_new && !dh_is_items(word)) /* two NaNs: as in copy_entry */
            dh_value_drop(c->core->heap, word);
    }
    dhp_key_finish(&key);
    return rc;
}

static int copy_set(conversion *c, PyObject *set, dh_word *word_out)
{
    dh_heap *heap = c->core->heap;
    dh_word copy;
    int rc = dh_set_new(heap, &copy);
    if (rc == 0)
        rc = dh_set_reserve(heap, copy, (uint64_t)PySet_Size(set));
    if (rc != 0)
        return stop_with_code(c, rc);
    if (memo_add(c, set, copy) < 0)
        return -1;
    PyObject *element, *iter = PyObject_GetIter(set);
    rc = iter != NULL ? 0 : raised(c);
    while (rc == 0 && (element = PyIter_Next(iter)) != NULL) {
        rc = copy_element(c, copy, element);
        Py_DECREF(element);
    }
    Py_XDECREF(iter);
    *word_out = copy;
    return rc;
}

static int copy_list(conversion *c, PyObject *list, dh_word *word_out)
{
    dh_heap *heap = c->core->heap;
    dh_word copy;
    int rc = dh_list_new(heap, &copy);
    if (rc != 0)
        return stop_with_code(c, rc);
    if (memo_add(c, list, copy) < 0)
        return -1;
    Py_ssize_t count = PyList_Size(list);
    for (Py_ssize_t i = 0; i < count; i++) {
        dh_word item;
        if (word_from_any(c, PyList_GetItem(list, i), &item) < 0) {
            note_index(c, i);
            return -1;
        }
        rc = dh_list_append(heap, copy, item);
        if (rc != 0)
            return stop_with_code(c, rc);
    }
    *word_out = copy;
    return 0;
}

/* The elements are listed first: there is no other way to them without an iterator. */
static int fill_deque(conversion *c, PyObject *deque, dh_word copy)
{
    PyObject *elements = PySequence_List(deque);
    Py_ssize_t count = elements != NULL ? PyList_Size(elements) : -1;
    int rc = count < 0 ? raised(c) : 0;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        dh_word item;
        rc = word_from_any(c, PyList_GetItem(elements, i), &item);
        if (rc != 0)
            note_index(c, i);
        else if ((rc = dh_list_append(c->core->heap, copy, item)) != 0)
            rc = stop_with_code(c, rc);
    }
    Py_XDECREF(elements);
    return rc;
}

static int copy_deque(conversion *c, PyObject *deque, dh_word *word_out)
{
    PyObject *maxlen_obj = PyObject_GetAttrString(deque, "maxlen");
    uint64_t maxlen = DH_DEQUE_UNBOUNDED;
    if (maxlen_obj != NULL && maxlen_obj != Py_None)
        maxlen = PyLong_AsUnsignedLongLong(maxlen_obj);
    Py_XDECREF(maxlen_obj);
    if (PyErr_Occurred())
        return raised(c);
    int rc = dh_deque_new(c->core->heap, maxlen, word_out);
    if (rc != 0)
        return stop_with_code(c, rc);
    return memo_add(c, deque, *word_out) < 0 ? -1 : fill_deque(c, deque, *word_out);
}

/* One entry of a plain dict into the copy. */
static int copy_entry(conversion *c, dh_word copy, PyObject *key_obj, PyObject *value_obj)
{
    dh_word key_word, value;
    dhp_key key;
    bool was_new;

    if (word_from_any(c, value_obj, &value) < 0) {
        note_place(c, key_obj);
        return -1;
    }
    int ready = dhp_key_init_plain(c->core, key_obj, c->packing, &key);
    if (ready == DHP_KEY_NONE)
        return stop_with(
            c, dhp_packing_lacks(c->core, c->packing, key_obj) ? FAIL_UNPACKED : FAIL_KEY, key_obj);
    if (ready < 0)
        return raised(c);
    if (key.key.tag == 's' && !key.is_packed) {
        int stored = dh_dict_set_str(c->core->heap, copy, &key.key, value);
        dhp_key_finish(&key);
        return stored == 0 ? 0 : stop_with_code(c, stored);
    }
    int rc = word_from_any(c, key_obj, &key_word);
    if (rc == 0) {
        rc = dh_dict_set(c->core->heap, copy, &key.key, key_word, value, &was_new);
        if (rc != 0)
            rc = stop_with_code(c, rc);
        else if (!was_new && !dh_is_items(key_word)) /* two NaNs: differ to Python, not to us; a
            tuple may stand in the memo and is left to the collector */
            dh_value_drop(c->core->heap, key_word);
    }
    dhp_key_finish(&key);
    return rc;
}

/* Where in the dict a conversion stopped. */
static void note_number(conversion *c, PyObject *dict, Py_ssize_t number)
{
    PyObject *key = NULL, *value;
    Py_ssize_t position = 0;
    while (number-- >= 0 && PyDict_Next(dict, &position, &key, &value))
        ;
    if (key != NULL)
        note_place(c, key);
}

/* All values of a plain dict, which come in its order. */
static int convert_values(conversion *c, PyObject *dict, PyObject *const *values, dh_word *words)
{
    Py_ssize_t count = PyDict_Size(dict);
    for (Py_ssize_t i = 0; i < count; i++)
        if (word_from_any(c, values[i], &words[i]) < 0) {
            note_number(c, dict, i);
            return -1;
        }
    return 0;
}

/* A dict whose keys are known as a shape. The arena never moves, and nobody sees the copy before it
 * is complete: the values are made where they stay. */
static int copy_shaped(conversion *c, PyObject *dict, PyObject *const *values, dh_word shape,
                       dh_word *word_out)
{
    dh_word *words;
    int rc = dh_dict_new_shaped(c->core->heap, shape, word_out, &words);
    if (rc != 0)
        return stop_with_code(c, rc);
    return memo_add(c, dict, *word_out) < 0 ? -1 : convert_values(c, dict, values, words);
}

static int copy_dict(conversion *c, PyObject *dict, dh_word *word_out)
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
        return stop_with_code(c, rc);
    if (memo_add(c, dict, copy) < 0)
        return -1;
    while (PyDict_Next(dict, &position, &key, &value))
        if (copy_entry(c, copy, key, value) < 0)
            return -1;
    *word_out = copy;
    return 0;
}

static int copy_container(conversion *c, PyObject *obj, dh_word *word_out)
{
    PyTypeObject *type = Py_TYPE(obj);
    dh_word known = dhp_memo_find(&c->memo, memo_key(obj));
    if (known != DH_EMPTY) {
        if (dh_is_items(known))
            dh_tuple_share(c->core->heap, known);
        *word_out = known;
        return 0;
    }
    if (Py_EnterRecursiveCall(" while a value is copied into a heap") != 0)
        return raised(c);
    int rc = type == &PyDict_Type        ? copy_dict(c, obj, word_out)
             : type == &PyList_Type      ? copy_list(c, obj, word_out)
             : type == &PySet_Type       ? copy_set(c, obj, word_out)
             : type == &PyTuple_Type     ? copy_tuple(c, obj, word_out)
             : type == &PyFrozenSet_Type ? copy_frozenset(c, obj, word_out)
                                         : copy_deque(c, obj, word_out);
    Py_LeaveRecursiveCall();
    return rc;
}

static int word_from_any(conversion *c, PyObject *obj, dh_word *word_out)
{
    int done = word_from_scalar(c, obj, word_out);
    if (done != 0)
        return done > 0 ? 0 : -1;
    return copy_container(c, obj, word_out);
}

static int word_in_rounds(dhp_core *core, PyObject *obj, dhp_packing *packing, dh_word *word_out)
{
    conversion c;
    int rc;
    do {
        conversion_begin(&c, core, packing);
        rc = conversion_end(&c, word_from_any(&c, obj, word_out));
    } while (rc == DHP_RETRY && (rc = pack_for(core, packing, obj)) == 0);
    return rc;
}

int dhp_word_from_slow(dhp_core *core, PyObject *obj, dh_word *word_out)
{
    dhp_packing packing = {0};
    int rc = word_in_rounds(core, obj, &packing, word_out);
    dhp_packing_finish(core, &packing);
    return rc;
}

int dhp_word_with(dhp_core *core, PyObject *obj, dhp_packing *packing, dh_word *word_out)
{
    int done = dhp_word_scalar(core, obj, word_out);
    if (done != 0)
        return done > 0 ? 0 : -1;
    return word_in_rounds(core, obj, packing, word_out);
}

int dhp_word_from_key(dhp_core *core, PyObject *obj, const dhp_key *key, dh_word *word_out)
{
    return key->packing != NULL ? word_in_rounds(core, obj, key->packing, word_out)
                                : dhp_word_from(core, obj, word_out);
}

static void *array_new(Py_ssize_t count, size_t item_bytes)
{
    void *array =
        (size_t)count < SIZE_MAX / item_bytes - 1 ? malloc(((size_t)count + 1) * item_bytes) : NULL;
    if (array == NULL)
        PyErr_NoMemory();
    return array;
}

static int convert_sequence(conversion *c, PyObject *seq, dh_word *words, Py_ssize_t count)
{
    int is_list = PyList_CheckExact(seq), rc = 0;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        PyObject *item = is_list ? PyList_GetItem(seq, i) : PyTuple_GetItem(seq, i);
        rc = word_from_any(c, item, &words[i]);
        if (rc != 0)
            note_index(c, i);
    }
    return rc;
}

int dhp_words_from_sequence(dhp_core *core, PyObject *seq, dh_word **words_out, size_t *count_out)
{
    dhp_packing packing = {0};
    dh_word *words = NULL;
    Py_ssize_t count;
    conversion c;
    int rc;

    do { /* a packer may have changed the length */
        free(words);
        count = PyList_CheckExact(seq) ? PyList_Size(seq) : PyTuple_Size(seq);
        words = array_new(count, sizeof *words);
        if (words == NULL) {
            rc = -1;
            break;
        }
        conversion_begin(&c, core, &packing);
        rc = conversion_end(&c, convert_sequence(&c, seq, words, count));
    } while (rc == DHP_RETRY && (rc = pack_for(core, &packing, seq)) == 0);
    dhp_packing_finish(core, &packing);
    if (rc != 0) {
        free(words);
        return -1;
    }
    *words_out = words;
    *count_out = (size_t)count;
    return 0;
}

static int convert_fields(conversion *c, PyObject *names, PyObject *values, dh_word *words)
{
    Py_ssize_t count = PyTuple_Size(values);
    for (Py_ssize_t i = 0; i < count; i++)
        if (word_from_any(c, PyTuple_GetItem(values, i), &words[i]) < 0) {
            note_place(c, PyTuple_GetItem(names, i));
            return -1;
        }
    return 0;
}

int dhp_words_from_fields(dhp_core *core, PyObject *names, PyObject *values, dh_word *words)
{
    dhp_packing packing = {0};
    conversion c;
    int rc;

    do {
        conversion_begin(&c, core, &packing);
        rc = conversion_end(&c, convert_fields(&c, names, values, words));
    } while (rc == DHP_RETRY && (rc = pack_for(core, &packing, values)) == 0);
    dhp_packing_finish(core, &packing);
    return rc;
}

/* Key and value of one entry of an update. */
static int convert_pair(conversion *c, dh_word target, PyObject *key_obj, PyObject *value_obj,
                        dh_word pair[2])
{
    dh_word ignored;
    dhp_key key;

    if (word_from_any(c, value_obj, &pair[1]) < 0) {
        note_place(c, key_obj);
        return -1;
    }
    int ready = dhp_key_init_plain(c->core, key_obj, c->packing, &key);
    if (ready == DHP_KEY_NONE)
        return stop_with(
            c, dhp_packing_lacks(c->core, c->packing, key_obj) ? FAIL_UNPACKED : FAIL_KEY, key_obj);
    if (ready < 0)
        return raised(c);
    bool is_cheap = key.text == NULL && key.buffer == NULL && !key.is_packed;
    int rc = target != 0 ? dh_dict_get(c->core->heap, target, &key.key, &ignored) : DH_E_ABSENT;
    dhp_key_finish(&key);
    if (rc == 0 && is_cheap) {
        pair[0] = DH_EMPTY;
        return 0;
    }
    if (rc != 0 && rc != DH_E_ABSENT)
        return stop_with_code(c, rc);
    return word_from_any(c, key_obj, &pair[0]);
}

static int convert_entries(conversion *c, PyObject *dict, dh_word target, dh_word *pairs)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    int rc = 0;
    for (; rc == 0 && PyDict_Next(dict, &position, &key, &value); pairs += 2)
        rc = convert_pair(c, target, key, value, pairs);
    return rc;
}

int dhp_words_from_dict(dhp_core *core, PyObject *dict, dh_word target, const dhp_packing *packing,
                        dh_word *pairs)
{
    conversion c;
    conversion_begin(&c, core, packing);
    return conversion_end(&c, convert_entries(&c, dict, target, pairs));
}

int dhp_words_from_values(dhp_core *core, PyObject *dict, PyObject *const *values,
                          const dhp_packing *packing, dh_word *words)
{
    conversion c;
    conversion_begin(&c, core, packing);
    return conversion_end(&c, convert_values(&c, dict, values, words));
}

void dhp_words_drop(dhp_core *core, const dh_word *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (words[i] != DH_EMPTY)
            dh_value_drop(core->heap, words[i]);
}
