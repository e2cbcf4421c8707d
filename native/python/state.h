/* state.h -- what the files of the Python binding share: module state, object structs, helpers.
 *
 * Who may do what, everywhere in native/python:
 *
 *  - Between the first and the last store of one operation no Python code runs and the GIL is not
 *    given up. So everything that can run Python code (a user's __hash__, __eq__, __index__, an
 *    iterator, and on CPython 3.11 any allocation of a collected object, because that may start
 *    Python's collector) comes first; or stands between dhp_gc_pause and dhp_gc_resume.
 *  - A word, a position or a pointer into the arena is worth nothing after Python code ran: the
 *    heap may have been written, rolled back or closed. Ask dhp_word again.
 *  - New cells are made under the journal, the journal is settled, then comes the store: an open
 *    journal would take back what the container allocated for itself.
 */
#ifndef DHP_STATE_H
#define DHP_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "../src/array.h"
#include "../src/buffer.h"
#include "../src/deque.h"
#include "../src/dict.h"
#include "../src/ext.h"
#include "../src/gate.h"
#include "../src/list.h"
#include "../src/set.h"
#include "memo.h"

/* Per module. Types hold the module, proxies hold their type: it outlives every object. */
typedef struct {
    PyTypeObject *core_type;
    PyTypeObject *block_type;
    PyTypeObject *container_type; /* base of all containers        */
    PyTypeObject *dict_type;
    PyTypeObject *list_type;
    PyTypeObject *deque_type;
    PyTypeObject *buffer_type;
    PyTypeObject *array_type;
    PyTypeObject *record_type;
    PyTypeObject *unknown_type; /* of records whose class is not registered */
    PyTypeObject *schema_type;
    PyTypeObject *field_type;
    PyTypeObject *set_type;
    PyTypeObject
        *types[DH_TYPES_COUNT]; /* borrowed: the container's class by the type in its ref */
    PyTypeObject *dict_iter_type;
    PyTypeObject *list_iter_type;
    PyTypeObject *set_iter_type;
    PyTypeObject *deque_iter_type;
    PyTypeObject *plain_deque_type; /* collections.deque */
    PyTypeObject *keys_type;
    PyTypeObject *values_type;
    PyTypeObject *items_type;
    PyTypeObject *sorted_type;
    PyTypeObject *sorted_iter_type;
    PyTypeObject *sorted_keys_type;
    PyTypeObject *sorted_values_type;
    PyTypeObject *sorted_items_type;
    PyTypeObject *packed_type; /* placeholders, never seen by a user                  */
    PyObject *arrays;          /* module dirtyheap.arrays, imported when first needed */
    PyObject *errors;          /* module dirtyheap.errors, imported when first needed  */
    PyObject *scalars;         /* module dirtyheap.scalars, the same; and three tables of it: */
    PyObject *packers;         /* dict: exact type -> packer(core, obj)                */
    PyObject *lazy_packers;    /* dict: name of a module -> finder(type)               */
    PyObject *unpackers;       /* list: by code, unpacker(data)                        */
    PyTypeObject *datetime_type, *date_type, *timedelta_type; /* of dates.c; NULL: not loaded */
    PyObject *utc, *reduce_ex, *protocol;
    PyObject *mapping_abc;    /* collections.abc.Mapping                             */
    PyObject *record_classes; /* name -> record class, what heaps' records are read as */
    uint64_t records_version; /* changes with record_classes                        */
    uint64_t schemas_count;   /* made in this process                               */
} dhp_state;

#define DHP_SMALL_INTS 1024
#define DHP_KNOWN_TEXTS 64u
#define DHP_KNOWN_TEXT_BYTES_MAX 64

/* A str that is a key again and again, with its key. */
typedef struct {
    dh_key key;
    PyObject *text; /* owned, or NULL */
} dhp_known_text;

/* A stored key that is read again and again, with its object. */
typedef struct {
    dh_word word;
    PyObject *text;   /* owned, or NULL                          */
    const char *utf8; /* of the text, which owns it              */
    size_t size;
    dh_word seen; /* the last other key that came to this slot */
} dhp_name;
#define DHP_NAMES 256u
#define DHP_NAME_BYTES_MAX 64u

/* The shape of plain dicts with these key objects, in this order. */
typedef struct {
    dh_word shape;
    uint64_t serial; /* 0: nothing is known */
    unsigned count;
    PyObject *keys[DH_SHAPE_KEYS_MAX]; /* owned */
} dhp_known_shape;
#define DHP_KNOWN_SHAPES 16u

