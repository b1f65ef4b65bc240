//! What travels to the warehouse, and how both ends know that it is ours and whole.
//!
//! Signed as Standard Webhooks 1.0.0 asks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>): HMAC-SHA256
//! over `id.timestamp.body` in base64, behind `v1,`. While a secret is being replaced, one delivery carries
//! a signature by each.
//!
//! The signed body is the JSON before compression. `Content-Encoding` belongs to the way there: a proxy may
//! inflate it, or compress it anew, and receivers' frameworks inflate it before anybody can look.

use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::{SaleId, ShopId};
use crate::message::DecryptedSale;
use crate::sale::Line;

/// The same for every attempt at the same delivery.
pub const ID: &str = "webhook-id";
/// When this attempt was made, in seconds since 1970.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// `v1,<base64>`; several are separated by spaces.
pub const SIGNATURE: &str = "webhook-signature";

/// How far the sender's clock may be from the receiver's, either way. Bounds how long an overheard
/// delivery can be sent again; the sales' ids make a repeat harmless anyway.
pub const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// A secret that sender and receiver share: 24 to 64 bytes, written as `whsec_` and base64.
///
/// The prefix may be left out. Has no `Debug`; the key is wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(hmac::Key);

/// Some make secrets without the padding.
const SECRET: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is no secret. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    #[error("a webhook secret is base64, with or without whsec_ before it")]
    NotBase64,
    #[error("a webhook secret is 24 to 64 bytes (before base64); this one has {0}")]
    Length(usize),
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let text = text.trim();
        let text = text.strip_prefix("whsec_").unwrap_or(text);
        let bytes = SECRET.decode(text).map(Zeroizing::new).map_err(|_| InvalidSecret::NotBase64)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(InvalidSecret::Length(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl Secret {
    fn tag(&self, id: &str, timestamp: &str, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            context.update(part);
        }
        context.sign()
    }
}

/// The value of [`SIGNATURE`]: one signature per secret, in their order. [`TIMESTAMP`]'s value is
/// `at.as_second()`.
#[must_use]
pub fn sign(id: &str, at: Timestamp, body: &[u8], secrets: &[Secret]) -> String {
    let timestamp = at.as_second().to_string();
    let sign = |secret: &Secret| format!("v1,{}", BASE64_STANDARD.encode(secret.tag(id, &timestamp, body)));
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

/// The three headers of a delivery, as received.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    pub id: &'a str,
    pub timestamp: &'a str,
    pub signature: &'a str,
}

impl<'a> Headers<'a> {
    /// Reads them by name, in lower case.
    ///
    /// # Errors
    /// [`Unverified::Missing`] with the first that is not there.
    pub fn from(get: impl Fn(&'static str) -> Option<&'a str>) -> Result<Self, Unverified> {
        let header = |name| get(name).filter(|value| !value.is_empty()).ok_or(Unverified::Missing(name));
        Ok(Self { id: header(ID)?, timestamp: header(TIMESTAMP)?, signature: header(SIGNATURE)? })
    }
}

/// Why a delivery cannot be taken for ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    #[error("the header {0} is missing")]
    Missing(&'static str),
    #[error("webhook-timestamp is not a number of seconds since 1970")]
    NoTimestamp,
    #[error("webhook-timestamp is more than five minutes from the time here, {now}; is a clock wrong?")]
    NotNow { now: Timestamp },
    #[error("no v1 signature of webhook-signature was made with a secret known here")]
    WrongSignature,
}

/// Checks that a body was signed with one of the secrets, within [`TOLERANCE`] of now. Compares in
/// constant time.
///
/// # Errors
/// [`Unverified`].
pub fn verify(headers: Headers, body: &[u8], secrets: &[Secret], now: Timestamp) -> Result<(), Unverified> {
    let seconds = headers.timestamp.parse().map_err(|_| Unverified::NoTimestamp)?;
    let at = Timestamp::from_second(seconds).map_err(|_| Unverified::NoTimestamp)?;
    if now.duration_since(at).abs() > TOLERANCE {
        return Err(Unverified::NotNow { now });
    }
    // Signatures of later versions are for whoever knows them.
    let given: Vec<Vec<u8>> = headers
        .signature
        .split(' ')
        .filter_map(|signature| BASE64_STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .collect();
    let signed = |secret: &Secret| {
        let tag = secret.tag(headers.id, headers.timestamp, body);
        given.iter().any(|signature| verify_slices_are_equal(signature, tag.as_ref()).is_ok())
    };
    secrets.iter().any(signed).then_some(()).ok_or(Unverified::WrongSignature)
}

/// The body: `{"type":"sales","timestamp":"…","data":{"sales":[…]}}`. Cannot be printed: it is plaintext.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SalesDelivery {
    #[serde(rename = "type")]
    pub kind: DeliveryType,
    /// When the delivery was put together.
    pub timestamp: Timestamp,
    pub data: Sales,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryType {
    Sales,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sales {
    /// In no particular order; may be empty, and may repeat what was delivered before.
    pub sales: Vec<WarehouseSale>,
}

/// What a warehouse needs of a sale. Cannot be printed: it is plaintext.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarehouseSale {
    pub shop_id: ShopId,
    /// Unique within its shop: the two together tell a repeat.
    pub sale_id: SaleId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sold_at: Option<Timestamp>,
    pub accepted_at: Timestamp,
    pub lines: Vec<Line>,
}

impl From<DecryptedSale> for WarehouseSale {
    fn from(sale: DecryptedSale) -> Self {
        let DecryptedSale { shop_id, sale_id, till, seq, sold_at, lines, origin, .. } = sale;
        Self { shop_id, sale_id, till, seq, sold_at, accepted_at: origin.accepted_at, lines }
    }
}

/// A body that is no delivery. Tells the place, never what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the body is not {{\"type\":\"sales\",\"timestamp\",\"data\":{{\"sales\":[…]}}}} (line {line}, column {column})"
)]
pub struct NotADelivery {
    line: usize,
    column: usize,
}

impl SalesDelivery {
    #[must_use]
    pub fn of(sales: Vec<WarehouseSale>, now: Timestamp) -> Self {
        Self { kind: DeliveryType::Sales, timestamp: now, data: Sales { sales } }
    }

    /// The body as it is signed.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        // Plain structs with string keys: serde_json cannot fail on them.
        Zeroizing::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// # Errors
    /// [`NotADelivery`].
    pub fn read(json: &[u8]) -> Result<Self, NotADelivery> {
        serde_json::from_slice(json).map_err(|e| NotADelivery { line: e.line(), column: e.column() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-22T12:00:00Z";
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "3q2+796tvu/erb7v3q2+796tvu/erb7v3q2+796tvu8=";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn secret(text: &str) -> Secret {
        text.parse().unwrap()
    }

    /// The verdict on `{}` signed at noon, by whoever has `secrets` at `now`.
    fn verdict(signature: &str, secrets: &[Secret], now: Timestamp) -> Result<(), Unverified> {
        let timestamp = self::now().as_second().to_string();
        verify(Headers { id: "msg_1", timestamp: &timestamp, signature }, b"{}", secrets, now)
    }

    #[test]
    fn the_specifications_example_is_signed_alike() {
        // The vector of the reference libraries' tests.
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let signature = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#, &[secret(OLD)]);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn either_secret_will_do_while_one_is_replaced() {
        let both = sign("msg_1", now(), b"{}", &[secret(NEW), secret(OLD)]);
        for known in [OLD, NEW] {
            assert_eq!(verdict(&both, &[secret(known)], now()), Ok(()));
            let one = sign("msg_1", now(), b"{}", &[secret(known)]);
            assert_eq!(verdict(&one, &[secret(NEW), secret(OLD)], now()), Ok(()));
        }
        let old = sign("msg_1", now(), b"{}", &[secret(OLD)]);
        assert_eq!(verdict(&old, &[secret(NEW)], now()), Err(Unverified::WrongSignature));
        assert_eq!(verdict(&old, &[], now()), Err(Unverified::WrongSignature));
    }

    #[test]
    fn what_is_old_or_from_the_future_is_refused() {
        let signature = sign("msg_1", now(), b"{}", &[secret(OLD)]);
        for (seconds, taken) in [(-301, false), (-300, true), (300, true), (301, false)] {
            let then = now() + SignedDuration::from_secs(seconds);
            assert_eq!(verdict(&signature, &[secret(OLD)], then).is_ok(), taken, "{seconds}");
        }
    }

    #[test]
    fn a_change_of_anything_signed_is_refused() {
        let timestamp = now().as_second().to_string();
        let signature = sign("msg_1", now(), b"{}", &[secret(OLD)]);
        let later = (now().as_second() + 1).to_string();
        let body: &[u8] = b"{}";
        for (id, timestamp, body) in
            [("msg_2", &timestamp, body), ("msg_1", &later, body), ("msg_1", &timestamp, b"[]")]
        {
            let headers = Headers { id, timestamp, signature: &signature };
            assert_eq!(verify(headers, body, &[secret(OLD)], now()), Err(Unverified::WrongSignature));
        }
        for signature in ["", "v1,", "v1,AAAA", "v2,g0hM", "v1a,x", &signature.replace("v1,", "v2,")] {
            assert_eq!(verdict(signature, &[secret(OLD)], now()), Err(Unverified::WrongSignature));
        }
    }

    #[test]
    fn headers_that_are_missing_are_named() {
        let only_id = |name: &'static str| (name == ID).then_some("msg_1");
        assert_eq!(Headers::from(only_id).unwrap_err(), Unverified::Missing(TIMESTAMP));
        for timestamp in ["noon", "1e9", "-99999999999999", "99999999999999999999"] {
            let headers = Headers { id: "msg_1", timestamp, signature: "v1,AAAA" };
            assert_eq!(verify(headers, b"{}", &[], now()), Err(Unverified::NoTimestamp));
        }
    }

    #[test]
    fn a_secret_is_the_same_without_prefix_and_padding() {
        let signature = sign("msg_1", now(), b"{}", &[secret(NEW)]);
        for text in [format!("whsec_{NEW}"), NEW.trim_end_matches('=').to_owned(), format!(" {NEW}\n")] {
            assert_eq!(verdict(&signature, &[secret(&text)], now()), Ok(()));
        }
    }

    #[test]
    fn a_wrong_secret_is_told_without_repeating_it() {
        assert_eq!("whsec_c2hvcnQ=".parse::<Secret>().err(), Some(InvalidSecret::Length(5)));
        assert_eq!("whsec_no base64".parse::<Secret>().err(), Some(InvalidSecret::NotBase64));
        assert_eq!("whsec_".parse::<Secret>().err(), Some(InvalidSecret::Length(0)));
    }

    #[test]
    fn a_delivery_reads_as_it_was_written_and_tells_only_the_place_of_what_is_wrong() {
        let json = r#"{"type":"sales","timestamp":"2026-11-22T12:00:00Z","data":{"sales":[{"shop_id":"AMIS1","sale_id":"7-20261122","accepted_at":"2026-11-22T11:59:00Z","lines":[{"item_no":"98","gross_number":"2","gross_turnover":"37.9"}]}]}}"#;
        let delivery = SalesDelivery::read(json.as_bytes()).unwrap();
        assert_eq!(*delivery.to_json(), json.as_bytes());
        let wrong = json.replace("37.9", "much");
        let error = SalesDelivery::read(wrong.as_bytes()).err().unwrap().to_string();
        assert!(error.contains("column 2") && !error.contains("much"), "{error}");
        assert!(SalesDelivery::read(json.replace("\"sales\",", "\"other\",").as_bytes()).is_err());
    }
}
