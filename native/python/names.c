/* names.c -- keys that are read again and again come back as the same object.
 *
 * A str that is made anew each time costs its making, its hash at the next lookup, and memory in a
 * copy of many records. A few are kept, keys only, never values; what is kept is compared with the
 * bytes in the arena before it is given out, so that nothing stale can be.
 */
#include "state.h"

#include <stdlib.h>

static dhp_name *name_slot(dhp_core *core, dh_word word)
{
    return &core->names[word * 0x9E3779B97F4A7C15u >> 56]; /* DHP_NAMES; 2^64 / golden ratio */
}

/* The bytes of a str word; storage: of a short one. */
static bool name_view(const dhp_core *core, dh_word word, uint8_t storage[8], dh_bytes_view *out)
{
    if (!dh_is_short(word))
        return dh_is_ref_to(word, DH_T_STR) && dh_bytes_read(core->heap, word, out) == 0;
    dh_short_copy(word, storage);
    *out = (dh_bytes_view){storage, dh_short_size(word)};
    return !dh_short_is_bytes(word);
}

/* The word alone says what a short text is; a cell may be another's by now. */
static bool name_is(const dhp_core *core, const dhp_name *name, dh_word word)
{
    dh_bytes_view view;
    if (name->word != word || name->text == NULL)
        return false;
    return dh_is_short(word) ||
           (dh_bytes_read(core->heap, word, &view) == 0 && view.size == name->size &&
            memcmp(view.data, name->utf8, view.size) == 0);
}

/* At the second sight; ASCII only, whose bytes a str has without asking for memory. */
static void name_learn(dhp_core *core, dhp_name *name, dh_word word, PyObject *text)
{
    uint8_t storage[8];
    dh_bytes_view view;
    Py_ssize_t size;
    bool is_again = name->seen == word;
    name->seen = word;
    if (!is_again ||
        core->heap == NULL || /* an error on the way to the text may have run anything */
        !name_view(core, word, storage, &view) || view.size > DHP_NAME_BYTES_MAX)
        return;
    for (size_t i = 0; i < view.size; i++)
        if (view.data[i] >= 0x80)
            return;
    name->word = word;
    name->utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    name->size = (size_t)size;
    dhp_replace(&name->text, Py_NewRef(text));
}

PyObject *dhp_raw_key_slow(dhp_core *core, dh_word word)
{
    dhp_name *name = name_slot(core, word);
    if (name_is(core, name, word))
        return Py_NewRef(name->text);
    PyObject *object = dhp_raw_from(core, word);
    if (object != NULL && PyUnicode_CheckExact(object))
        name_learn(core, name, word, object);
    return object;
}

void dhp_names_forget(dhp_core *core)
{
    for (size_t i = 0; core->names != NULL && i < DHP_NAMES; i++)
        Py_XDECREF(core->names[i].text);
    free(core->names);
    core->names = NULL;
}