typedef struct dhp_block dhp_block;

/* Owner of one heap. */
typedef struct {
    PyObject_HEAD dh_heap *heap; /* NULL: closed                                              */
    dhp_state *state;
    uint64_t *int_hashes;        /* of 0 .. DHP_SMALL_INTS - 1 as keys; 0: not yet made  */
    dh_key int_key;              /* key of the int 0, the form of all others             */
    dhp_known_text *texts;       /* DHP_KNOWN_TEXTS slots, by address                   */
    void **texts_seen;           /* by slot: the last other one, an address only        */
    dhp_name *names;             /* DHP_NAMES slots, by word                              */
    dhp_known_shape *shapes;     /* DHP_KNOWN_SHAPES slots, by address of the first key */
    Py_ssize_t exports_count;    /* views of buffers still alive, also after close   */
    PyGILState_STATE gil;        /* of the stop under way                            */
    int stops_depth;             /* stops under way, nested ones included; under GIL */
    dhp_block *blocks;           /* transactions under way, the innermost first      */
    uint64_t marks_count;        /* beginnings of blocks and savepoints, in one order */
    uint64_t undone_mark;        /* the first block undone since last asked; 0: none */
    struct dhp_layouts *layouts; /* of records; NULL: none met yet                */
    char undo_failed;            /* one of them could not be taken back              */
    char allow_pickle;           /* Pickled values may be read                       */
    uint64_t placeholders_count; /* made so far; tells whether an operation made one */
    PyObject *orphans;           /* list of objects that may not die yet, or NULL    */
    PyObject *on_due;            /* called when a collection is due, or NULL         */
    PyThread_type_lock due_lock; /* held while a thread is on its way to call it     */
    PyObject *weakrefs;
} dhp_core;

/* A container's Python object: every Container is this. */
typedef struct {
    PyObject_HEAD dh_handle handle; /* word 0: stale, or the heap is closed */
    dhp_core *core;                 /* owned                                */
    PyObject *weakrefs;
} dhp_proxy;

/* --- errors.c ------------------------------------------------------------------------------------
 * All of these set an exception; the int ones return -1, the pointer ones NULL. */
int dhp_raise(dhp_core *core, int rc);        /* from a code of the core */
int dhp_raise_open(dhp_state *state, int rc); /* from dh_heap_open       */
int dhp_raise_named(dhp_state *state, const char *name, const char *text);
int dhp_raise_dead(dhp_proxy *self); /* stale or closed         */
int dhp_raise_key(PyObject *key);    /* KeyError(key)           */

/* --- recursion.c ------------------------------------------------------------------------------
 * One level deeper; nonzero with RecursionError set: do not leave then. */
int dhp_recursion_enter(const char *where);
void dhp_recursion_leave(void);

/* --- block_type.c ----------------------------------------------------------------------------- */
PyObject *dhp_block_new(dhp_core *core, PyObject *args);
/* Forget the savepoints of all transactions: the heap goes. */
void dhp_blocks_drop(dhp_core *core);
/* The mark of the innermost transaction; 0: none. */
uint64_t dhp_blocks_mark(const dhp_core *core);

/* --- proxy.c ---------------------------------------------------------------------------------- */
/* The one object for the container at this ref; a new reference. Runs no Python code. */
PyObject *dhp_proxy_get(dhp_core *core, dh_word word);
PyObject *dhp_proxy_refuse_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *dhp_proxy_deepcopy(PyObject *self, PyObject *memo);
void dhp_proxy_dealloc(PyObject *self);
extern PyType_Spec dhp_container_spec;
static inline int dhp_is_proxy(const dhp_state *state, PyObject *obj)
{
    return PyObject_TypeCheck(obj, state->container_type);
}
/* dh_handle is the second member of the object: back from it to the object. */
static inline dhp_proxy *dhp_proxy_of(dh_handle *handle)
{
    return (dhp_proxy *)((char *)handle - offsetof(dhp_proxy, handle));
}

/* The container's word, or 0 with an exception set. Cheap: ask again after anything that can run
 * Python code. */
static inline dh_word dhp_word(dhp_proxy *self)
{
    dh_word word = self->handle.word;
    if (DH_UNLIKELY(word == 0))
        dhp_raise_dead(self);
    return word;
}
/* The store gate (gate.h); -1 with an exception. */
int dhp_check_writable(dhp_core *core);
/* The same for those who can do without the store: 1 or 0, and no exception. */
int dhp_is_writable(dhp_core *core);
/* The container's word before a store. */
static inline dh_word dhp_word_for_store(dhp_proxy *self)
{
    dh_word word = dhp_word(self);
    if (DH_UNLIKELY(word != 0 && self->core->heap->is_gated != 0) &&
        dhp_check_writable(self->core) < 0)
        return 0;
    return word;
}

