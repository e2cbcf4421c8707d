/* records.h -- what the files about records share: schemas, layouts, and who may ask which.
 *
 * A *schema* is what this program says about a record class (Python's side, one per class). A
 * *stored class* is what a heap says (the CLASS cell, one per class and set of fields). A *layout*
 * joins the two: where the fields of this schema stand in records of that stored class. Layouts
 * are volatile, per heap, and dropped when a collection or rollback may have freed the CLASS.
 */
#ifndef DHP_RECORDS_H
#define DHP_RECORDS_H

#include "../src/record.h"
#include "state.h"

/* One field as the program declares it. */
typedef struct {
    PyObject *name;     /* interned str                                                   */
    PyObject *fallback; /* the default, or NULL                                           */
    PyObject *factory;  /* makes a default, or NULL                                       */
    bool is_shown;      /* in repr                                                        */
    bool is_compared;   /* in ==                                                          */
    /* From set_types on: */
    dh_kinds kinds;
    PyObject *classes; /* tuple: instances are accepted too; NULL: nothing beyond kinds  */
    PyObject *names;   /* tuple of str: what kinds do not say, for the stored class      */
    PyObject *covered; /* frozenset of str: names in stored classes that fit this field  */
    PyObject *text;    /* the type, for messages                                         */
} dhp_field_info;

typedef struct {
    PyObject_HEAD uint64_t id; /* unique in the process */
    PyTypeObject *owner;       /* the record class      */
    PyObject *name;            /* str: its name in heaps */
    PyObject *complete;        /* called once, when the annotations are needed */
    PyObject *fields_names;    /* tuple of str */
    Py_ssize_t count;
    dhp_field_info *fields;
    bool is_ready;   /* set_types was called              */
    bool is_retired; /* another class took over the name  */
    bool has_post_init;
    bool is_compared; /* == compares fields, else identity */
} dhp_schema;

enum { DHP_SLOT_ABSENT = -1 };
typedef enum { DHP_BY_NAME, DHP_FITS, DHP_MISFITS } dhp_layout_state;

typedef struct dhp_layout {
    struct dhp_layout *next; /* of the same stored class, for another schema   */
    uint64_t schema_id;
    dhp_layout_state state; /* BY_NAME: the kinds have not been compared yet  */
    Py_ssize_t misfit;      /* index of a field that cannot be read            */
    int16_t *slots;         /* per field of the schema: index, or ABSENT       */
    int16_t *places;        /* the same in records whose class is a number     */
    dh_kinds in_place[];    /* per field: what the stored class lets it hold   */
} dhp_layout;

/* A stored class that was met. */
typedef struct {
    dh_word word;
    uint64_t serial;
    unsigned number;          /* 0: it has none                                              */
    PyTypeObject *type;       /* borrowed from the registry, like schema; both are right      */
    const dhp_schema *schema; /* while version is the registry's. NULL: an unknown class      */
    uint64_t version;
    dhp_layout *layouts;
} dhp_stored_class;

/* The stored class that new records of a schema get; word 0: none yet. */
typedef struct {
    dh_word word;
    uint64_t serial;
} dhp_own_class;

struct dhp_layouts {
    uint64_t frees_count;
    dhp_stored_class **classes; /* open addressing by word, power of two */
    dhp_stored_class *numbered[DH_RECORD_NUMBER_MAX + 1]; /* the same, those that have a number */
    size_t room, count;
    dhp_own_class *own; /* by schema id */
    size_t own_room;
};

/* --- record_layouts.c ------------------------------------------------------------------------- */
/* Before anything else here: forget the stored classes that went. Runs no Python code. */
int dhp_layouts_refresh(dhp_core *core);
/* str of a name in a stored class; new. HeapCorruptError for what is none. */
PyObject *dhp_class_text(dhp_core *core, dh_word word);
/* What this program reads the record as: class and schema. NULL: exception. Runs no Python code
 * unless the heap is damaged. */
const dhp_stored_class *dhp_record_class(dhp_core *core, dh_word record);
/* Find or make; NULL: exception. Compares names, and kinds when the schema is ready. */
dhp_layout *dhp_layout_named(dhp_core *core, dh_word class_word, const dhp_schema *schema);
/* The same for reading and writing: the schema must be ready. RecordClassError when it does not
 * fit. */
