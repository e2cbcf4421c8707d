/* ext.c -- EXT cells: making, reading and checking them.
 *
 * Contract and layout: ext.h. Like all readers of values these trust neither sizes nor forms, for
 * the bytes may come from a damaged file. Must never interpret a payload.
 */
#include "ext.h"

#include "span.h"

#define EXT_SIZE_MAX 0x3fffffffu
#define EXT_FORM_BITS 2u
#define EXT_FORM_MASK 3u

enum { FORM_NO_KEY = 0, FORM_PAYLOAD_KEY = 1, FORM_OWN_KEY = 2 };

static unsigned form_of(const dh_ext_view *ext)
{
    if (ext->key_tag == 0)
        return FORM_NO_KEY;
    if (ext->key_tag == 'x' && ext->key_size == ext->payload_size &&
        memcmp(ext->key, ext->payload, ext->key_size) == 0)
        return FORM_PAYLOAD_KEY;
    return FORM_OWN_KEY;
}

int dh_ext_new(dh_heap *heap, const dh_ext_view *ext, dh_word *word_out)
{
    unsigned form = form_of(ext);
    uint32_t head = (uint32_t)ext->payload_size << EXT_FORM_BITS | form;
    uint32_t key_size = (uint32_t)ext->key_size + 1;
    size_t key_bytes = form == FORM_OWN_KEY ? sizeof key_size + key_size : 0;
    dh_off off;

    if (ext->payload_size == 0 || ext->payload_size > EXT_SIZE_MAX || ext->key_size >= EXT_SIZE_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "a packed value of %zu bytes is too large",
                        ext->payload_size + ext->key_size);
    int rc = dh_cell_new(heap, sizeof head + key_bytes + ext->payload_size, DH_RAW, &off);
    if (rc != 0)
        return rc;
    uint8_t *at = dh_at(heap, off);
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    if (form == FORM_OWN_KEY) {
        memcpy(at, &key_size, sizeof key_size);
        at[sizeof key_size] = ext->key_tag;
        if (ext->key_size > 0)
            memcpy(at + sizeof key_size + 1, ext->key, ext->key_size);
    }
    memcpy(at + key_bytes, ext->payload, ext->payload_size);
    *word_out = dh_ref(DH_T_EXT, off);
    return 0;
}

/* The key between head and payload; false when it does not fit the cell. */
static bool read_own_key(const uint8_t **at, size_t *room, dh_ext_view *view)
{
    uint32_t key_size;
    if (*room < sizeof key_size)
        return false;
    memcpy(&key_size, *at, sizeof key_size);
    *room -= sizeof key_size;
    if (key_size == 0 || key_size > *room)
        return false;
    view->key_tag = (*at)[sizeof key_size];
    view->key = *at + sizeof key_size + 1;
    view->key_size = key_size - 1;
    *at += sizeof key_size + key_size;
    *room -= key_size;
    return view->key_tag != 0;
}

int dh_ext_read(const dh_heap *heap, dh_word w, dh_ext_view *view_out)
{
    dh_ext_view view = {0};
    uint32_t head = EXT_FORM_MASK;
    size_t room = 0;
    const uint8_t *at = dhi_span(heap, w, DH_T_EXT, &room);
    if (at != NULL) {
        memcpy(&head, at, sizeof head);
        at += sizeof head;
        room -= sizeof head;
    }
    unsigned form = head & EXT_FORM_MASK;
    bool is_sound = at != NULL && form <= FORM_OWN_KEY;
    if (is_sound && form == FORM_OWN_KEY)
        is_sound = read_own_key(&at, &room, &view);
    view.payload = at;
    view.payload_size = head >> EXT_FORM_BITS;
    if (!is_sound || view.payload_size == 0 || view.payload_size > room)
        return dhi_fail(heap, DH_E_CORRUPT, "packed value word %#llx is damaged",
                        (unsigned long long)w);
    if (form == FORM_PAYLOAD_KEY) {
        view.key_tag = 'x';
        view.key = view.payload;
        view.key_size = view.payload_size;
    }
    *view_out = view;
    return 0;
}

bool dh_ext_is_opaque(const dh_heap *heap, dh_word w)
{
    dh_ext_view view;
    return dh_is_ref_to(w, DH_T_EXT) && dh_ext_read(heap, w, &view) == 0 &&
           view.payload[0] >= DH_EXT_OPAQUE_FIRST;
}

int dh_ext_check(const dh_heap *heap, dh_word w)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
    dh_ext_view view;
    dh_key key;
    int rc = dh_ext_read(heap, w, &view);
    if (rc == 0)
        rc = dh_key_from_canonical(heap, view.key_tag, view.key, view.key_size, scratch, &key);
    return rc == DH_E_UNHASHABLE ? 0 : rc;
}