/* Give the variable a new object (or NULL) and release the old one. */
static inline void dhp_replace(PyObject **variable, PyObject *new_object)
{
    PyObject *old = *variable;
    *variable = new_object;
    Py_XDECREF(old);
}

/* Python's own collector, off while words are held across allocations of collected objects. */
static inline int dhp_gc_pause(void) { return PyGC_Disable(); }
static inline void dhp_gc_resume(int was_enabled)
{
    if (was_enabled)
        PyGC_Enable();
}

/* --- pack.c ----------------------------------------------------------------------------------- */
/* Packed forms of objects, by address. A form: (key bytes or None, payload bytes), a container, or
 * NotImplemented. Zero memory is the empty table. */
typedef struct {
    dhp_memo forms;    /* owned objects                               */
    PyObject *sources; /* list: keeps the objects at their addresses  */
    int rounds_count;
} dhp_packing;

/* What conversions return that met something without a packed form. */
enum { DHP_RETRY = 1 };

/* Pack everything below obj that needs it and is not in the table yet. Runs Python code: the
 * heap may be closed afterwards. 0, or -1 with an exception. */
int dhp_packing_gather(dhp_core *core, dhp_packing *packing, PyObject *obj);
/* The form, borrowed, or NULL. packing may be NULL. The rest of these run no Python code. */
PyObject *dhp_packing_find(const dhp_packing *packing, PyObject *obj);
/* Is obj, or an element of this tuple or frozenset, one that a packer was not yet asked for? */
int dhp_packing_lacks(dhp_core *core, const dhp_packing *packing, PyObject *obj);
void dhp_packing_finish(dhp_core *core, dhp_packing *packing);
/* May run Python code. */
void dhp_orphans_release(dhp_core *core);
/* due.c: dh_world.due */
int dhp_due(void *context);
PyObject *dhp_set_on_due(PyObject *self, PyObject *callable);
PyObject *dhp_wait_due(PyObject *self, PyObject *unused);
int dhp_has_packer(dhp_core *core, PyObject *obj);
PyObject *dhp_scalars(dhp_state *state);

/* --- dates.c ---------------------------------------------------------------------------------- */
/* A packed form whose key has the tag 'x'. */
typedef struct {
    uint8_t payload[16], key[16];
    size_t payload_size, key_size;
} dhp_date_form;
/* 1: done; 0: not one that C can pack. Runs no Python code while Python's collector is paused. */
int dhp_date_pack(const dhp_state *state, PyObject *obj, dhp_date_form *form);
/* A new object; NULL without an exception: not one of these. The same. */
PyObject *dhp_date_unpack(const dhp_state *state, const dh_ext_view *ext);
int dhp_dates_load(dhp_state *state);

/* --- key.c ------------------------------------------------------------------------------------ */
/* A key made from a Python object; borrows from the object, so keep that alive. */
typedef struct {
    dh_key key;
    PyObject *text;       /* owned: what key borrows from, or NULL          */
    uint8_t *buffer;      /* malloc'd canonical bytes, or NULL              */
    dhp_packing *packing; /* malloc'd: forms of what is packed in it, or NULL */
    dhp_core *core;       /* with packing                                   */
    bool is_packed;       /* borrows from a packed form                     */
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
} dhp_key;

enum { DHP_KEY_READY = 0, DHP_KEY_NONE = 1 }; /* NONE: hashable, but no heap can hold it */
int dhp_key_init_slow(dhp_core *core, PyObject *obj, dhp_key *out);
int dhp_key_init_plain_slow(dhp_core *core, PyObject *obj, const dhp_packing *packing,
                            dhp_key *out);
int dhp_key_find_slow(dhp_core *core, PyObject *obj, dhp_key *out);
void dhp_key_finish_slow(dhp_key *k);

/* Half of the time of a hot lookup with a small int is its hash: those are kept. */
static inline void dhp_key_from_int(dhp_core *core, int64_t v, dh_key *key_out)
{
    if (DH_LIKELY((uint64_t)v < DHP_SMALL_INTS && core->int_hashes[v] != 0)) {
        *key_out = core->int_key;
        key_out->hash = core->int_hashes[v];
        key_out->word = dh_int(v);
        key_out->number = v;
        return;
    }
    dh_key_from_int(core->heap, v, key_out);
    if ((uint64_t)v < DHP_SMALL_INTS)
        core->int_hashes[v] = key_out->hash;
}

