/* dict_take.c -- taking entries out of a Dict: del, pop, popitem.
 *
 * What comes back is made into an object before the entry goes, so that a value that cannot be read
 * stays. Reading a packed value runs Python code: the entry is looked at again afterwards, and goes
 * only if it is still the one that was read. The store itself needs no memory.
 */
#include "state.h"

#include <stdlib.h>

/* No codes of the core. RAISED: an exception is set. TAKE_AGAIN: what was looked at has changed. */
enum { RAISED = -1000, TAKE_AGAIN = -1001 };

/* Values that a packer's reader sees may change under it this often before it is an error. */
#define TAKES_MAX 16

static void raise_restless(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "the container changed each time a value was unpacked to be taken out");
}

/* With Python's collector paused: the value's word, and an object with placeholders if wanted. */
static int take_look(dhp_proxy *self, const dh_key *key, dh_word *value_out, PyObject **raw_out)
{
    dh_word dict = dhp_word_for_store(self);
    int rc = dict != 0 ? dh_dict_get(self->core->heap, dict, key, value_out) : RAISED;
    if (rc == 0 && raw_out != NULL && (*raw_out = dhp_raw_from(self->core, *value_out)) == NULL)
        rc = RAISED;
    return rc;
}

/* Remove the entry if its value is still the one that raw was made from. */
static int take_out(dhp_proxy *self, const dh_key *key, dh_word value, PyObject *raw)
{
    dh_word now;
    int rc = take_look(self, key, &now, NULL);
    if (rc != 0)
        return rc;
    if (now != value || !dhp_is_still(self->core, now, raw))
        return TAKE_AGAIN;
    return dh_dict_delete(self->core->heap, dhp_word_for_store(self), key, NULL);
}

/* Remove the entry; its value comes back as an object. A packed value is unpacked first, so that
 * one that cannot be read stays; that runs Python code, so look again afterwards. */
static int dict_take(dhp_proxy *self, const dh_key *key, PyObject **value_out)
{
    int rc = TAKE_AGAIN;
    for (int i = 0; rc == TAKE_AGAIN && i < TAKES_MAX; i++) {
        uint64_t count_before = self->core->placeholders_count;
        PyObject *raw = NULL, *object = NULL;
        dh_word value;
        int was_enabled = dhp_gc_pause();
        rc = take_look(self, key, &value, &raw);
        if (rc == 0 && self->core->placeholders_count != count_before) {
            dhp_gc_resume(was_enabled);
            object = dhp_resolve(self->core, count_before, Py_NewRef(raw));
            was_enabled = dhp_gc_pause();
            rc = object != NULL ? 0 : RAISED;
        } else if (rc == 0) {
            object = Py_NewRef(raw);
        }
        if (rc == 0)
            rc = take_out(self, key, value, raw);
        dhp_gc_resume(was_enabled);
        Py_XDECREF(raw);
        if (rc == 0)
            *value_out = object;
        else
            Py_XDECREF(object);
    }
    if (rc != TAKE_AGAIN)
        return rc;
    raise_restless();
    return RAISED;
}

static int dict_drop(dhp_proxy *self, const dh_key *key)
{
    dh_word dict = dhp_word_for_store(self);
    return dict != 0 ? dh_dict_delete(self->core->heap, dict, key, NULL) : RAISED;
}

int dhp_dict_remove(dhp_proxy *self, PyObject *key_obj, PyObject **value_out)
{
    dhp_key key;
    int ready = dhp_key_find(self->core, key_obj, &key);
    if (ready < 0)
        return -1;
    if (ready == DHP_KEY_NONE)
        return dhp_word_for_store(self) != 0 ? 1 : -1;
    int rc = value_out != NULL ? dict_take(self, &key.key, value_out) : dict_drop(self, &key.key);
    dhp_key_finish(&key);
    if (rc != 0 && rc != RAISED && rc != DH_E_ABSENT)
        dhp_raise(self->core, rc);
    return rc == 0 ? 0 : rc == DH_E_ABSENT ? 1 : -1;
}

/* --- the newest -------------------------------------------------------------------------------- */

/* With Python's collector paused: words of the last entry. */
static int last_entry(dhp_proxy *self, dh_word *key_out, dh_word *value_out)
{
    dh_dict_pos position = {0, 0};
    dh_word dict = dhp_word_for_store(self);
    int rc =
        dict != 0 ? dh_dict_prev(self->core->heap, dict, &position, key_out, value_out) : RAISED;
    if (rc == 0)
        PyErr_SetString(PyExc_KeyError, "popitem(): dictionary is empty");
    else if (rc < 0 && rc != RAISED)
        dhp_raise(self->core, rc);
    return rc == 1 ? 0 : RAISED;
}

/* Remove the last entry if it is still the one that the raw objects were made from. */
static int take_last_out(dhp_proxy *self, const dh_word words[2], PyObject *const raws[2])
{
    dh_heap *heap;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
    dh_word key, value;
    dh_key found;

    int rc = last_entry(self, &key, &value);
    if (rc != 0)
        return rc;
    if (key != words[0] || value != words[1] || !dhp_is_still(self->core, key, raws[0]) ||
        !dhp_is_still(self->core, value, raws[1]))
        return TAKE_AGAIN;
    heap = self->core->heap;
    rc = dh_key_from_word(heap, key, scratch, &found, &buffer);
    if (rc == 0)
        rc = dh_dict_delete(heap, dhp_word_for_store(self), &found, NULL);
    free(buffer);
    if (rc == 0)
        return 0;
    dhp_raise(self->core, rc);
    return RAISED;
}

/* The last entry as a pair, then out with it; as dict_take. */
static int take_last(dhp_proxy *self, PyObject **pair_out)
{
    uint64_t count_before = self->core->placeholders_count;
    PyObject *raws[2] = {NULL, NULL}, *pair = NULL;
    dh_word words[2];
    int was_enabled = dhp_gc_pause();
    int rc = last_entry(self, &words[0], &words[1]);
    if (rc == 0)
        rc = dhp_raws_from_pair(self->core, words[0], words[1], &raws[0], &raws[1]);
    if (rc == 0)
        pair = PyTuple_Pack(2, raws[0], raws[1]);
    if (pair != NULL && self->core->placeholders_count != count_before) {
        dhp_gc_resume(was_enabled);
        pair = dhp_resolve(self->core, count_before, pair);
        was_enabled = dhp_gc_pause();
    }
    rc = pair != NULL ? take_last_out(self, words, raws) : RAISED;
    dhp_gc_resume(was_enabled);
    Py_XDECREF(raws[0]);
    Py_XDECREF(raws[1]);
    if (rc == 0)
        *pair_out = pair;
    else
        Py_XDECREF(pair);
    return rc;
}

const char dhp_dict_popitem_doc[] = "popitem($self, /)\n--\n\n"
                                    "Remove and return the newest (key, value). O(1).\n\n"
                                    "Raises KeyError when the dict is empty.";
PyObject *dhp_dict_popitem(PyObject *obj, PyObject *ignored)
{
    PyObject *pair = NULL;
    int rc = TAKE_AGAIN;
    (void)ignored;
    for (int i = 0; rc == TAKE_AGAIN && i < TAKES_MAX; i++)
        rc = take_last((dhp_proxy *)obj, &pair);
    if (rc == TAKE_AGAIN)
        raise_restless();
    return pair;
}
