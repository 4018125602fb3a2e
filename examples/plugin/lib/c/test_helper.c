/*
 * Tests of cpa_helper.h. By hand, from this folder:
 *     gcc -std=c11 -g -fsanitize=address,undefined -I../../../../cpa/abi test_helper.c -o /tmp/helper && /tmp/helper
 */
#include "cpa_helper.h"

static int checks;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        checks++;                                                                                                      \
        if (!(condition)) {                                                                                            \
            printf("line %d: %s\n", __LINE__, #condition);                                                             \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A copy without a byte to spare, so that the sanitizer sees every read beyond it. */
static char *exact(const char *bytes, size_t len) {
    char *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, bytes, len);
    return copy;
}

static bool parses(const char *bytes, size_t len) {
    cpa_arena arena = {NULL};
    char *copy = exact(bytes, len);
    bool good = cpa_parse(&arena, (cpa_text){copy, len}) != NULL;
    cpa_arena_free(&arena);
    free(copy);
    return good;
}

static void test_what_is_json(void) {
    static const char *const GOOD[] = {"{}",  "[]",      " {} ",          "null",  "true",  "false",     "0",
                                       "-0",  "1.5e+10", "\"\"",          "[1,2]", "1E5",   "{\"a\":{}}", "\"\\u00fc\"",
                                       "[[]]", "\t[\r\n]", "{\"a\":1,\"a\":2}", "-1.0", "\"\\ud83d\\ude00\"", "\"/\""};
    static const char *const BAD[] = {"",      " ",     "{",     "}",      "[",    "[1,]",  "{\"a\"}", "{\"a\":}", "{a:1}",
                                      "01",    "1.",    ".5",    "+1",     "-",    "1e",    "tru",     "nul",      "\"",
                                      "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "{}{}", "[1 2]", "{\"a\":1,}", "\"\n\"",
                                      "'a'",   "{,}",   "[,]",   "NaN",    "{\"a\" 1}", "1 2", "{}x", "\"\\u\"", "\"\\"};
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++)
        CHECK(parses(GOOD[i], strlen(GOOD[i])));
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        CHECK(!parses(BAD[i], strlen(BAD[i])));
    CHECK(!parses("\0", 1));
    CHECK(!parses("{}\0", 3));
    CHECK(!parses("\"\\\0\"", 4));
}

static void test_depth_is_bounded(void) {
    enum { DEEP = 1000000 };
    char *text = malloc(2 * DEEP);
    memset(text, '[', DEEP);
    memset(text + DEEP, ']', DEEP);
    CHECK(!parses(text, 2 * DEEP));
    CHECK(parses(text + DEEP - CPA_MAX_DEPTH, 2 * CPA_MAX_DEPTH));
    CHECK(!parses(text + DEEP - CPA_MAX_DEPTH - 1, 2 * CPA_MAX_DEPTH + 2));
    free(text);
}

/* Every beginning of a document, and the document with each byte changed: no crash, no read beyond the end. */
static void test_damaged_documents(void) {
    static const char text[] = "{\"Body\":\"eyJhIjoxfQ==\",\"n\":[-1.5e3,true,false,null,\"\\u00fc\\ud83d\\ude00\\n\"],\"o\":{}}";
    const size_t len = sizeof text - 1;
    for (size_t i = 0; i < len; i++)
        CHECK(!parses(text, i));
    char changed[sizeof text];
    unsigned good = 0;
    for (size_t i = 0; i < len; i++)
        for (int byte = 0; byte < 256; byte++) {
            memcpy(changed, text, sizeof text);
            changed[i] = (char)byte;
            good += parses(changed, len);
        }
    CHECK(good > len); /* mostly within strings */
}

static void test_members(void) {
    cpa_arena arena = {NULL};
    cpa_text text = cpa_text_of("{\"Name\":\"a\",\"nAME\":\"b\\u0000c\",\"N\":-42,\"big\":123456789012345678901,"
                                "\"f\":1.0,\"t\":true,\"x\":null,\"s\":\"\\ud800\\u0041\\ud83d\\ude00\"}");
    const cpa_json *json = cpa_parse(&arena, text);
    CHECK(json != NULL && json->kind == CPA_OBJECT);
    cpa_text name = cpa_string(json, "name"); /* the last one, in whatever case */
    CHECK(name.len == 3 && memcmp(name.at, "b\0c", 3) == 0);
    CHECK(cpa_integer(json, "N", 7) == -42);
    CHECK(cpa_integer(json, "big", 7) == 7);
    CHECK(cpa_integer(json, "f", 7) == 7);
    CHECK(cpa_integer(json, "none", 7) == 7);
    CHECK(cpa_flag(json, "t") && !cpa_flag(json, "N") && !cpa_flag(json, "none"));
    CHECK(cpa_member(json, "x")->kind == CPA_NULL);
    CHECK(cpa_string(json, "N").at == NULL && cpa_string(NULL, "N").at == NULL);
    CHECK(cpa_member(cpa_member(json, "N"), "a") == NULL);
    CHECK(cpa_is(cpa_string(json, "s"), "\xEF\xBF\xBD" "A\xF0\x9F\x98\x80"));
    cpa_arena_free(&arena);
}

static void test_base64(void) {
    static const char *const PAIRS[][2] = {{"", ""},         {"f", "Zg=="},      {"fo", "Zm8="},  {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="}, {"\xff\xfe\xfd", "//79"}, {">>>???", "Pj4+Pz8/"}};
    cpa_arena arena = {NULL};
    cpa_text decoded;
    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++) {
        cpa_writer out = {0};
        cpa_put_bytes(&out, NULL, cpa_text_of(PAIRS[i][0]));
        CHECK(out.len == strlen(PAIRS[i][1]) + 2 && memcmp(out.at + 1, PAIRS[i][1], out.len - 2) == 0);
        cpa_writer_free(&out);
        CHECK(cpa_base64_decode(&arena, cpa_text_of(PAIRS[i][1]), &decoded) && cpa_is(decoded, PAIRS[i][0]));
    }
    CHECK(cpa_base64_decode(&arena, cpa_text_of("Zm\r\n9v\n"), &decoded) && cpa_is(decoded, "foo"));
    static const char *const BAD[] = {"Z", "Zg", "Zg=", "Zg===", "Zm8", "Zm9v=", "=", "Zg==Zg==", "Zm9 v", "Zm-_", "%%%%", "\xff\xff\xff\xff", "Z=g="};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        CHECK(!cpa_base64_decode(&arena, cpa_text_of(BAD[i]), &decoded));
    for (size_t len = 0; len < 200; len++) { /* all lengths, all bytes, there and back */
        char bytes[200];
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)(i * 37 + len);
        cpa_writer out = {0};
        cpa_put_bytes(&out, NULL, (cpa_text){bytes, len});
        CHECK(cpa_base64_decode(&arena, (cpa_text){out.at + 1, out.len - 2}, &decoded));
        CHECK(decoded.len == len && memcmp(decoded.at, bytes, len) == 0);
        cpa_writer_free(&out);
    }
    cpa_arena_free(&arena);
}

static void test_writing(void) {
    cpa_writer out = {0};
    cpa_begin_object(&out, NULL);
    cpa_put(&out, "a\"", "b\\\n\t\r\x01\x7f\xC3\xBC");
    cpa_put_text(&out, "bad", (cpa_text){"x\xff\xC3\xED\xA0\x80y\0z", 9});
    cpa_put(&out, "nothing", NULL);
    cpa_begin_list(&out, "list");
    cpa_put_integer(&out, NULL, -5);
    cpa_put_flag(&out, NULL, true);
    cpa_begin_object(&out, NULL);
    cpa_end_object(&out);
    cpa_end_list(&out);
    cpa_put_header(&out, "Headers", "A", "b");
    cpa_put_json(&out, "raw", cpa_text_of("[1]"));
    cpa_end_object(&out);
    static const char expected[] =
        "{\"a\\\"\":\"b\\\\\\n\\t\\r\\u0001\x7f\xC3\xBC\",\"bad\":\"x\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
        "y\\u0000z\",\"nothing\":\"\",\"list\":[-5,true,{}],\"Headers\":{\"A\":[\"b\"]},\"raw\":[1]}";
    CHECK(!out.failed && out.len == sizeof expected - 1 && memcmp(out.at, expected, out.len) == 0);
    CHECK(parses(out.at, out.len));
    cpa_writer_free(&out);
    cpa_append(&out, "x", SIZE_MAX / 2); /* what cannot be held fails, and stays failed */
    cpa_append(&out, "x", 1);
    CHECK(out.failed && out.at == NULL);
}

static void test_memory(void) {
    cpa_arena arena = {NULL};
    for (size_t i = 0; i < 5000; i++) {
        size_t size = i * i % 40000;
        unsigned char *at = cpa_alloc(&arena, size);
        CHECK(at != NULL && (uintptr_t)at % _Alignof(long double) == 0);
        for (size_t k = 0; k < size; k += 997)
            CHECK(at[k] == 0);
        memset(at, 0xAA, size);
    }
    CHECK(cpa_alloc(&arena, SIZE_MAX) == NULL);
    cpa_arena_free(&arena);
    CHECK(arena.blocks == NULL);
}

/* --- the plugin: dispatch, envelopes, calls of the host --- */

static bool echo(cpa_call *call) {
    cpa_text body;
    if (!cpa_bytes(call, cpa_request(call), "Body", &body))
        return cpa_fail(call, "invalid_request", "Body is not base64");
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Body", body);
    cpa_end_object(&call->result);
    return true;
}

static bool nothing(cpa_call *call) {
    (void)call;
    return true;
}

static bool careless(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    return false;
}

static bool refuse(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    return cpa_fail_with(call, "quota", cpa_text_of("used up"), 429);
}

static bool ask(cpa_call *call) {
    cpa_writer request = {0};
    cpa_text error = {NULL, 0};
    cpa_begin_object(&request, NULL);
    cpa_put_scope(&request, call);
    cpa_end_object(&request);
    const cpa_json *result = cpa_host_call(call, "host.test", &request, &error);
    cpa_begin_object(&call->result, NULL);
    if (result != NULL)
        cpa_put_json(&call->result, "result", result->raw);
    else
        cpa_put_text(&call->result, "error", error);
    cpa_end_object(&call->result);
    return true;
}

static bool out_of_memory(cpa_call *call) {
    call->result.failed = true;
    return true;
}

CPA_PLUGIN(NULL, {"echo", echo}, {"nothing", nothing}, {"careless", careless}, {"refuse", refuse}, {"ask", ask},
           {"out_of_memory", out_of_memory})

static const char *host_answer;
static int host_status, host_buffers;
static char host_heard[200];

static int host_call(void *ctx, const char *method, const uint8_t *request, size_t len, cliproxy_buffer *out) {
    CHECK(ctx == &host_buffers && strcmp(method, "host.test") == 0 && len < sizeof host_heard);
    memcpy(host_heard, request, len);
    host_heard[len] = '\0';
    if (host_answer != NULL) {
        *out = (cliproxy_buffer){exact(host_answer, strlen(host_answer)), strlen(host_answer)};
        host_buffers++;
    }
    return host_status;
}

static void host_free(void *ptr, size_t len) {
    CHECK(ptr != NULL && len == strlen(host_answer));
    host_buffers--;
    free(ptr);
}

static cliproxy_plugin_api plugin;

static bool answers(const char *method, const char *request, int status, const char *expected) {
    cliproxy_buffer out = {NULL, 0};
    char *copy = request != NULL ? exact(request, strlen(request)) : NULL;
    int got = plugin.call(method, (const uint8_t *)copy, copy != NULL ? strlen(request) : 0, &out);
    free(copy);
    bool same = got == status && (out.ptr == NULL ? expected == NULL : expected != NULL && out.len == strlen(expected) &&
                                                                           memcmp(out.ptr, expected, out.len) == 0);
    if (!same)
        printf("%s: %d %.*s\n", method != NULL ? method : "NULL", got, (int)out.len, (const char *)out.ptr);
    if (out.ptr != NULL)
        plugin.free_buffer(out.ptr, out.len);
    return same;
}

static void test_calls(void) {
    CHECK(answers("echo", "{\"Body\":\"Zm9v\"}", 0, "{\"ok\":true,\"result\":{\"Body\":\"Zm9v\"}}"));
    CHECK(answers("echo", "{\"Body\":null}", 0, "{\"ok\":true,\"result\":{\"Body\":\"\"}}"));
    CHECK(answers("echo", "[", 0, "{\"ok\":true,\"result\":{\"Body\":\"\"}}"));
    CHECK(answers("echo", NULL, 0, "{\"ok\":true,\"result\":{\"Body\":\"\"}}"));
    static const char refused[] = "{\"ok\":false,\"error\":{\"code\":\"invalid_request\",\"message\":\"Body is not base64\"}}";
    CHECK(answers("echo", "{\"Body\":7}", 0, refused));
    CHECK(answers("echo", "{\"Body\":\"%\"}", 0, refused));
    CHECK(answers("nothing", "{}", 0, "{\"ok\":true,\"result\":{}}"));
    CHECK(answers("careless", "{}", 0,
                  "{\"ok\":false,\"error\":{\"code\":\"plugin_error\",\"message\":\"the plugin failed without a reason\"}}"));
    CHECK(answers("refuse", "{}", 0,
                  "{\"ok\":false,\"error\":{\"code\":\"quota\",\"message\":\"used up\",\"http_status\":429}}"));
    CHECK(answers("other", "{}", 0, "{\"ok\":false,\"error\":{\"code\":\"unknown_method\",\"message\":\"unknown method\"}}"));
    CHECK(answers(NULL, "{}", 1, "{\"ok\":false,\"error\":{\"code\":\"invalid_method\",\"message\":\"method is required\"}}"));
    CHECK(answers("out_of_memory", "{}", 1, NULL));
    CHECK(plugin.call("nothing", NULL, 0, NULL) == 1);
}

static void test_calls_of_the_host(void) {
    static const struct {
        const char *answer;
        int status;
        const char *expected;
    } CASES[] = {
        {"{\"ok\":true,\"result\":{\"a\":[1]}}", 0, "{\"result\":{\"a\":[1]}}"},
        {"{\"ok\":true}", 0, "{\"result\":null}"},
        {"{\"ok\":true,\"result\":null}", 0, "{\"result\":null}"},
        {"{\"ok\":false,\"error\":{\"message\":\"no\"}}", 0, "{\"error\":\"no\"}"},
        {"{\"ok\":false}", 0, "{\"error\":\"the host call failed\"}"},
        {"{}", 0, "{\"error\":\"the host call failed\"}"},
        {"{", 0, "{\"error\":\"the host cannot be called\"}"},
        {"", 0, "{\"error\":\"the host cannot be called\"}"},
        {NULL, 0, "{\"error\":\"the host cannot be called\"}"},
        {NULL, 1, "{\"error\":\"the host cannot be called\"}"},
        {"{\"ok\":true}", 1, "{\"error\":\"the host cannot be called\"}"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        host_answer = CASES[i].answer;
        host_status = CASES[i].status;
        char expected[200];
        snprintf(expected, sizeof expected, "{\"ok\":true,\"result\":%s}", CASES[i].expected);
        CHECK(answers("ask", "{\"host_callback_id\":\"s1\"}", 0, expected));
        CHECK(strcmp(host_heard, "{\"host_callback_id\":\"s1\"}") == 0);
        CHECK(host_buffers == 0);
    }
    CHECK(answers("ask", "{}", 0, "{\"ok\":true,\"result\":{\"error\":\"the host cannot be called\"}}"));
    CHECK(strcmp(host_heard, "{}") == 0);
}

int main(void) {
    cliproxy_host_api host = {1, &host_buffers, host_call, host_free};
    CHECK(cliproxy_plugin_init(&host, NULL) == 1);
    CHECK(cliproxy_plugin_init(&host, &plugin) == 0);
    CHECK(plugin.abi_version == 1 && plugin.call != NULL && plugin.free_buffer != NULL && plugin.shutdown == NULL);
    plugin.free_buffer(NULL, 0);
    test_what_is_json();
    test_depth_is_bounded();
    test_damaged_documents();
    test_members();
    test_base64();
    test_writing();
    test_memory();
    test_calls();
    test_calls_of_the_host();
    printf("%d checks passed\n", checks);
    return 0;
}
