// needs:
/// What the host asks.
fn request<'a>(call: &Call<'a>) -> Result<Value<'a>, Failure> {
    call.json().ok_or_else(|| Failure::new("invalid_request", "the request is not a JSON object"))
}
