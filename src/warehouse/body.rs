//! A delivery's body, inflated, in the room that its sender's address has.

use std::io::Read;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use flate2::read::MultiGzDecoder;
use kassa_bus::ClientAddress;
use zeroize::Zeroizing;

use super::problem::Problem;
use crate::listener::{Places, Received, Unread};

/// Bytes of a body as it travels, at most.
pub(super) const MAX_BODY: usize = 1024 * 1024;

/// Bytes of a body when inflated, at most.
pub(super) const MAX_INFLATED: usize = 8 * MAX_BODY;

/// Reads a request's body, inflated.
pub(super) async fn read(
    places: &Places,
    client: ClientAddress,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, Problem> {
    let gzip = match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase())
    {
        None => false,
        Some(coding) => match &coding[..] {
            b"identity" => false,
            b"gzip" | b"x-gzip" => true,
            _ => return Err(Problem::Encoding),
        },
    };
    let body = places.read(client, body, MAX_BODY).await.map_err(|why| unread(why, MAX_BODY))?;
    if gzip { inflate(&body, places.room(client)) } else { Ok(body) }
}

/// Stops at what is allowed, however much more there would be.
fn inflate(body: &[u8], mut inflated: Received) -> Result<Received, Problem> {
    let mut inflating = MultiGzDecoder::new(body);
    let mut some = Zeroizing::new([0; 16 * 1024]);
    loop {
        match inflating.read(&mut some[..]) {
            Ok(0) => return Ok(inflated),
            Ok(n) => inflated.add(&some[..n], MAX_INFLATED).map_err(|why| unread(why, MAX_INFLATED))?,
            Err(_) => {
                let why = "the body is not the gzip that Content-Encoding says it is";
                return Err(Problem::Malformed(why.into()));
            }
        }
    }
}

fn unread(why: Unread, most: usize) -> Problem {
    match why {
        Unread::TooLarge => Problem::TooLarge(most),
        Unread::Slow => Problem::Slow,
        Unread::CutOff => Problem::Malformed("the body is cut off, or its chunks are malformed".into()),
        Unread::Full => Problem::BUSY,
    }
}
