// needs:
/* Streamed answers on their way to the client: once with ChunkIndex -1 for the headers, then for every chunk. An empty Body
 * leaves a chunk as it is, DropChunk drops it. */
static bool response_intercept_stream_chunk(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    if (cpa_integer(cpa_request(call), "ChunkIndex", 0) == -1)
        cpa_put_header(&call->result, "Headers", "X-Plugin", NAME);
    cpa_end_object(&call->result);
    return true;
}