/* The names in a program are few objects used again and again: their keys are kept too. */
static inline size_t dhp_text_slot(PyObject *text)
{
    uintptr_t address = (uintptr_t)text >> 4;
    return (address ^ address >> 6) % DHP_KNOWN_TEXTS;
}
bool dhp_key_from_new_text(dhp_core *core, PyObject *text, dh_key *key_out);
static inline bool dhp_key_from_text(dhp_core *core, PyObject *text, dh_key *key_out)
{
    const dhp_known_text *known = &core->texts[dhp_text_slot(text)];
    if (known->text != text)
        return dhp_key_from_new_text(core, text, key_out);
    *key_out = known->key;
    return core->heap != NULL;
}

/* The usual keys. True: done. */
static inline bool dhp_key_init_fast(dhp_core *core, PyObject *obj, dhp_key *out)
{
    out->text = NULL;
    out->buffer = NULL;
    out->packing = NULL;
    out->is_packed = false;
    if (PyUnicode_CheckExact(obj))
        return dhp_key_from_text(core, obj, &out->key);
    if (PyLong_CheckExact(obj)) {
        int overflow;
        long long v = PyLong_AsLongLongAndOverflow(obj, &overflow);
        if (DH_UNLIKELY(overflow != 0 || !dh_int_fits(v) || core->heap == NULL))
            return false;
        dhp_key_from_int(core, v, &out->key);
        return true;
    }
    return false;
}
/* DHP_KEY_READY, DHP_KEY_NONE, or -1 with an exception. READY: the heap is open; otherwise no
 * finish is needed. Python code may have run. */
static inline int dhp_key_init(dhp_core *core, PyObject *obj, dhp_key *out)
{
    return DH_LIKELY(dhp_key_init_fast(core, obj, out)) ? DHP_KEY_READY
                                                        : dhp_key_init_slow(core, obj, out);
}
/* The same for a lookup: other types may stand for the plain value that they are equal to. */
static inline int dhp_key_find(dhp_core *core, PyObject *obj, dhp_key *out)
{
    return DH_LIKELY(dhp_key_init_fast(core, obj, out)) ? DHP_KEY_READY
                                                        : dhp_key_find_slow(core, obj, out);
}
/* The same without asking an unsupported object for its hash, or a packer: runs no Python code. */
static inline int dhp_key_init_plain(dhp_core *core, PyObject *obj, const dhp_packing *packing,
                                     dhp_key *out)
{
    return DH_LIKELY(dhp_key_init_fast(core, obj, out))
               ? DHP_KEY_READY
               : dhp_key_init_plain_slow(core, obj, packing, out);
}
static inline void dhp_key_finish(dhp_key *k)
{
    if (DH_UNLIKELY(k->text != NULL || k->buffer != NULL || k->packing != NULL))
        dhp_key_finish_slow(k);
}

/* UTF-8 of a str, lone surrogates included. *owner_out: bytes to release afterwards, or NULL. */
const char *dhp_utf8(PyObject *str, Py_ssize_t *size_out, PyObject **owner_out);
/* Little-endian magnitude without leading zeros of an int beyond 63 bits; malloc'd. */
int dhp_int_magnitude(PyObject *obj, bool *is_negative_out, uint8_t **data_out, size_t *size_out);

/* --- convert_in.c (its parts: convert.h) ------------------------------------------------------ */
/* Convert what needs no memo and no packer. 1: done; 0: it does; -1: exception. A cell made for it
 * belongs to the caller. */
int dhp_word_scalar(dhp_core *core, PyObject *obj, dh_word *word_out);
/* Convert any value. Containers are copied in whole, or not at all. Packers may run Python code,
 * but none has run since the word was made. */
