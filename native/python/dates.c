/* dates.c -- datetime, date and timedelta packed and unpacked without Python code.
 *
 * The same bytes as dirtyheap/standard_types.py makes, for the values that come in millions: naive
 * datetimes and those in UTC. Calls of exact C types only, so conversion may come here in mid-walk;
 * they allocate, so Python's collector must be paused where words are held. What is left out here,
 * damaged bytes too, is Python's to handle: NULL or 0 without an exception says so.
 */
#include "state.h"

#include <stdlib.h>

/* Codes of the format, as in standard_types.py. */
enum { CODE_DATETIME = 2, CODE_DATE = 3, CODE_TIMEDELTA = 5 };

/* The state that these types pickle: year (2 bytes, big-endian), month, day, and of a datetime hour,
 * minute, second, microsecond (3 bytes). Bit 7 of a datetime's month is the fold. */
#define DATETIME_BYTES 10u
#define DATE_BYTES 4u
#define TIMEDELTA_BYTES 9u
#define FOLD 0x80
#define DAY_MICROSECONDS INT64_C(86400000000)

static int days_in_month(int year, int month)
{
    static const int8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && is_leap);
}

static int year_of(const uint8_t *state) { return state[0] << 8 | state[1]; }

static int is_date(const uint8_t *state, int month)
{
    int year = year_of(state);
    return year >= 1 && year <= 9999 && month >= 1 && month <= 12 && state[3] >= 1 &&
           state[3] <= days_in_month(year, month);
}

static int is_time_of_day(const uint8_t *state)
{
    uint32_t micros = (uint32_t)(state[3] << 16 | state[4] << 8 | state[5]);
    return state[0] < 24 && state[1] < 60 && state[2] < 60 && micros < 1000000;
}

/* Microseconds since the beginning of year 1. */
static int64_t micros_of(const uint8_t *state)
{
    int year = year_of(state), month = state[2] & ~FOLD, before = year - 1;
    int64_t days = before * 365 + before / 4 - before / 100 + before / 400 + state[3] - 1;
    for (int m = 1; m < month; m++)
        days += days_in_month(year, m);
    int64_t seconds = (state[4] * 60 + state[5]) * 60 + state[6];
    return days * DAY_MICROSECONDS + seconds * 1000000 +
           (state[7] << 16 | state[8] << 8 | state[9]);
}

/* --- packing ---------------------------------------------------------------------------------- */

static void form_set(dhp_date_form *form, uint8_t code, const uint8_t *data, size_t size)
{
    form->payload[0] = code;
    memcpy(form->payload + 1, data, size);
    memcpy(form->key, form->payload, size + 1);
    form->payload_size = form->key_size = size + 1;
}

/* bytes, or bytes and UTC, are what a datetime or date pickles. 0: another zone. */
static int form_from_state(const dhp_state *state, PyObject *args, dhp_date_form *form)
{
    PyObject *bytes = PyTuple_GetItem(args, 0);
    int is_utc = PyTuple_Size(args) == 2 && PyTuple_GetItem(args, 1) == state->utc;
    if (bytes == NULL || !PyBytes_CheckExact(bytes) || (PyTuple_Size(args) != 1 && !is_utc))
        return 0;
    const uint8_t *data = (const uint8_t *)PyBytes_AsString(bytes);
    size_t size = (size_t)PyBytes_Size(bytes);
    if (size != DATETIME_BYTES && (size != DATE_BYTES || is_utc))
        return 0;
    form_set(form, size == DATE_BYTES ? CODE_DATE : CODE_DATETIME, data, size);
    if (is_utc) {
        int64_t micros = micros_of(data);
        form->payload[form->payload_size++] = 'u';
        form->key[1] = 'u';
        memcpy(form->key + 2, &micros, sizeof micros);
        form->key[10] = 0; /* never negative */
    } else if (size == DATETIME_BYTES) {
        form->key[3] &= (uint8_t)~FOLD;
    }
    return 1;
}

/* As pickle asks: the class, then its arguments. Protocols below 4 lose the fold. */
static int form_from_date(const dhp_state *state, PyObject *obj, dhp_date_form *form)
{
    PyObject *reduced = PyObject_CallMethodObjArgs(obj, state->reduce_ex, state->protocol, NULL);
    PyObject *args = reduced && PyTuple_CheckExact(reduced) && PyTuple_Size(reduced) == 2
                         ? PyTuple_GetItem(reduced, 1)
                         : NULL;
    int done = args && PyTuple_CheckExact(args) ? form_from_state(state, args, form) : 0;
    Py_XDECREF(reduced);
    PyErr_Clear();
    return done;
}

