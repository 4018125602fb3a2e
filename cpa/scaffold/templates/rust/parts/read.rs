// needs:
/// A body, which messages carry in base64.
fn read(request: &Value, name: &str) -> Result<Vec<u8>, Failure> {
    let read = request.bytes(name).map_err(|_| Failure::new("invalid_request", "the body is not base64"))?;
    Ok(read.unwrap_or_default())
}