int dhp_word_from_slow(dhp_core *core, PyObject *obj, dh_word *word_out);
/* The same with packed forms that are there already: then no Python code runs. */
int dhp_word_with(dhp_core *core, PyObject *obj, dhp_packing *packing, dh_word *word_out);
/* The word of an object that a key was made from: the same packed forms, never others. */
int dhp_word_from_key(dhp_core *core, PyObject *obj, const dhp_key *key, dh_word *word_out);
static inline bool dhp_word_from_int(PyObject *obj, dh_word *word_out)
{
    int overflow;
    if (!PyLong_CheckExact(obj))
        return false;
    long long v = PyLong_AsLongLongAndOverflow(obj, &overflow);
    *word_out = dh_int(v);
    return overflow == 0 && dh_int_fits(v);
}
static inline int dhp_word_from(dhp_core *core, PyObject *obj, dh_word *word_out)
{
    if (dhp_word_from_int(obj, word_out))
        return 0;
    int done = dhp_word_scalar(core, obj, word_out);
    if (DH_LIKELY(done != 0))
        return done > 0 ? 0 : -1;
    return dhp_word_from_slow(core, obj, word_out);
}
/* Convert many under one journal and one memo; all or nothing. The items are those of an exact
 * list or tuple, which must stay alive until the words are stored. words: malloc'd. */
int dhp_words_from_sequence(dhp_core *core, PyObject *seq, dh_word **words_out, size_t *count_out);
/* For update: pairs[2i] = key word, or EMPTY when the key is present in target already and cheap
 * to make again; pairs[2i+1] = value. target 0: an empty dict. 0; DHP_RETRY and nothing made: gather
 * for the dict and call again; -1. */
int dhp_words_from_dict(dhp_core *core, PyObject *dict, dh_word target, const dhp_packing *packing,
                        dh_word *pairs);
/* Only the values of a plain dict, which come in its order; the same. */
int dhp_words_from_values(dhp_core *core, PyObject *dict, PyObject *const *values,
                          const dhp_packing *packing, dh_word *words);
/* The same for the values of a record, a tuple; names, a tuple too, say where a failure was. */
int dhp_words_from_fields(dhp_core *core, PyObject *names, PyObject *values, dh_word *words);
/* Give back words that were not stored. New containers among them are left to the collector. */
void dhp_words_drop(dhp_core *core, const dh_word *words, size_t count);

/* --- dict_shapes.c ---------------------------------------------------------------------------- */
/* The shape that a copy of this plain dict would have, or EMPTY; with Python's collector paused and
 * the heap open. Runs no Python code. values_out: DH_SHAPE_KEYS_MAX; with a shape the dict's values,
 * borrowed. */
dh_word dhp_shape_of_dict(dhp_core *core, PyObject *dict, PyObject **values_out);
void dhp_shapes_forget(dhp_core *core);

/* --- convert_out.c ---------------------------------------------------------------------------- */
/* Finish a memo whose values are objects, owned. */
void dhp_memo_release(dhp_memo *memo);
/* A new object for a word, with placeholders for what is packed. Runs no Python code. */
PyObject *dhp_raw_from_slow(dhp_core *core, dh_word word);
static inline PyObject *dhp_raw_from(dhp_core *core, dh_word word)
{
    if (dh_is_int(word))
        return PyLong_FromLongLong(dh_int_value(word));
    return dhp_raw_from_slow(core, word);
}
/* A new Python object for a word. Runs Python code, but none while it still needs the arena. */
PyObject *dhp_object_from_slow(dhp_core *core, dh_word word);
static inline PyObject *dhp_object_from(dhp_core *core, dh_word word)
{
    if (dh_is_int(word))
        return PyLong_FromLongLong(dh_int_value(word));
    return dhp_object_from_slow(core, word);
}
/* Both objects of an entry; runs Python code. */
int dhp_objects_from_pair(dhp_core *core, dh_word key, dh_word value, PyObject **key_out,
                          PyObject **value_out);
/* The tuple of both, which are taken over, also on failure. */
PyObject *dhp_pair_object(PyObject *key, PyObject *value);
/* The same with placeholders; runs none. */
int dhp_raws_from_pair(dhp_core *core, dh_word key, dh_word value, PyObject **key_out,
                       PyObject **value_out);

/* --- names.c ---------------------------------------------------------------------------------- */
/* As dhp_raw_from, for a key: the same object again for a str that is read again and again, whose
 * hash Python then knows. */
PyObject *dhp_raw_key_slow(dhp_core *core, dh_word word);
static inline PyObject *dhp_raw_key(dhp_core *core, dh_word word)
{
    if (dh_is_int(word))
        return PyLong_FromLongLong(dh_int_value(word));
    return dhp_raw_key_slow(core, word);
}
/* As dhp_object_from. */
static inline PyObject *dhp_key_object(dhp_core *core, dh_word word)
{
    if (dh_is_short(word) || dh_is_ref_to(word, DH_T_STR))
        return dhp_raw_key_slow(core, word);
    return dhp_object_from(core, word);
}
void dhp_names_forget(dhp_core *core);

