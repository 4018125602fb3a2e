/*
 * `body` with one more member, in front of all others, which stay byte for byte. Nothing, which means "as it was", when it
 * has one of that name already or is no JSON object. `json` is the value, as JSON.
 */
static cpa_text with_member(cpa_call *call, cpa_text body, const char *name, const char *json) {
    static const cpa_text as_it_was = {NULL, 0};
    const cpa_json *parsed = cpa_parse(&call->arena, body);
    if (parsed == NULL || parsed->kind != CPA_OBJECT || cpa_member(parsed, name) != NULL)
        return as_it_was;
    cpa_text rest = {parsed->raw.at + 1, parsed->raw.len - 1}; /* behind the brace */
    size_t size = strlen(name) + strlen(json) + rest.len + 8;
    char *made = cpa_alloc(&call->arena, size);
    if (made == NULL)
        return as_it_was;
    int head = snprintf(made, size, "{\"%s\":%s%s", name, json, parsed->first != NULL ? "," : "");
    memcpy(made + head, rest.at, rest.len);
    return (cpa_text){made, (size_t)head + rest.len};
}
