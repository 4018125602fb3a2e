/*
 * cpa_helper.h - what a plugin in C needs besides the contract: JSON, base64, dispatch of methods, calls of the host.
 *
 * Copy this file and cpa_plugin.h into your plugin and include this one, in one source file. C11 and its library, no
 * dependencies. A whole plugin:
 *
 *     #include "cpa_helper.h"
 *
 *     static bool register_(cpa_call *call) {
 *         return cpa_register(call, &(cpa_registration){.name = "shout", .version = "1.0.0", .author = "me",
 *                                                       .repository = "https://example.org/shout",
 *                                                       .capabilities = "{\"request_normalizer\":true}"});
 *     }
 *
 *     static bool normalize(cpa_call *call) {
 *         cpa_text body;
 *         if (!cpa_bytes(call, cpa_request(call), "Body", &body))
 *             return cpa_fail(call, "invalid_request", "Body is not base64");
 *         cpa_begin_object(&call->result, NULL);
 *         cpa_put_bytes(&call->result, "Body", body);
 *         cpa_end_object(&call->result);
 *         return true;
 *     }
 *
 *     CPA_PLUGIN(NULL, {"plugin.register", register_}, {"plugin.reconfigure", register_},
 *                {"request.normalize", normalize})
 *
 * MEMORY. Whatever a handler gets or makes through its `call` lives until the handler returns: copy what you keep. There
 * is nothing to free. When memory runs out, writers and readers turn into ones that do nothing, and the call fails.
 *
 * INPUT. Requests may be anything: the reader takes exactly one JSON value nested at most CPA_MAX_DEPTH deep; all
 * functions accept NULL for a value that is not there, so that chains of look-ups need no checks in between.
 *
 * THREADS. Handlers run on any thread, many at a time: what you keep between calls needs C11 atomics or a lock.
 */
#ifndef CPA_HELPER_H
#define CPA_HELPER_H

#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define CPA_UNUSED __attribute__((unused))
#else
#define CPA_UNUSED
#endif

/* Deeper JSON is refused: the reader calls itself once per level, on a stack that belongs to somebody else. */
#define CPA_MAX_DEPTH 128

/* Some bytes, mostly UTF-8. Not NUL-terminated. `at` is NULL for "not there", which is not the same as empty. */
typedef struct {
    const char *at;
    size_t len;
} cpa_text;

CPA_UNUSED static cpa_text cpa_text_of(const char *string) {
    return (cpa_text){string, string != NULL ? strlen(string) : 0};
}

CPA_UNUSED static bool cpa_is(cpa_text text, const char *word) {
    return text.at != NULL && text.len == strlen(word) && memcmp(text.at, word, text.len) == 0;
}

/* As `cpa_is`, where upper and lower case of ASCII letters are the same. */
CPA_UNUSED static bool cpa_is_nearly(cpa_text text, const char *word) {
    if (text.at == NULL || text.len != strlen(word))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char a = (unsigned char)text.at[i], b = (unsigned char)word[i];
        a = a >= 'A' && a <= 'Z' ? (unsigned char)(a + 32) : a;
        b = b >= 'A' && b <= 'Z' ? (unsigned char)(b + 32) : b;
        if (a != b)
            return false;
    }
    return true;
}

/* --- memory of one call --------------------------------------------------------------------------------------------- */

typedef union cpa_block {
    struct {
        union cpa_block *next;
        size_t used, size;
    } head;
    long double align_; /* what follows the head is aligned for everything */
    void *align_too_;
} cpa_block;

typedef struct {
    cpa_block *blocks;
} cpa_arena;

/* Zeroed memory, or NULL. */
CPA_UNUSED static void *cpa_alloc(cpa_arena *arena, size_t size) {
    const size_t unit = sizeof(cpa_block);
    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + unit - 1) / unit * unit + (size == 0 ? unit : 0);
    cpa_block *block = arena->blocks;
    if (block == NULL || block->head.size - block->head.used < size) {
        size_t room = size > 16 * 1024 ? size : 16 * 1024;
        block = malloc(unit + room);
        if (block == NULL)
            return NULL;
        block->head.size = room, block->head.used = 0;
        if (arena->blocks != NULL && room == size) { /* a large one of its own: go on filling the present one */
            block->head.next = arena->blocks->head.next;
            arena->blocks->head.next = block;
        } else {
            block->head.next = arena->blocks;
            arena->blocks = block;
        }
    }
    void *at = (char *)(block + 1) + block->head.used;
    block->head.used += size;
    return memset(at, 0, size);
}

