/*
 * Every integration point that shapes an exchange, each answered in the simplest way: a provider with one model, its
 * credentials, client authentication, an executor, the five transforms, thinking, usage, a command, a page.
 *
 * It accepts every client: loading it opens the proxy to all who can reach it.
 */
#include "cpa_helper.h"

#include <stdatomic.h>

#define PROVIDER "plugin-example-c"
#define FORMAT "chat-completions"

static const char CAPABILITIES[] =
    "{\"model_registrar\":true,\"model_provider\":true,\"auth_provider\":true,\"frontend_auth_provider\":true,"
    "\"executor\":true,\"executor_model_scope\":\"both\",\"executor_input_formats\":[\"" FORMAT "\"],"
    "\"executor_output_formats\":[\"" FORMAT "\"],\"request_translator\":true,\"request_normalizer\":true,"
    "\"response_translator\":true,\"response_before_translator\":true,\"response_after_translator\":true,"
    "\"thinking_applier\":true,\"usage_plugin\":true,\"command_line_plugin\":true,\"management_api\":true}";

/* Shown to operators; this plugin uses none of them. */
static const char CONFIG_FIELDS[] =
    "[{\"Name\":\"config1\",\"Type\":\"boolean\",\"EnumValues\":[],\"Description\":\"Enables the example boolean option.\"},"
    "{\"Name\":\"config2\",\"Type\":\"string\",\"EnumValues\":[],\"Description\":\"Sets the example string option.\"},"
    "{\"Name\":\"config3\",\"Type\":\"integer\",\"EnumValues\":[],\"Description\":\"Sets the example integer option.\"},"
    "{\"Name\":\"mode\",\"Type\":\"enum\",\"EnumValues\":[\"safe\",\"fast\"],"
    "\"Description\":\"Selects the example mode.\"}]";

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = "example-simple-c",
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
                                  .schema_version = 1,
                                  .config_fields = CONFIG_FIELDS,
                                  .capabilities = CAPABILITIES,
                              });
}

static bool identifier(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "identifier", PROVIDER);
    cpa_end_object(&call->result);
    return true;
}

/* Methods that read their request want a JSON object. */
static const cpa_json *read_request(cpa_call *call) {
    const cpa_json *request = cpa_request(call);
    if (request == NULL)
        cpa_fail(call, "invalid_request", "request is not a JSON object");
    return request;
}

/* A string of the request, or what stands for one that is absent, empty or no string. */
static cpa_text string_or(const cpa_json *request, const char *name, cpa_text otherwise) {
    cpa_text found = cpa_string(request, name);
    return found.len > 0 ? found : otherwise;
}

/* --- models and credentials --- */

static bool models(cpa_call *call) {
    cpa_writer *out = &call->result;
    cpa_begin_object(out, NULL);
    cpa_put(out, "Provider", PROVIDER);
    cpa_begin_list(out, "Models");
    cpa_begin_object(out, NULL);
    cpa_put(out, "ID", PROVIDER "-model");
    cpa_put(out, "Object", "model");
    cpa_put(out, "OwnedBy", PROVIDER);
    cpa_put(out, "DisplayName", "Plugin Example C Model");
    cpa_begin_list(out, "SupportedGenerationMethods");
    cpa_put(out, NULL, "chat");
    cpa_end_list(out);
    cpa_put_integer(out, "ContextLength", 8192);
    cpa_put_integer(out, "MaxCompletionTokens", 1024);
    cpa_put_flag(out, "UserDefined", true);
    cpa_end_object(out);
    cpa_end_list(out);
    cpa_end_object(out);
    return true;
}

/* What is stored of a credential is the very request that it came with. */
static void put_auth(cpa_call *call) {
    cpa_writer *out = &call->result;
    cpa_begin_object(out, "Auth");
    cpa_put(out, "Provider", PROVIDER);
    cpa_put(out, "ID", PROVIDER);
    cpa_put(out, "FileName", PROVIDER ".json");
    cpa_put(out, "Label", "Plugin Example C");
    cpa_put_bytes(out, "StorageJSON", call->request);
    cpa_begin_object(out, "Metadata");
    cpa_put(out, "type", PROVIDER);
    cpa_end_object(out);
    cpa_end_object(out);
}

