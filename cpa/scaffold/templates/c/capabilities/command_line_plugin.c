// needs:
/* A flag of the command line, `cpa --NAME-hello`: CPA starts, runs it, and ends. */
static bool command_line_register(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_begin_list(&call->result, "Flags");
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Name", NAME "-hello");
    cpa_put(&call->result, "Usage", "Say hello");
    cpa_put(&call->result, "Type", "bool");
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool command_line_execute(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Stdout", cpa_text_of("Hello from " NAME ".\n"));
    cpa_put_integer(&call->result, "ExitCode", 0);
    cpa_end_object(&call->result);
    return true;
}
