/* convert_in.c -- Python values to words: conversions of one value or of many.
 *
 * Exact built-in types only, so nothing here runs Python code: no subclass can bring its own
 * __iter__ or __eq__, and Python's collector is paused for the length of a copy. All cells of a
 * copy are made under one journal; what cannot be stored takes them all back, and only then is the
 * exception made (describing the place calls the repr of a user's keys). What needs a packer stops
 * a conversion in the same way: it is packed (pack.c), and the conversion begins again.
 */
#include "convert.h"

#include <stdlib.h>

/* --- begin and end ---------------------------------------------------------------------------- */

static void conversion_begin(dhp_conversion *c, dhp_core *core, const dhp_packing *packing)
{
    *c = (dhp_conversion){.core = core, .packing = packing};
    c->gc_was_enabled = dhp_gc_pause();
    dh_journal_begin(core->heap);
}

/* 0; DHP_RETRY, or -1 and the exception set, with everything taken back. */
static int conversion_end(dhp_conversion *c, int rc)
{
    if (rc == 0)
        dh_journal_commit(c->core->heap);
    else
        dh_journal_abort(c->core->heap);
    dhp_memo_finish(&c->memo);
    dhp_gc_resume(c->gc_was_enabled);
    if (rc != 0)
        dhp_raise_failure(c);
    Py_XDECREF(c->culprit);
    Py_XDECREF(c->path);
    return rc != 0 && c->fail == DHP_FAIL_UNPACKED ? DHP_RETRY : rc;
}

/* What is below obj gets its packed forms. 0: begin again. The heap is open and writable then. */
static int pack_for(dhp_core *core, dhp_packing *packing, PyObject *obj)
{
    if (dhp_packing_gather(core, packing, obj) < 0)
        return -1;
    return dhp_check_writable(core);
}

/* --- one value -------------------------------------------------------------------------------- */

int dhp_word_scalar(dhp_core *core, PyObject *obj, dh_word *word_out)
{
    dhp_conversion c = {.core = core};
    int done = dhp_convert_scalar(&c, obj, word_out);
    if (DH_UNLIKELY(done < 0)) {
        dhp_raise_failure(&c);
        Py_XDECREF(c.culprit);
    }
    return c.fail == DHP_FAIL_UNPACKED ? 0 : done;
}

static int word_in_rounds(dhp_core *core, PyObject *obj, dhp_packing *packing, dh_word *word_out)
{
    dhp_conversion c;
    int rc;
    do {
        conversion_begin(&c, core, packing);
        rc = conversion_end(&c, dhp_convert_any(&c, obj, word_out));
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

/* --- many ------------------------------------------------------------------------------------- */

static void *array_new(Py_ssize_t count, size_t item_bytes)
{
    void *array =
        (size_t)count < SIZE_MAX / item_bytes - 1 ? malloc(((size_t)count + 1) * item_bytes) : NULL;
    if (array == NULL)
        PyErr_NoMemory();
    return array;
}

static int convert_sequence(dhp_conversion *c, PyObject *seq, dh_word *words, Py_ssize_t count)
{
    int is_list = PyList_CheckExact(seq), rc = 0;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        PyObject *item = is_list ? PyList_GetItem(seq, i) : PyTuple_GetItem(seq, i);
        rc = dhp_convert_any(c, item, &words[i]);
        if (rc != 0)
            dhp_note_index(c, i);
    }
    return rc;
}

int dhp_words_from_sequence(dhp_core *core, PyObject *seq, dh_word **words_out, size_t *count_out)
{
    dhp_packing packing = {0};
    dh_word *words = NULL;
    Py_ssize_t count;
    dhp_conversion c;
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

static int convert_fields(dhp_conversion *c, PyObject *names, PyObject *values, dh_word *words)
{
    Py_ssize_t count = PyTuple_Size(values);
    for (Py_ssize_t i = 0; i < count; i++)
        if (dhp_convert_any(c, PyTuple_GetItem(values, i), &words[i]) < 0) {
            dhp_note_place(c, PyTuple_GetItem(names, i));
            return -1;
        }
    return 0;
}

int dhp_words_from_fields(dhp_core *core, PyObject *names, PyObject *values, dh_word *words)
{
    dhp_packing packing = {0};
    dhp_conversion c;
    int rc;

    do {
        conversion_begin(&c, core, &packing);
        rc = conversion_end(&c, convert_fields(&c, names, values, words));
    } while (rc == DHP_RETRY && (rc = pack_for(core, &packing, values)) == 0);
    dhp_packing_finish(core, &packing);
    return rc;
}

/* Key and value of one entry of an update. */
static int convert_pair(dhp_conversion *c, dh_word target, PyObject *key_obj, PyObject *value_obj,
                        dh_word pair[2])
{
    dh_word ignored;
    dhp_key key;

    if (dhp_convert_any(c, value_obj, &pair[1]) < 0) {
        dhp_note_place(c, key_obj);
        return -1;
    }
    int ready = dhp_key_init_plain(c->core, key_obj, c->packing, &key);
    if (ready == DHP_KEY_NONE)
        return dhp_stop_with(
            c, dhp_packing_lacks(c->core, c->packing, key_obj) ? DHP_FAIL_UNPACKED : DHP_FAIL_KEY,
            key_obj);
    if (ready < 0)
        return dhp_stop_raised(c);
    bool is_cheap = key.text == NULL && key.buffer == NULL && !key.is_packed;
    int rc = target != 0 ? dh_dict_get(c->core->heap, target, &key.key, &ignored) : DH_E_ABSENT;
    dhp_key_finish(&key);
    if (rc == 0 && is_cheap) {
        pair[0] = DH_EMPTY;
        return 0;
    }
    if (rc != 0 && rc != DH_E_ABSENT)
        return dhp_stop_with_code(c, rc);
    return dhp_convert_any(c, key_obj, &pair[0]);
}

static int convert_entries(dhp_conversion *c, PyObject *dict, dh_word target, dh_word *pairs)
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
    dhp_conversion c;
    conversion_begin(&c, core, packing);
    return conversion_end(&c, convert_entries(&c, dict, target, pairs));
}

int dhp_words_from_values(dhp_core *core, PyObject *dict, PyObject *const *values,
                          const dhp_packing *packing, dh_word *words)
{
    dhp_conversion c;
    conversion_begin(&c, core, packing);
    return conversion_end(&c, dhp_convert_values(&c, dict, values, words));
}

void dhp_words_drop(dhp_core *core, const dh_word *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (words[i] != DH_EMPTY)
            dh_value_drop(core->heap, words[i]);
}
