// needs: identifier
/* Which clients are let in: those that send what the environment variable PLUGIN_CLIENT_KEY holds in X-Client-Key. Without
 * the variable nobody. */
static bool frontend_auth_identifier(cpa_call *call) { return identifier(call); }

/* In the same time whatever is wrong with it. */
static bool same_key(cpa_text sent, const char *wanted) {
    size_t len = strlen(wanted);
    unsigned different = sent.len != len;
    for (size_t i = 0; i < sent.len; i++)
        different |= (unsigned char)(sent.at[i] ^ wanted[len > 0 ? i % len : 0]);
    return len > 0 && different == 0;
}

static bool frontend_auth_authenticate(cpa_call *call) {
    const char *wanted = getenv("PLUGIN_CLIENT_KEY");
    const cpa_json *values = cpa_member(cpa_member(cpa_request(call), "Headers"), "X-Client-Key");
    const cpa_json *first = values != NULL && values->kind == CPA_ARRAY ? values->first : NULL;
    bool known = wanted != NULL && first != NULL && first->kind == CPA_STRING && same_key(first->text, wanted);
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Authenticated", known);
    if (known)
        cpa_put(&call->result, "Principal", NAME "-client");
    cpa_end_object(&call->result);
    return true;
}
