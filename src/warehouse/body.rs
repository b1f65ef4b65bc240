use std::io::Read;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, header};
use flate2::read::MultiGzDecoder;
use zeroize::Zeroizing;

use super::problem::Problem;

/// Bytes of a body as it travels, at most.
const MAX_BODY: usize = 1024 * 1024;

/// Bytes of a body when inflated, at most.
const MAX_INFLATED: usize = 8 * MAX_BODY;

/// A body takes at most this long to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a request's body, inflated.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let gzip = match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase())
    {
        None => false,
        Some(coding) => match &coding[..] {
            b"identity" => false,
            b"gzip" | b"x-gzip" => true,
            _ => return Err(Problem::Encoding),
        },
    };
    let read = tokio::time::timeout(PATIENCE, to_bytes(body, MAX_BODY)).await.map_err(|_| Problem::Slow)?;
    // Whoever breaks off in the middle does not read the answer.
    let body = read.map_err(|_| Problem::TooLarge(MAX_BODY))?;
    if gzip { inflate(&body) } else { Ok(Zeroizing::new(body.into())) }
}

/// Stops one byte beyond what is allowed, however much more there would be.
fn inflate(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut inflated = Zeroizing::new(Vec::with_capacity(8 * body.len()));
    let mut limited = MultiGzDecoder::new(body).take(MAX_INFLATED as u64 + 1);
    limited.read_to_end(&mut inflated).map_err(|_| {
        Problem::Malformed("the body is not the gzip that Content-Encoding says it is".into())
    })?;
    if inflated.len() > MAX_INFLATED {
        return Err(Problem::TooLarge(MAX_INFLATED));
    }
    Ok(inflated)
}
