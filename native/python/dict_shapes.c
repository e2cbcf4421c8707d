/* dict_shapes.c -- from a plain dict to the shape of its copy.
 *
 * Records of one kind are made with the same few key objects: which shape these lead to is kept, so
 * that the next such dict is recognised by comparing addresses. The objects are owned, so that no
 * other can come to stand at their addresses; the shape is looked at before it is used, because a
 * collection or a rollback may have taken it away.
 */
#include "state.h"

#include <stdlib.h>

static dhp_known_shape *known_slot(dhp_core *core, PyObject *first_key, unsigned count)
{
    uintptr_t address = (uintptr_t)first_key >> 4;
    return &core->shapes[(address ^ address >> 5 ^ count) % DHP_KNOWN_SHAPES];
}

static void known_forget(dhp_known_shape *known)
{
    known->serial = 0;
    for (unsigned i = 0; i < known->count; i++)
        Py_DECREF(known->keys[i]);
    known->count = 0;
}

void dhp_shapes_forget(dhp_core *core)
{
    for (size_t i = 0; core->shapes != NULL && i < DHP_KNOWN_SHAPES; i++)
        known_forget(&core->shapes[i]);
    free(core->shapes);
    core->shapes = NULL;
}

static bool known_has_keys(const dhp_known_shape *known, PyObject *dict, PyObject **values_out)
{
    PyObject *key;
    Py_ssize_t position = 0;
    for (unsigned i = 0; i < known->count; i++)
        if (!PyDict_Next(dict, &position, &key, &values_out[i]) || key != known->keys[i])
            return false;
    return true;
}

static void known_learn(dhp_core *core, dhp_known_shape *known, PyObject *dict, dh_word shape)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    known_forget(known);
    while (PyDict_Next(dict, &position, &key, &value))
        known->keys[known->count++] = Py_NewRef(key);
    known->shape = shape;
    known->serial = dh_shape_serial(core->heap, shape);
}

/* By the keys themselves; EMPTY also when one of them is no str. */
static dh_word shape_of_keys(dhp_core *core, PyObject *dict, PyObject **values_out)
{
    dh_key keys[DH_SHAPE_KEYS_MAX];
    PyObject *key;
    Py_ssize_t position = 0;
    unsigned count = 0;
    while (PyDict_Next(dict, &position, &key, &values_out[count])) {
        if (!PyUnicode_CheckExact(key))
            return DH_EMPTY;
        if (!dhp_key_from_text(core, key, &keys[count])) {
            PyErr_Clear(); /* lone surrogates */
            return DH_EMPTY;
        }
        if (++count == DH_SHAPE_KEYS_MAX)
            break;
    }
    return dh_shape_of_keys(core->heap, keys, count);
}

dh_word dhp_shape_of_dict(dhp_core *core, PyObject *dict, PyObject **values_out)
{
    PyObject *key, *value;
    Py_ssize_t position = 0, size = PyDict_Size(dict);
    if (size > (Py_ssize_t)DH_SHAPE_KEYS_MAX || !PyDict_Next(dict, &position, &key, &value))
        return DH_EMPTY;
    dhp_known_shape *known = known_slot(core, key, (unsigned)size);
    if (known->serial != 0 && known->count == (unsigned)size &&
        known_has_keys(known, dict, values_out) &&
        dh_shape_serial(core->heap, known->shape) == known->serial)
        return known->shape;
    dh_word shape = shape_of_keys(core, dict, values_out);
    if (shape != DH_EMPTY)
        known_learn(core, known, dict, shape);
    return shape;
}