dhp_layout *dhp_layout_get(dhp_core *core, dh_word class_word, const dhp_schema *schema);
/* The stored class for new records of a schema that is ready; made when there is none. */
int dhp_class_own(dhp_core *core, const dhp_schema *schema, dh_word *class_out);

static inline size_t dhp_class_home(const struct dhp_layouts *layouts, dh_word class_word)
{
    return (size_t)((class_word >> 9) * 0x9E3779B97F4A7C15u >> 32) & (layouts->room - 1);
}
/* The layout when it is known and fits, else NULL. The record may have been peeked at only. */
static inline const dhp_layout *dhp_layout_find(const dhp_core *core, const dh_record_view *view,
                                                const dhp_schema *schema)
{
    const struct dhp_layouts *layouts = core->layouts;
    if (DH_UNLIKELY(layouts == NULL || layouts->frees_count != core->heap->frees_count))
        return NULL;
    const dhp_stored_class *class = layouts->numbered[view->number];
    if (DH_UNLIKELY(view->number == 0)) {
        size_t i = dhp_class_home(layouts, view->class_word);
        while (layouts->classes[i] != NULL && layouts->classes[i]->word != view->class_word)
            i = (i + 1) & (layouts->room - 1);
        class = layouts->classes[i];
    }
    const dhp_layout *layout = class != NULL ? class->layouts : NULL;
    while (layout != NULL && layout->schema_id != schema->id)
        layout = layout->next;
    return layout != NULL && layout->state == DHP_FITS ? layout : NULL;
}
/* Where this record has the field; negative: nowhere. */
static inline int dhp_layout_place(const dhp_layout *layout, const dh_record_view *view,
                                   Py_ssize_t index)
{
    return view->number != 0 ? layout->places[index] : layout->slots[index];
}

/* --- record_schema.c -------------------------------------------------------------------------- */
extern PyType_Spec dhp_schema_spec;
/* The schema of a record class, a new reference; NULL without exception when it is none. */
dhp_schema *dhp_schema_of(dhp_state *state, PyObject *class);
/* Resolve the annotations. May run Python code. */
int dhp_schema_ready(dhp_schema *schema);
/* The value as the field takes it, a new reference; TypeError. May run Python code. */
PyObject *dhp_field_admit(dhp_state *state, const dhp_schema *schema, Py_ssize_t index,
                          PyObject *value);
/* Is the word that was made of an admitted value one that the field holds? An abstract class may let
 * in what it was not known to, when the annotations were resolved. 0, or -1 with TypeError. */
int dhp_field_check(const dhp_schema *schema, Py_ssize_t index, PyObject *value, dh_word word);
/* The kind that the object will have in a heap; 0: not known before it is converted. */
dh_kinds dhp_kind_of_object(const dhp_state *state, PyObject *obj);
/* "int | None" for what a stored class says of a field; new. */
PyObject *dhp_stored_type_text(dhp_core *core, const dh_class_view *view, size_t index);
/* RecordClassError(format % ...); -1. */
int dhp_raise_record_class(dhp_state *state, const char *format, ...);

/* --- record_fields.c -------------------------------------------------------------------------- */
extern PyType_Spec dhp_field_spec;
/* Value of a field; new. store: what a default_factory makes is stored first. May run Python code. */
PyObject *dhp_record_value(dhp_proxy *self, dhp_schema *schema, Py_ssize_t index, bool store);
/* The same for a repr: with placeholders (unpack.c) where something must be unpacked. */
PyObject *dhp_record_raw(dhp_proxy *self, dhp_schema *schema, Py_ssize_t index);

/* --- record_type.c ---------------------------------------------------------------------------- */
extern PyType_Spec dhp_record_spec;
/* The name of its class; TypeError when it is no record. */
PyObject *dhp_record_name(dhp_state *state, PyObject *obj);
extern PyType_Spec dhp_unknown_record_spec;
/* {name: value} as it was stored, whatever this program says of the class; new. May run Python code
 * (unpackers). */
PyObject *dhp_record_stored(dhp_proxy *record);
/* Core.new_record(class, *args, **kwargs). */
PyObject *dhp_record_new(dhp_core *core, PyObject *args, PyObject *kwargs);

#endif