/* --- unpack.c --------------------------------------------------------------------------------- */
extern PyType_Spec dhp_packed_spec;
/* A placeholder for an EXT word, or at once the value where that takes no Python code. */
PyObject *dhp_packed_from(dhp_core *core, dh_word word);
/* The value of an EXT word. */
PyObject *dhp_unpacked(dhp_core *core, dh_word word);
/* The three that follow unpack if placeholders were made since the counter stood at count_before;
 * they run Python code. Takes obj over (NULL passes through): what the user shall see instead. */
PyObject *dhp_resolve(dhp_core *core, uint64_t count_before, PyObject *obj);
/* Takes a private list, dict or set over and gives it back, resolved in its place. */
PyObject *dhp_resolve_inside(dhp_core *core, uint64_t count_before, PyObject *copy);
/* The same for all lists, dicts and sets among the memo's objects, whatever the counter says. */
int dhp_resolve_all(dhp_core *core, const dhp_memo *copies);
/* Is the value behind the same word still the one that raw was made from? */
int dhp_is_still(dhp_core *core, dh_word word, PyObject *raw);

/* --- to_python.c ----------------------------------------------------------------------------- */
/* Plain deep copy of anything; cycles and shared references kept. */
PyObject *dhp_to_python(dhp_state *state, PyObject *obj);

/* --- dict_type.c, dict_take.c, dict_update.c, dict_iter.c, dict_views.c ----------------------- */
extern PyType_Spec dhp_dict_spec;
extern PyType_Spec dhp_dict_iter_spec;
extern PyType_Spec dhp_keys_spec;
extern PyType_Spec dhp_values_spec;
extern PyType_Spec dhp_items_spec;
extern const char dhp_dict_update_doc[];

typedef enum { DHP_KEYS, DHP_VALUES, DHP_ITEMS } dhp_dict_part;
Py_ssize_t dhp_dict_length(PyObject *self);
int dhp_dict_contains(PyObject *self, PyObject *key);
/* Value of key as a new reference; *found_out = 0 and NULL when absent. NULL + found: error. */
PyObject *dhp_dict_lookup(dhp_proxy *self, PyObject *key, int *found_out);
int dhp_dict_store(dhp_proxy *self, PyObject *key, PyObject *value);
/* Remove an entry; with value_out its value comes back as an object first. 0, 1: absent, -1. */
int dhp_dict_remove(dhp_proxy *self, PyObject *key, PyObject **value_out);
PyObject *dhp_dict_popitem(PyObject *self, PyObject *ignored);
extern const char dhp_dict_popitem_doc[];
/* The update method's work: other (may be NULL) and kwargs (may be NULL). */
int dhp_dict_update(dhp_proxy *self, PyObject *other, PyObject *kwargs);
PyObject *dhp_dict_update_method(PyObject *self, PyObject *args, PyObject *kwargs);
/* Any mapping or iterable of pairs, as a plain dict; runs Python code. */
PyObject *dhp_collect_entries(PyObject *other);
/* Set operations of views: these see the left operand as an iterable, the right one as anything. */
PyObject *dhp_setview_or(PyObject *left, PyObject *right);
PyObject *dhp_setview_and(PyObject *left, PyObject *right);
PyObject *dhp_setview_sub(PyObject *left, PyObject *right);
PyObject *dhp_setview_xor(PyObject *left, PyObject *right);
PyObject *dhp_setview_isdisjoint(PyObject *self, PyObject *other);
/* Between a view and something set-like. */
PyObject *dhp_setview_compare(PyObject *self, PyObject *other, int op);
/* Plain dict with the same entries; raw: with placeholders, and without running Python code. */
PyObject *dhp_dict_copy(dhp_proxy *self);
PyObject *dhp_dict_copy_raw(dhp_proxy *self);
PyObject *dhp_dict_iter_new(dhp_proxy *self, dhp_dict_part part, int is_reversed);
PyObject *dhp_dict_view_new(dhp_proxy *self, dhp_dict_part part);
PyObject *dhp_dict_richcompare(PyObject *self, PyObject *other, int op);
/* What set operators take: set, frozenset, Set and the set-like views of dicts. */
int dhp_is_set_like(const dhp_state *state, PyObject *obj);

/* --- list_type.c, list_slices.c, list_search.c, list_sort.c ----------------------------------- */
extern PyType_Spec dhp_list_spec;
extern PyType_Spec dhp_list_iter_spec;

