/* Reads a document with the helper and writes it again, for comparison with another reader. */
#include "cpa_helper.h"

static void copy(cpa_writer *out, const char *name, const cpa_json *json) {
    switch (json->kind) {
    case CPA_STRING:
        cpa_put_text(out, name, json->text);
        break;
    case CPA_ARRAY:
        cpa_begin_list(out, name);
        for (const cpa_json *item = json->first; item != NULL; item = item->next)
            copy(out, NULL, item);
        cpa_end_list(out);
        break;
    case CPA_OBJECT:
        cpa_begin_object(out, name);
        for (const cpa_json *item = json->first; item != NULL; item = item->next) {
            char plain[256]; /* names of the tests are short and without NUL */
            snprintf(plain, sizeof plain, "%.*s", (int)item->name.len, item->name.at);
            copy(out, plain, item);
        }
        cpa_end_object(out);
        break;
    default:
        cpa_put_json(out, name, json->raw);
    }
}

/* Length of what was written to `room`, 0 for a document that was refused or is too long. */
__attribute__((visibility("default"))) size_t rewrite(const char *document, size_t len, char *room, size_t size) {
    cpa_arena arena = {NULL};
    cpa_writer out = {0};
    const cpa_json *json = cpa_parse(&arena, (cpa_text){document, len});
    if (json != NULL)
        copy(&out, NULL, json);
    size_t made = json != NULL && !out.failed && out.len <= size ? out.len : 0;
    if (made > 0)
        memcpy(room, out.at, made);
    cpa_writer_free(&out);
    cpa_arena_free(&arena);
    return made;
}