static bool auth_parse(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Handled", true);
    put_auth(call);
    cpa_end_object(&call->result);
    return true;
}

static bool auth_refresh(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    put_auth(call);
    cpa_end_object(&call->result);
    return true;
}

static bool login_start(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Provider", PROVIDER);
    cpa_put(&call->result, "URL", "https://example.invalid/plugin-login");
    cpa_put(&call->result, "State", "example-state");
    cpa_put(&call->result, "ExpiresAt", "2030-01-01T00:00:00Z");
    cpa_end_object(&call->result);
    return true;
}

static bool login_poll(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Status", "error");
    cpa_put(&call->result, "Message", "example plugin has no interactive login");
    cpa_end_object(&call->result);
    return true;
}

static bool authenticate_client(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Authenticated", true);
    cpa_put(&call->result, "Principal", PROVIDER);
    cpa_begin_object(&call->result, "Metadata");
    cpa_put(&call->result, "provider", PROVIDER);
    cpa_end_object(&call->result);
    cpa_end_object(&call->result);
    return true;
}

/* --- executor --- */

static bool answer(cpa_call *call, cpa_writer *payload) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Payload", (cpa_text){payload->at, payload->len});
    cpa_put_header(&call->result, "Headers", "content-type", "application/json");
    cpa_end_object(&call->result);
    call->result.failed |= payload->failed;
    cpa_writer_free(payload);
    return true;
}

static bool execute(cpa_call *call) {
    const cpa_json *request = read_request(call);
    if (request == NULL)
        return false;
    cpa_writer payload = {0};
    cpa_begin_object(&payload, NULL);
    cpa_put(&payload, "id", PROVIDER);
    cpa_put(&payload, "object", "chat.completion");
    cpa_put_text(&payload, "model", string_or(request, "Model", cpa_text_of(PROVIDER "-model")));
    cpa_put_text(&payload, "format", string_or(request, "Format", cpa_text_of(FORMAT)));
    cpa_end_object(&payload);
    return answer(call, &payload);
}