Py_ssize_t dhp_list_length(PyObject *self);
/* Remove and return an item; empty_text: of the IndexError when there is none. */
PyObject *dhp_list_pop(dhp_proxy *self, Py_ssize_t index, const char *empty_text);
PyObject *dhp_list_item(PyObject *self, Py_ssize_t index);
PyObject *dhp_list_iter_new(dhp_proxy *self, int is_reversed);
/* Plain list with the same values; raw: with placeholders, and without running Python code. */
PyObject *dhp_list_copy(dhp_proxy *self);
PyObject *dhp_list_copy_raw(dhp_proxy *self);
int dhp_list_extend(dhp_proxy *self, PyObject *iterable);
PyObject *dhp_list_subscript(PyObject *self, PyObject *item);
int dhp_list_ass_subscript(PyObject *self, PyObject *item, PyObject *value);
/* Words for a splice, made from any iterable; malloc'd. Lists of the same heap are cloned. *keep_out:
 * to be released when the words are stored, for its end may run Python code. */
int dhp_list_words(dhp_core *core, PyObject *iterable, dh_word **words_out, size_t *count_out,
                   PyObject **keep_out);
int dhp_list_splice(dhp_proxy *self, Py_ssize_t start, Py_ssize_t removed, dh_word *words,
                    size_t count);
int dhp_list_contains(PyObject *self, PyObject *value);
/* Values that the core can compare: searching for them runs no Python code. */
int dhp_list_is_scalar(PyObject *value);
/* The first index in [start, stop) of a value, or -1; -2: exception. With count_out: how many. */
Py_ssize_t dhp_list_scan(dhp_proxy *self, PyObject *value, Py_ssize_t start, Py_ssize_t stop,
                         Py_ssize_t *count_out);
/* start and stop among the arguments of index(). */
int dhp_list_index_bounds(dhp_proxy *self, PyObject *const *args, Py_ssize_t nargs,
                          Py_ssize_t *start_out, Py_ssize_t *stop_out);
