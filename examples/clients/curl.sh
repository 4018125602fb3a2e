#!/bin/sh
# The four protocols through CPA with nothing but curl, whole and streamed.
# Run it against the demo (`cpa serve --demo`): sh examples/clients/curl.sh
# CPA_URL and CPA_KEY name another proxy and a client key of it.
set -eu
url=${CPA_URL:-http://127.0.0.1:8317}
key=${CPA_KEY:-the-demo-needs-none}

ask() { # PATH HEADER BODY
    curl -sSN --fail-with-body "$url$1" -H "$2" -H 'Content-Type: application/json' -d "$3"
    echo
}

bearer="Authorization: Bearer $key"
chat='"messages":[{"role":"user","content":"hello"}]'
contents='{"contents":[{"role":"user","parts":[{"text":"hello"}]}]}'

echo '# Chat Completions'
ask /v1/chat/completions "$bearer" '{"model":"demo-gpt",'"$chat"'}'
ask /v1/chat/completions "$bearer" '{"model":"demo-gpt","stream":true,'"$chat"'}'
echo '# Responses'
ask /v1/responses "$bearer" '{"model":"demo-responses","input":"hello"}'
ask /v1/responses "$bearer" '{"model":"demo-responses","input":"hello","stream":true}'
echo '# Messages'
ask /v1/messages "x-api-key: $key" '{"model":"demo-claude","max_tokens":256,'"$chat"'}'
ask /v1/messages "x-api-key: $key" '{"model":"demo-claude","max_tokens":256,"stream":true,'"$chat"'}'
echo '# Gemini'
ask /v1beta/models/demo-gemini:generateContent "x-goog-api-key: $key" "$contents"
ask '/v1beta/models/demo-gemini:streamGenerateContent?alt=sse' "x-goog-api-key: $key" "$contents"
echo '# Models'
curl -sS --fail-with-body "$url/v1/models" -H "$bearer"
echo
