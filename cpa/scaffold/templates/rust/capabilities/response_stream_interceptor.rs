// needs: request
/// Streamed answers on their way to the client: once with ChunkIndex -1 for the headers, then for every chunk. An empty
/// Body leaves a chunk as it is, DropChunk drops it.
fn response_intercept_stream_chunk(call: &Call) -> Answer {
    let head = request(call)?.integer("ChunkIndex") == Some(-1);
    Ok(object(|o| {
        if head {
            o.header("Headers", "X-Plugin", NAME);
        }
    }))
}