static bool execute_stream(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_header(&call->result, "headers", "content-type", "text/event-stream");
    cpa_begin_list(&call->result, "chunks");
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Payload", cpa_text_of(PROVIDER "\n"));
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

/* Four bytes of the request are a token. */
static bool count_tokens(cpa_call *call) {
    const cpa_json *request = read_request(call);
    if (request == NULL)
        return false;
    cpa_text body;
    if (!cpa_bytes(call, request, "Payload", &body))
        return cpa_fail(call, "invalid_request", "request payload is not base64");
    cpa_writer payload = {0};
    cpa_begin_object(&payload, NULL);
    cpa_put_integer(&payload, "total_tokens", (long long)((body.len + 3) / 4));
    cpa_end_object(&payload);
    return answer(call, &payload);
}

/* Also the page: says what was asked for. */
static bool http_request(cpa_call *call) {
    const cpa_json *request = read_request(call);
    if (request == NULL)
        return false;
    cpa_text page = cpa_text_of("/v0/resource/plugins/example-c/status");
    cpa_writer body = {0};
    cpa_begin_object(&body, NULL);
    cpa_put(&body, "plugin", "example-c");
    cpa_put_text(&body, "method", string_or(request, "Method", cpa_text_of("GET")));
    cpa_put_text(&body, "target", string_or(request, "URL", string_or(request, "Path", page)));
    cpa_end_object(&body);
    cpa_begin_object(&call->result, NULL);
    cpa_put_integer(&call->result, "StatusCode", 200);
    cpa_put_header(&call->result, "Headers", "content-type", "application/json");
    cpa_put_bytes(&call->result, "Body", (cpa_text){body.at, body.len});
    cpa_end_object(&call->result);
    call->result.failed |= body.failed;
    cpa_writer_free(&body);
    return true;
}

/* --- bodies --- */

/* A transform that changes nothing. */
static bool echo(cpa_call *call) {
    const cpa_json *request = read_request(call);
    if (request == NULL)
        return false;
    cpa_text body;
    if (!cpa_bytes(call, request, "Body", &body))
        return cpa_fail(call, "invalid_request", "request body field is not base64");
    if (body.at == NULL)
        return cpa_fail(call, "invalid_request", "request body field is required");
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Body", body);
    cpa_end_object(&call->result);
    return true;
}

static cpa_text trimmed(cpa_text text) {
    while (text.len > 0 && strchr(" \t\r\n", text.at[0]) != NULL && text.at[0] != '\0')
        text.at++, text.len--;
    while (text.len > 0 && strchr(" \t\r\n", text.at[text.len - 1]) != NULL && text.at[text.len - 1] != '\0')
        text.len--;
    return text;
}

static void put_setting(cpa_writer *out, const cpa_json *config) {
    cpa_begin_object(out, "plugin_example_thinking");
    cpa_put_text(out, "mode", cpa_string(config, "Mode"));
    cpa_put_integer(out, "budget", cpa_integer(config, "Budget", 0));
    cpa_put_text(out, "level", cpa_string(config, "Level"));
    cpa_end_object(out);
}

/* Adds a member to the body, in front of its last brace; the rest of it stays byte for byte. */
static bool thinking_apply(cpa_call *call) {
    const cpa_json *request = read_request(call);
    if (request == NULL)
        return false;
    cpa_text body;
    if (!cpa_bytes(call, request, "Body", &body))
        return cpa_fail(call, "invalid_request", "request body field is not base64");
    body = body.len > 0 ? trimmed(body) : cpa_text_of("{}");
    const cpa_json *config = cpa_member(request, "Config"), *parsed = cpa_parse(&call->arena, body);
    cpa_writer changed = {0};
    if (parsed != NULL && parsed->kind == CPA_OBJECT) {
        cpa_append(&changed, body.at, parsed->first != NULL ? body.len - 1 : 1);
        cpa_append(&changed, ",", parsed->first != NULL ? 1 : 0);
    } else {
        cpa_begin_object(&changed, NULL);
        cpa_put_text(&changed, "original_body", body);
    }
    put_setting(&changed, config);
    cpa_end_object(&changed);
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Body", (cpa_text){changed.at, changed.len});
    cpa_end_object(&call->result);
    call->result.failed |= changed.failed;
    cpa_writer_free(&changed);
    return true;
}

/* --- the rest --- */

static bool usage_handle(cpa_call *call) {
    static atomic_llong count;
    cpa_begin_object(&call->result, NULL);
    cpa_put_integer(&call->result, "Count", atomic_fetch_add(&count, 1) + 1);
    cpa_end_object(&call->result);
    return true;
}

static bool command_flags(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_begin_list(&call->result, "Flags");
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Name", "plugin-example-c-command");
    cpa_put(&call->result, "Usage", "Run the example C ABI plugin command");
    cpa_put(&call->result, "Type", "bool");
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool command_execute(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Stdout", cpa_text_of("plugin example c command\n"));
    cpa_put_integer(&call->result, "ExitCode", 0);
    cpa_end_object(&call->result);
    return true;
}

static bool pages(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_begin_list(&call->result, "Resources");
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Path", "/status");
    cpa_put(&call->result, "Menu", "Example C Plugin");
    cpa_put(&call->result, "Description", "Example C plugin at /v0/resource/plugins/example-c/status");
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"model.register", models},
           {"model.static", models},
           {"model.for_auth", models},
           {"auth.identifier", identifier},
           {"auth.parse", auth_parse},
           {"auth.refresh", auth_refresh},
           {"auth.login.start", login_start},
           {"auth.login.poll", login_poll},
           {"frontend_auth.identifier", identifier},
           {"frontend_auth.authenticate", authenticate_client},
           {"executor.identifier", identifier},
           {"executor.execute", execute},
           {"executor.execute_stream", execute_stream},
           {"executor.count_tokens", count_tokens},
           {"executor.http_request", http_request},
           {"request.translate", echo},
           {"request.normalize", echo},
           {"response.translate", echo},
           {"response.normalize_before", echo},
           {"response.normalize_after", echo},
           {"thinking.identifier", identifier},
           {"thinking.apply", thinking_apply},
           {"usage.handle", usage_handle},
           {"command_line.register", command_flags},
           {"command_line.execute", command_execute},
           {"management.register", pages},
           {"management.handle", http_request})
