// needs:
// Streamed answers on their way to the client: once with ChunkIndex -1 for the headers, then for every chunk. An empty Body
// leaves a chunk as it is, DropChunk drops it.
func responseInterceptStreamChunk(request struct{ ChunkIndex int }) (any, error) {
	if request.ChunkIndex != -1 {
		return nil, nil
	}
	return map[string]any{"Headers": plugin.Header{"X-Plugin": {name}}}, nil
}