PyObject *dhp_list_index(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *dhp_list_count(PyObject *self, PyObject *value);
PyObject *dhp_list_remove(PyObject *self, PyObject *value);
PyObject *dhp_list_sort(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *dhp_list_richcompare(PyObject *self, PyObject *other, int op);
PyObject *dhp_list_concat(PyObject *self, PyObject *other);
PyObject *dhp_list_repeat(PyObject *self, Py_ssize_t times);
PyObject *dhp_list_inplace_repeat(PyObject *self, Py_ssize_t times);
/* The words of the list in one malloc'd array, for comparing later. */
int dhp_list_snapshot(dhp_proxy *self, dh_word **words_out, size_t *count_out);
extern const char dhp_list_index_doc[], dhp_list_count_doc[], dhp_list_remove_doc[],
    dhp_list_sort_doc[];

/* --- deque_type.c, deque_search.c ------------------------------------------------------------- */
extern PyType_Spec dhp_deque_spec;
extern PyType_Spec dhp_deque_iter_spec;

PyObject *dhp_deque_new(dhp_core *core, PyObject *initial, PyObject *maxlen);
int dhp_deque_read(dhp_proxy *self, dh_deque_state *state_out);
PyObject *dhp_deque_item(PyObject *self, Py_ssize_t index);
int dhp_deque_extend(dhp_proxy *self, PyObject *iterable, int is_left);
/* A collections.deque with the same values and maxlen. */
PyObject *dhp_deque_copy(dhp_proxy *self);
PyObject *dhp_deque_iter_new(dhp_proxy *self, int is_reversed);
int dhp_deque_contains(PyObject *self, PyObject *value);
PyObject *dhp_deque_index(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *dhp_deque_count(PyObject *self, PyObject *value);
PyObject *dhp_deque_remove(PyObject *self, PyObject *value);
PyObject *dhp_deque_richcompare(PyObject *self, PyObject *other, int op);
extern const char dhp_deque_index_doc[], dhp_deque_count_doc[], dhp_deque_remove_doc[];

/* --- record_layouts.c (more: records.h) ------------------------------------------------------- */
void dhp_layouts_drop(dhp_core *core);

/* --- set_type.c, set_iter.c, set_update.c, set_algebra.c -------------------------------------- */
extern PyType_Spec dhp_set_spec;
extern PyType_Spec dhp_set_iter_spec;

static inline int dhp_is_set(const dhp_core *core, PyObject *obj)
{
    return Py_TYPE(obj) == core->state->set_type;
}
/* The same, in the same heap: the core can work on both. */
static inline int dhp_is_set_here(const dhp_core *core, PyObject *obj)
{
    return dhp_is_set(core, obj) && ((dhp_proxy *)obj)->core == core;
}
Py_ssize_t dhp_set_length(PyObject *self);
/* A key for a lookup, as dhp_key_find: a set stands for the frozenset of its elements. */
int dhp_set_key(dhp_core *core, PyObject *obj, dhp_key *out);
int dhp_set_contains(PyObject *self, PyObject *element);
PyObject *dhp_set_iter_new(dhp_proxy *self);
/* Plain set with the same elements. */
PyObject *dhp_set_copy(dhp_proxy *self);
/* A plain list, in order, with placeholders for what is packed. */
PyObject *dhp_set_list_raw(dhp_proxy *self);
/* The element that a word stands for, or its placeholder, into a plain set that has nothing else: no
 * Python code runs. */
int dhp_set_put(dhp_core *core, PyObject *plain, dh_word word);
/* A new plain set of those elements of self that others has. Runs Python code. */
PyObject *dhp_set_common(dhp_proxy *self, PyObject *others);
/* TypeError for what no set of a heap can hold: as set gives it for the unhashable. */
int dhp_set_refuse(PyObject *element);

/* Change in place; each is done whole or not at all. */
int dhp_set_update(dhp_proxy *self, PyObject *const *others, Py_ssize_t count);
int dhp_set_keep(dhp_proxy *self, PyObject *const *others, Py_ssize_t count);
int dhp_set_take_out(dhp_proxy *self, PyObject *const *others, Py_ssize_t count);
int dhp_set_toggle(dhp_proxy *self, PyObject *other);

/* Methods and operators that make plain sets or answer questions. */
PyObject *dhp_set_union(PyObject *self, PyObject *const *others, Py_ssize_t count);
PyObject *dhp_set_intersection(PyObject *self, PyObject *const *others, Py_ssize_t count);
PyObject *dhp_set_difference(PyObject *self, PyObject *const *others, Py_ssize_t count);
PyObject *dhp_set_symmetric_difference(PyObject *self, PyObject *other);
PyObject *dhp_set_isdisjoint(PyObject *self, PyObject *other);
PyObject *dhp_set_issubset(PyObject *self, PyObject *other);
PyObject *dhp_set_issuperset(PyObject *self, PyObject *other);
PyObject *dhp_set_or(PyObject *left, PyObject *right);
PyObject *dhp_set_and(PyObject *left, PyObject *right);
PyObject *dhp_set_sub(PyObject *left, PyObject *right);
PyObject *dhp_set_xor(PyObject *left, PyObject *right);
PyObject *dhp_set_richcompare(PyObject *self, PyObject *other, int op);

/* --- buffer_type.c, array_type.c, core_type.c -------------------------------------------------- */
extern PyType_Spec dhp_buffer_spec;
/* The buffer protocol over the bytes of this Buffer, for an object of the same heap. The word has
 * just been asked for. */
int dhp_buffer_export(dhp_proxy *owner, dh_word buffer, Py_buffer *view, int flags);
void dhp_buffer_release(PyObject *owner, Py_buffer *view);
extern PyType_Spec dhp_array_spec;
PyObject *dhp_buffer_dunder(PyObject *self, PyObject *flags);
extern const char dhp_buffer_dunder_doc[];
/* The ndarray that shows this Array if one is alive, else the Array itself as a placeholder. */
PyObject *dhp_array_raw(dhp_core *core, dh_word word);
/* The ndarray for an Array, or a copy of it in plain memory. Both run Python code. */
PyObject *dhp_array_show(PyObject *array);
PyObject *dhp_array_copy(PyObject *array);
/* A copy in plain memory of an ndarray that lives in a heap; any other as it is. */
PyObject *dhp_ndarray_copy(dhp_state *state, PyObject *ndarray);
/* Exactly numpy.ndarray, new reference; NULL without an exception as long as nobody imported it. */
PyObject *dhp_ndarray_type(void);
PyObject *dhp_array_new(dhp_core *core, PyObject *owner, PyObject *description);
extern PyType_Spec dhp_core_spec;
extern PyType_Spec dhp_block_spec;
/* A new empty container of this type, linked nowhere yet. */
dhp_proxy *dhp_container_new(dhp_core *core, dh_type type);

#endif