static long long field_of(PyObject *obj, const char *name)
{
    PyObject *field = PyObject_GetAttrString(obj, name);
    long long number = field ? PyLong_AsLongLong(field) : -1;
    Py_XDECREF(field);
    return number;
}

static int form_from_timedelta(PyObject *obj, dhp_date_form *form)
{
    uint8_t data[TIMEDELTA_BYTES];
    int32_t days = (int32_t)field_of(obj, "days");
    long long micros = field_of(obj, "seconds") * 1000000 + field_of(obj, "microseconds");
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    memcpy(data, &days, 4);
    memcpy(data + 4, &micros, 5);
    form_set(form, CODE_TIMEDELTA, data, sizeof data);
    return 1;
}

int dhp_date_pack(const dhp_state *state, PyObject *obj, dhp_date_form *form)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == state->timedelta_type)
        return form_from_timedelta(obj, form);
    if (type != state->datetime_type && type != state->date_type)
        return 0;
    return form_from_date(state, obj, form);
}

/* --- unpacking -------------------------------------------------------------------------------- */

/* type(bytes) or type(bytes, zone): the constructors take their pickled state, and check little. */
static PyObject *call_with_state(PyTypeObject *type, const uint8_t *data, size_t size,
                                 PyObject *zone)
{
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *made =
        bytes ? PyObject_CallFunctionObjArgs((PyObject *)type, bytes, zone, NULL) : NULL;
    Py_XDECREF(bytes);
    return made;
}

static PyObject *datetime_from(const dhp_state *state, const uint8_t *data, size_t size)
{
    int is_utc = size == DATETIME_BYTES + 1 && data[DATETIME_BYTES] == 'u';
    if ((size != DATETIME_BYTES && !is_utc) || !is_date(data, data[2] & ~FOLD) ||
        !is_time_of_day(data + 4))
        return NULL;
    return call_with_state(state->datetime_type, data, DATETIME_BYTES, is_utc ? state->utc : NULL);
}

static PyObject *date_from(const dhp_state *state, const uint8_t *data, size_t size)
{
    if (size != DATE_BYTES || !is_date(data, data[2]))
        return NULL;
    return call_with_state(state->date_type, data, size, NULL);
}

static PyObject *timedelta_from(const dhp_state *state, const uint8_t *data, size_t size)
{
    int32_t days;
    int64_t micros = 0;
    if (size != TIMEDELTA_BYTES)
        return NULL;
    memcpy(&days, data, sizeof days);
    memcpy(&micros, data + 4, 5);
    if (days < -999999999 || days > 999999999 || micros >= DAY_MICROSECONDS)
        return NULL;
    return PyObject_CallFunction((PyObject *)state->timedelta_type, "iii", (int)days,
                                 (int)(micros / 1000000), (int)(micros % 1000000));
}

PyObject *dhp_date_unpack(const dhp_state *state, const dh_ext_view *ext)
{
    const uint8_t *data = ext->payload + 1;
    size_t size = ext->payload_size - 1;
    if (state->packers == NULL)
        return NULL;
    switch (ext->payload[0]) {
    case CODE_DATETIME:
        return datetime_from(state, data, size);
    case CODE_DATE:
        return date_from(state, data, size);
    case CODE_TIMEDELTA:
        return timedelta_from(state, data, size);
    default:
        return NULL;
    }
}

/* --- set-up ----------------------------------------------------------------------------------- */

/* Only C types: nothing else is sure to run no Python code. */
static PyTypeObject *c_type(PyObject *module, const char *name)
{
    PyObject *type = PyObject_GetAttrString(module, name);
    if (type != NULL && (!PyType_Check(type) ||
                         (PyType_GetFlags((PyTypeObject *)type) & Py_TPFLAGS_IMMUTABLETYPE) == 0))
        dhp_replace(&type, Py_NewRef((PyObject *)&PyBaseObject_Type));
    return (PyTypeObject *)type;
}

int dhp_dates_load(dhp_state *state)
{
    PyObject *module = PyImport_ImportModule("datetime");
    if (module != NULL) {
        dhp_replace((PyObject **)&state->datetime_type, (PyObject *)c_type(module, "datetime"));
        dhp_replace((PyObject **)&state->date_type, (PyObject *)c_type(module, "date"));
        dhp_replace((PyObject **)&state->timedelta_type, (PyObject *)c_type(module, "timedelta"));
        dhp_replace(&state->utc, PyObject_GetAttrString(module, "UTC"));
        dhp_replace(&state->reduce_ex, PyUnicode_InternFromString("__reduce_ex__"));
        dhp_replace(&state->protocol, PyLong_FromLong(4));
        Py_DECREF(module);
    }
    return PyErr_Occurred() ? -1 : 0;
}
