// needs: identifier
/* Answers in the place of a provider. Clients reach it through models of this provider (capability model_provider, and a
 * credential with this "type"), or through a router. Bodies are Chat Completions; CPA translates for other clients. */
#define ANSWER "Hello from " NAME "."

static bool executor_identifier(cpa_call *call) { return identifier(call); }

static bool answer_payload(cpa_call *call, const char *json) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Payload", cpa_text_of(json));
    cpa_put_header(&call->result, "Headers", "Content-Type", "application/json");
    cpa_end_object(&call->result);
    return true;
}

static bool executor_execute(cpa_call *call) {
    return answer_payload(call,
                          "{\"id\":\"" PROVIDER "-1\",\"object\":\"chat.completion\",\"created\":0,\"model\":\"" PROVIDER
                          "-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" ANSWER
                          "\"},\"finish_reason\":\"stop\"}],"
                          "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":4,\"total_tokens\":5}}");
}

/* All chunks at once. For chunks as they come: answer without any, and call host.stream.emit from a thread of your own. */
static bool executor_execute_stream(cpa_call *call) {
#define CHUNK(delta, finish)                                                                                           \
    "{\"id\":\"" PROVIDER "-1\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"" PROVIDER              \
    "-model\",\"choices\":[{\"index\":0,\"delta\":" delta ",\"finish_reason\":" finish "}]}"
    static const char *const CHUNKS[] = {CHUNK("{\"role\":\"assistant\",\"content\":\"" ANSWER "\"}", "null"),
                                         CHUNK("{}", "\"stop\"")};
    cpa_begin_object(&call->result, NULL);
    cpa_put_header(&call->result, "headers", "Content-Type", "text/event-stream");
    cpa_begin_list(&call->result, "chunks");
    for (size_t i = 0; i < sizeof CHUNKS / sizeof *CHUNKS; i++) {
        cpa_begin_object(&call->result, NULL);
        cpa_put_bytes(&call->result, "Payload", cpa_text_of(CHUNKS[i]));
        cpa_end_object(&call->result);
    }
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool executor_count_tokens(cpa_call *call) { return answer_payload(call, "{\"total_tokens\":1}"); }

/* A plain HTTP request with a credential of this provider; hosts hardly ever ask for one. */
static bool executor_http_request(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_integer(&call->result, "StatusCode", 501);
    cpa_put_bytes(&call->result, "Body", cpa_text_of("not implemented"));
    cpa_end_object(&call->result);
    return true;
}