CPA_UNUSED static void cpa_arena_free(cpa_arena *arena) {
    for (cpa_block *block = arena->blocks, *next; block != NULL; block = next) {
        next = block->head.next;
        free(block);
    }
    arena->blocks = NULL;
}

/* --- reading JSON --------------------------------------------------------------------------------------------------- */

typedef enum { CPA_NULL, CPA_FALSE, CPA_TRUE, CPA_NUMBER, CPA_STRING, CPA_ARRAY, CPA_OBJECT } cpa_kind;

typedef struct cpa_json {
    cpa_kind kind;
    cpa_text raw;                 /* as it stands in the document */
    cpa_text text;                /* of strings: without quotes and escapes */
    cpa_text name;                /* of members of objects, likewise */
    struct cpa_json *first, *next; /* of lists and objects: what is in them; what comes after this */
} cpa_json;

typedef struct {
    cpa_arena *arena;
    const char *at, *end;
} cpa_reader_;

static void cpa_skip_(cpa_reader_ *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r'))
        in->at++;
}

static int cpa_hex_(const char *at) {
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int c = at[i] | 32, digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

static char *cpa_utf8_(char *out, unsigned code) {
    if (code < 0x80)
        *out++ = (char)code;
    else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* The text between quotes `from` and `end`, which holds escapes. Never longer than the original. */
static bool cpa_unescape_(cpa_arena *arena, const char *from, const char *end, cpa_text *text) {
    char *made = cpa_alloc(arena, (size_t)(end - from)), *out = made;
    if (made == NULL)
        return false;
    for (const char *at = from; at < end;) {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        if (++at == end)
            return false;
        static const char LETTERS[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
        const char *found = *at != '\0' ? strchr(LETTERS, *at) : NULL;
        if (found != NULL) {
            *out++ = MEANT[found - LETTERS];
            at++;
            continue;
        }
        if (*at != 'u' || end - at < 5)
            return false;
        int code = cpa_hex_(at + 1);
        if (code < 0)
            return false;
        at += 5;
        if (code >= 0xD800 && code < 0xDC00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
            int low = cpa_hex_(at + 2);
            if (low >= 0xDC00 && low < 0xE000) {
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                at += 6;
            }
        }
        if (code >= 0xD800 && code < 0xE000)
            code = 0xFFFD; /* half of a pair */
        out = cpa_utf8_(out, (unsigned)code);
    }
    *text = (cpa_text){made, (size_t)(out - made)};
    return true;
}

static bool cpa_read_string_(cpa_reader_ *in, cpa_text *text) {
    const char *from = ++in->at;
    bool escaped = false;
    for (; in->at < in->end && *in->at != '"'; in->at++) {
        if ((unsigned char)*in->at < 0x20)
            return false;
        if (*in->at == '\\') {
            escaped = true;
            if (++in->at == in->end)
                return false;
        }
    }
    if (in->at >= in->end)
        return false;
    const char *end = in->at++;
    *text = (cpa_text){from, (size_t)(end - from)};
    return !escaped || cpa_unescape_(in->arena, from, end, text);
}

static bool cpa_digits_(cpa_reader_ *in) {
    const char *from = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return in->at > from;
}

static bool cpa_read_number_(cpa_reader_ *in) {
    if (*in->at == '-')
        in->at++;
    if (in->at < in->end && *in->at == '0')
        in->at++;
    else if (!cpa_digits_(in))
        return false;
    if (in->at < in->end && *in->at == '.') {
        in->at++;
        if (!cpa_digits_(in))
            return false;
    }
    if (in->at < in->end && (*in->at | 32) == 'e') {
        in->at++;
        if (in->at < in->end && (*in->at == '+' || *in->at == '-'))
            in->at++;
        return cpa_digits_(in);
    }
    return true;
}

static bool cpa_read_word_(cpa_reader_ *in, const char *word) {
    size_t len = strlen(word);
    if ((size_t)(in->end - in->at) < len || memcmp(in->at, word, len) != 0)
        return false;
    in->at += len;
    return true;
}

static cpa_json *cpa_read_(cpa_reader_ *in, int depth);

static bool cpa_read_items_(cpa_reader_ *in, cpa_json *into, char close, int depth) {
    cpa_json **tail = &into->first;
    in->at++;
    cpa_skip_(in);
    if (in->at < in->end && *in->at == close)
        return in->at++, true;
    for (;;) {
        cpa_text name = {NULL, 0};
        if (close == '}') {
            cpa_skip_(in);
            if (in->at >= in->end || *in->at != '"' || !cpa_read_string_(in, &name))
                return false;
            cpa_skip_(in);
            if (in->at >= in->end || *in->at++ != ':')
                return false;
        }
        cpa_json *item = cpa_read_(in, depth + 1);
        if (item == NULL)
            return false;
        item->name = name;
        *tail = item;
        tail = &item->next;
        cpa_skip_(in);
        if (in->at >= in->end)
            return false;
        char c = *in->at++;
        if (c == close)
            return true;
        if (c != ',')
            return false;
    }
}

static cpa_json *cpa_read_(cpa_reader_ *in, int depth) {
    cpa_skip_(in);
    cpa_json *json = depth < CPA_MAX_DEPTH && in->at < in->end ? cpa_alloc(in->arena, sizeof *json) : NULL;
    if (json == NULL)
        return NULL;
    const char *from = in->at;
    bool good;
    switch (*from) {
    case '{':
        json->kind = CPA_OBJECT;
        good = cpa_read_items_(in, json, '}', depth);
        break;
    case '[':
        json->kind = CPA_ARRAY;
        good = cpa_read_items_(in, json, ']', depth);
        break;
    case '"':
        json->kind = CPA_STRING;
        good = cpa_read_string_(in, &json->text);
        break;
    case 't':
        json->kind = CPA_TRUE;
        good = cpa_read_word_(in, "true");
        break;
    case 'f':
        json->kind = CPA_FALSE;
        good = cpa_read_word_(in, "false");
        break;
    case 'n':
        json->kind = CPA_NULL;
        good = cpa_read_word_(in, "null");
        break;
    default:
        json->kind = CPA_NUMBER;
        good = (*from == '-' || (*from >= '0' && *from <= '9')) && cpa_read_number_(in);
    }
    json->raw = (cpa_text){from, (size_t)(in->at - from)};
    return good ? json : NULL;
}

/* One JSON value and nothing behind it, or NULL. It points into `document`, which has to stay. */
CPA_UNUSED static const cpa_json *cpa_parse(cpa_arena *arena, cpa_text document) {
    if (document.at == NULL)
        return NULL;
    cpa_reader_ in = {arena, document.at, document.at + document.len};
    cpa_json *json = cpa_read_(&in, 0);
    cpa_skip_(&in);
    return json != NULL && in.at == in.end ? json : NULL;
}

/* A member of an object, upper and lower case being the same; of several the last one, as the host reads it. */
CPA_UNUSED static const cpa_json *cpa_member(const cpa_json *object, const char *name) {
    const cpa_json *found = NULL;
    if (object != NULL && object->kind == CPA_OBJECT)
        for (const cpa_json *item = object->first; item != NULL; item = item->next)
            if (cpa_is_nearly(item->name, name))
                found = item;
    return found;
}

/* A member that is a string; (NULL, 0) for all others. */
CPA_UNUSED static cpa_text cpa_string(const cpa_json *object, const char *name) {
    const cpa_json *found = cpa_member(object, name);
    return found != NULL && found->kind == CPA_STRING ? found->text : (cpa_text){NULL, 0};
}

CPA_UNUSED static bool cpa_flag(const cpa_json *object, const char *name) {
    const cpa_json *found = cpa_member(object, name);
    return found != NULL && found->kind == CPA_TRUE;
}

/* A member that is a whole number of at most 18 digits; *otherwise* for all others. */
CPA_UNUSED static long long cpa_integer(const cpa_json *object, const char *name, long long otherwise) {
    const cpa_json *found = cpa_member(object, name);
    if (found == NULL || found->kind != CPA_NUMBER || found->raw.len > 19)
        return otherwise;
    bool negative = found->raw.at[0] == '-';
    long long value = 0;
    if (found->raw.len - negative > 18)
        return otherwise;
    for (size_t i = negative; i < found->raw.len; i++) {
        if (found->raw.at[i] < '0' || found->raw.at[i] > '9')
            return otherwise;
        value = value * 10 + (found->raw.at[i] - '0');
    }
    return negative ? -value : value;
}

/* --- base64 --------------------------------------------------------------------------------------------------------- */

static const char CPA_BASE64_[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The standard alphabet with padding; line breaks are skipped. False for everything else. */
CPA_UNUSED static bool cpa_base64_decode(cpa_arena *arena, cpa_text encoded, cpa_text *decoded) {
    static const char VALUES[] = /* of '+' to 'z', from 1; 0 is none */
        "\077\0\0\0\100\065\066\067\070\071\072\073\074\075\076\0\0\0\0\0\0\0\001\002\003\004\005\006\007\010\011\012"
        "\013\014\015\016\017\020\021\022\023\024\025\026\027\030\031\032\0\0\0\0\0\0\033\034\035\036\037\040\041\042"
        "\043\044\045\046\047\050\051\052\053\054\055\056\057\060\061\062\063\064";
    unsigned char *made = cpa_alloc(arena, encoded.len / 4 * 3 + 3);
    if (made == NULL)
        return false;
    size_t len = 0, digits = 0, padding = 0;
    unsigned bits = 0;
    for (size_t i = 0; i < encoded.len; i++) {
        char c = encoded.at[i];
        if (c == '\r' || c == '\n')
            continue;
        if (c == '=') {
            padding++;
            continue;
        }
        int value = c >= '+' && c <= 'z' ? VALUES[c - '+'] : 0;
        if (value == 0 || padding > 0)
            return false;
        bits = bits << 6 | (unsigned)(value - 1);
        if (++digits % 4 == 0) {
            made[len++] = (unsigned char)(bits >> 16);
            made[len++] = (unsigned char)(bits >> 8);
            made[len++] = (unsigned char)bits;
        }
    }
    size_t rest = digits % 4;
    if (rest == 1 || padding != (4 - rest) % 4)
        return false;
    if (rest >= 2)
        made[len++] = (unsigned char)(rest == 2 ? bits >> 4 : bits >> 10);
    if (rest == 3)
        made[len++] = (unsigned char)(bits >> 2);
    *decoded = (cpa_text){(const char *)made, len};
    return true;
}

/* --- writing JSON --------------------------------------------------------------------------------------------------- */

/* Starts as {0}. `failed` when memory ran out: then nothing of it is used. */
typedef struct {
    char *at;
    size_t len, size;
    bool failed, comma_;
} cpa_writer;

CPA_UNUSED static void cpa_writer_free(cpa_writer *out) {
    free(out->at);
    *out = (cpa_writer){0};
}

static char *cpa_room_(cpa_writer *out, size_t more) {
    if (out->failed || more > SIZE_MAX / 4 || out->len > SIZE_MAX / 4)
        return out->failed = true, NULL;
    if (out->size - out->len < more) {
        size_t size = out->size < 256 ? 256 : out->size * 2;
        if (size < out->len + more)
            size = out->len + more;
        char *grown = realloc(out->at, size);
        if (grown == NULL)
            return out->failed = true, NULL;
        out->at = grown;
        out->size = size;
    }
    return out->at + out->len;
}

/* Bytes as they are, without comma or quotes. */
CPA_UNUSED static void cpa_append(cpa_writer *out, const char *bytes, size_t len) {
    char *room = len > 0 ? cpa_room_(out, len) : NULL;
    if (room != NULL) {
        memcpy(room, bytes, len);
        out->len += len;
    }
}

/* Length of the well-formed UTF-8 sequence at `at`, 0 when there is none. */
static size_t cpa_sequence_(const unsigned char *at, size_t left) {
    if (at[0] < 0x80)
        return 1;
    size_t need = at[0] >= 0xC2 && at[0] < 0xE0 ? 2 : at[0] >= 0xE0 && at[0] < 0xF0 ? 3 : at[0] >= 0xF0 && at[0] < 0xF5 ? 4 : 0;
    if (need == 0 || need > left)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    bool wrong = (at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xED && at[1] > 0x9F) || (at[0] == 0xF0 && at[1] < 0x90) ||
                 (at[0] == 0xF4 && at[1] > 0x8F);
    return wrong ? 0 : need;
}

/* A JSON string with its quotes; what is not UTF-8 becomes U+FFFD. */
CPA_UNUSED static void cpa_append_quoted(cpa_writer *out, cpa_text text) {
    cpa_append(out, "\"", 1);
    const unsigned char *at = (const unsigned char *)text.at, *plain = at, *end = text.at != NULL ? at + text.len : at;
    while (at < end) {
        size_t len = cpa_sequence_(at, (size_t)(end - at));
        if (len > 1 || (len == 1 && *at >= 0x20 && *at != '"' && *at != '\\')) {
            at += len;
            continue;
        }
        cpa_append(out, (const char *)plain, (size_t)(at - plain));
        char escape[8];
        if (len == 0)
            snprintf(escape, sizeof escape, "\xEF\xBF\xBD");
        else if (*at == '"' || *at == '\\')
            snprintf(escape, sizeof escape, "\\%c", *at);
        else if (*at == '\n' || *at == '\t' || *at == '\r')
            snprintf(escape, sizeof escape, "\\%c", *at == '\n' ? 'n' : *at == '\t' ? 't' : 'r');
        else
            snprintf(escape, sizeof escape, "\\u%04x", *at);
        cpa_append(out, escape, strlen(escape));
        plain = ++at;
    }
    cpa_append(out, (const char *)plain, (size_t)(at - plain));
    cpa_append(out, "\"", 1);
}

/* Comma and name of the next value; the functions below do it themselves. `name` is NULL in lists and at the top. */
CPA_UNUSED static void cpa_item(cpa_writer *out, const char *name) {
    if (out->comma_)
        cpa_append(out, ",", 1);
    if (name != NULL) {
        cpa_append_quoted(out, cpa_text_of(name));
        cpa_append(out, ":", 1);
    }
    out->comma_ = true;
}

static void cpa_bracket_(cpa_writer *out, const char *bracket, bool closes) {
    cpa_append(out, bracket, 1);
    out->comma_ = closes;
}

CPA_UNUSED static void cpa_begin_object(cpa_writer *out, const char *name) {
    cpa_item(out, name);
    cpa_bracket_(out, "{", false);
}

CPA_UNUSED static void cpa_end_object(cpa_writer *out) { cpa_bracket_(out, "}", true); }

CPA_UNUSED static void cpa_begin_list(cpa_writer *out, const char *name) {
    cpa_item(out, name);
    cpa_bracket_(out, "[", false);
}

CPA_UNUSED static void cpa_end_list(cpa_writer *out) { cpa_bracket_(out, "]", true); }

CPA_UNUSED static void cpa_put_text(cpa_writer *out, const char *name, cpa_text value) {
    cpa_item(out, name);
    cpa_append_quoted(out, value);
}

CPA_UNUSED static void cpa_put(cpa_writer *out, const char *name, const char *value) {
    cpa_put_text(out, name, cpa_text_of(value));
}

/* A value that is JSON already. */
CPA_UNUSED static void cpa_put_json(cpa_writer *out, const char *name, cpa_text json) {
    cpa_item(out, name);
    cpa_append(out, json.at, json.len);
}

CPA_UNUSED static void cpa_put_integer(cpa_writer *out, const char *name, long long value) {
    char digits[24];
    cpa_put_json(out, name, (cpa_text){digits, (size_t)snprintf(digits, sizeof digits, "%lld", value)});
}

CPA_UNUSED static void cpa_put_flag(cpa_writer *out, const char *name, bool value) {
    cpa_put_json(out, name, cpa_text_of(value ? "true" : "false"));
}

/* A byte field: base64. */
CPA_UNUSED static void cpa_put_bytes(cpa_writer *out, const char *name, cpa_text bytes) {
    cpa_item(out, name);
    cpa_append(out, "\"", 1);
    size_t size = (bytes.len + 2) / 3 * 4;
    char *to = size > 0 ? cpa_room_(out, size) : NULL;
    if (to != NULL) {
        const unsigned char *from = (const unsigned char *)bytes.at;
        for (size_t i = 0; i < bytes.len; i += 3) {
            size_t left = bytes.len - i;
            unsigned bits = (unsigned)from[i] << 16 | (left > 1 ? (unsigned)from[i + 1] << 8 : 0) | (left > 2 ? from[i + 2] : 0);
            *to++ = CPA_BASE64_[bits >> 18];
            *to++ = CPA_BASE64_[bits >> 12 & 63];
            *to++ = left > 1 ? CPA_BASE64_[bits >> 6 & 63] : '=';
            *to++ = left > 2 ? CPA_BASE64_[bits & 63] : '=';
        }
        out->len += size;
    }
    cpa_append(out, "\"", 1);
}

/* The member `name` of a message: a map with one header in it. */
CPA_UNUSED static void cpa_put_header(cpa_writer *out, const char *name, const char *header, const char *value) {
    cpa_begin_object(out, name);
    cpa_begin_list(out, header);
    cpa_put(out, NULL, value);
    cpa_end_list(out);
    cpa_end_object(out);
}

/* --- calls of the plugin -------------------------------------------------------------------------------------------- */

/* One call. The handler reads `request`, writes one JSON value into `result` (nothing means {}), and returns true. */
typedef struct {
    const char *method;
    cpa_text request; /* as it came */
    cpa_writer result;
    cpa_arena arena;
    const cpa_json *parsed_;
    bool failed_;
} cpa_call;

typedef bool (*cpa_handler)(cpa_call *call);

typedef struct {
    const char *method;
    cpa_handler handle;
} cpa_route;

/* The host, from `cliproxy_plugin_init` on. */
CPA_UNUSED static const cliproxy_host_api *cpa_host;

/* The request as a JSON object, or NULL: then it is something else. */
CPA_UNUSED static const cpa_json *cpa_request(cpa_call *call) {
    if (call->parsed_ == NULL)
        call->parsed_ = cpa_parse(&call->arena, call->request);
    return call->parsed_ != NULL && call->parsed_->kind == CPA_OBJECT ? call->parsed_ : NULL;
}

/* A byte field of a request. Absent or null: (NULL, 0). Returns false when it is something else than base64. */
CPA_UNUSED static bool cpa_bytes(cpa_call *call, const cpa_json *object, const char *name, cpa_text *bytes) {
    const cpa_json *found = cpa_member(object, name);
    *bytes = (cpa_text){NULL, 0};
    if (found == NULL || found->kind == CPA_NULL)
        return true;
    return found->kind == CPA_STRING && cpa_base64_decode(&call->arena, found->text, bytes);
}

/* The call fails with this; `http_status` 0 leaves the status to the host. Returns false, for `return cpa_fail…`. */
CPA_UNUSED static bool cpa_fail_with(cpa_call *call, const char *code, cpa_text message, int http_status) {
    cpa_writer *out = &call->result;
    out->len = 0;
    out->comma_ = false;
    call->failed_ = true;
    cpa_begin_object(out, NULL);
    cpa_put_flag(out, "ok", false);
    cpa_begin_object(out, "error");
    cpa_put(out, "code", code);
    cpa_put_text(out, "message", message);
    if (http_status > 0)
        cpa_put_integer(out, "http_status", http_status);
    cpa_end_object(out);
    cpa_end_object(out);
    return false;
}

CPA_UNUSED static bool cpa_fail(cpa_call *call, const char *code, const char *message) {
    return cpa_fail_with(call, code, cpa_text_of(message), 0);
}

/* What a plugin says of itself. The last two are JSON; `config_fields` may be NULL, `schema_version` 0 means 3. */
typedef struct {
    const char *name, *version, *author, *repository, *logo;
    int schema_version;
    const char *config_fields, *capabilities;
} cpa_registration;

/* The answer to plugin.register and plugin.reconfigure. */
CPA_UNUSED static bool cpa_register(cpa_call *call, const cpa_registration *about) {
    cpa_writer *out = &call->result;
    cpa_begin_object(out, NULL);
    cpa_put_integer(out, "schema_version", about->schema_version > 0 ? about->schema_version : 3);
    cpa_begin_object(out, "metadata");
    cpa_put(out, "Name", about->name);
    cpa_put(out, "Version", about->version);
    cpa_put(out, "Author", about->author);
    cpa_put(out, "GitHubRepository", about->repository);
    cpa_put(out, "Logo", about->logo);
    cpa_put_json(out, "ConfigFields", cpa_text_of(about->config_fields != NULL ? about->config_fields : "[]"));
    cpa_end_object(out);
    cpa_put_json(out, "capabilities", cpa_text_of(about->capabilities));
    cpa_end_object(out);
    return true;
}

/* Turns what the handler wrote into the reply. Returns what the host is told. */
static int cpa_reply_(cpa_call *call, int status, cliproxy_buffer *out) {
    cpa_writer *made = &call->result;
    cpa_writer reply = {0};
    if (call->failed_)
        cpa_append(&reply, made->at, made->len);
    else {
        cpa_append(&reply, "{\"ok\":true,\"result\":", 20);
        cpa_append(&reply, made->len > 0 ? made->at : "{}", made->len > 0 ? made->len : 2);
        cpa_append(&reply, "}", 1);
    }
    bool failed = made->failed || reply.failed;
    cpa_writer_free(made);
    cpa_arena_free(&call->arena);
    if (failed || out == NULL) {
        cpa_writer_free(&reply);
        return 1;
    }
    *out = (cliproxy_buffer){reply.at, reply.len}; /* the host gives it back through cpa_free_buffer_ */
    return status;
}

CPA_UNUSED static int cpa_dispatch_(const cpa_route *routes, size_t count, const char *method, const uint8_t *request,
                                    size_t size, cliproxy_buffer *out) {
    cpa_call call = {.method = method, .request = {(const char *)request, request != NULL ? size : 0}};
    if (method == NULL) {
        cpa_fail(&call, "invalid_method", "method is required");
        return cpa_reply_(&call, 1, out);
    }
    for (size_t i = 0; i < count; i++)
        if (strcmp(routes[i].method, method) == 0) {
            if (!routes[i].handle(&call) && !call.failed_)
                cpa_fail(&call, "plugin_error", "the plugin failed without a reason");
            return cpa_reply_(&call, 0, out);
        }
    cpa_fail(&call, "unknown_method", "unknown method");
    return cpa_reply_(&call, 0, out);
}

CPA_UNUSED static void cpa_free_buffer_(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

/*
 * Makes a plugin of a table of methods: CPA_PLUGIN(shutdown, {"plugin.register", handler}, …). `shutdown` is a function
 * without arguments or NULL. Methods that are not in the table are answered with `unknown_method`.
 */
#define CPA_PLUGIN(at_shutdown, ...)                                                                                   \
    static const cpa_route cpa_routes_[] = {__VA_ARGS__};                                                              \
    static int cpa_called_(const char *method, const uint8_t *request, size_t size, cliproxy_buffer *out) {            \
        return cpa_dispatch_(cpa_routes_, sizeof cpa_routes_ / sizeof *cpa_routes_, method, request, size, out);       \
    }                                                                                                                  \
    int cliproxy_plugin_init(const cliproxy_host_api *host, cliproxy_plugin_api *plugin) {                             \
        if (plugin == NULL)                                                                                            \
            return 1;                                                                                                  \
        cpa_host = host;                                                                                               \
        *plugin = (cliproxy_plugin_api){CLIPROXY_ABI_VERSION, cpa_called_, cpa_free_buffer_, at_shutdown};             \
        return 0;                                                                                                      \
    }

/* --- calls of the host ---------------------------------------------------------------------------------------------- */

/* Puts the scope of the call into a request to the host, so that what it does belongs to the client's request. */
CPA_UNUSED static void cpa_put_scope(cpa_writer *request, cpa_call *call) {
    cpa_text scope = cpa_string(cpa_request(call), "host_callback_id");
    if (scope.len > 0)
        cpa_put_text(request, "host_callback_id", scope);
}

/*
 * Asks the host and waits for its answer. `request` holds one JSON object, or nothing; it is freed.
 * Returns the result (which may be a JSON null), or NULL after a failure, whose message is then in *error.
 */
CPA_UNUSED static const cpa_json *cpa_host_call(cpa_call *call, const char *method, cpa_writer *request, cpa_text *error) {
    static const cpa_json nothing = {.kind = CPA_NULL, .raw = {"null", 4}};
    cliproxy_buffer answer = {NULL, 0};
    int status = 1;
    *error = cpa_text_of("the host cannot be called");
    if (cpa_host != NULL && !request->failed)
        status = cpa_host->call(cpa_host->host_ctx, method, (const uint8_t *)request->at, request->len, &answer);
    cpa_writer_free(request);
    char *copy = status == 0 && answer.ptr != NULL ? cpa_alloc(&call->arena, answer.len) : NULL;
    cpa_text text = {copy, copy != NULL ? answer.len : 0};
    if (copy != NULL)
        memcpy(copy, answer.ptr, answer.len);
    if (answer.ptr != NULL)
        cpa_host->free_buffer(answer.ptr, answer.len);
    const cpa_json *envelope = cpa_parse(&call->arena, text);
    if (cpa_flag(envelope, "ok")) {
        const cpa_json *result = cpa_member(envelope, "result");
        return result != NULL ? result : &nothing;
    }
    cpa_text message = cpa_string(cpa_member(envelope, "error"), "message");
    if (message.len > 0)
        *error = message;
    else if (envelope != NULL)
        *error = cpa_text_of("the host call failed");
    return NULL;
}

#endif
