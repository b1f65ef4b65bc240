use serde::Deserialize;
use serde::de::Error;

/// Reads a JSON object. serde alone would take an array for a struct as well, its elements for the
/// fields in their order, which no format here allows.
///
/// # Errors
/// As [`serde_json::from_slice`], and if it is something else than an object.
pub fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    match json.trim_ascii_start().first() {
        Some(b'[') => Err(serde_json::Error::custom("an object is expected")),
        _ => serde_json::from_slice(json),
    }
}
