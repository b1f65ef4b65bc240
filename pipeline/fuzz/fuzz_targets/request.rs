//! Whatever bytes are posted: `request::parse` never panics. What it takes is at most `MAX_BODY`
//! long and an envelope whose form later stages need not doubt, and is taken the same when it is
//! written anew. What it refuses is refused without repeating it.

#![no_main]

use kassa_bus::SaleId;
use kassa_bus::jwe::Jwe;
use kassa_bus::message::{Envelope, decode_content};
use kassa_pipeline::problem::Problem;
use kassa_pipeline::request::{MAX_BODY, parse};
use libfuzzer_sys::fuzz_target;
use serde_json::Map;

/// Longer than any detail that only says what is wrong.
const MAX_DETAIL: usize = 200;

fuzz_target!(|body: &[u8]| {
    let posted = match parse(body) {
        Ok(posted) => posted,
        Err(Problem::Malformed { detail, .. }) => {
            assert!(detail.len() <= MAX_DETAIL, "{detail}");
            return;
        }
        Err(Problem::TooLarge { limit }) => {
            assert!(body.len() > limit);
            return;
        }
        Err(other) => panic!("{other:?} does not follow from the body"),
    };
    assert!(body.len() <= MAX_BODY);

    let mut fields = Map::new();
    fields.insert("shop_id".into(), posted.shop_id.as_str().into());
    if let Some(id) = &posted.sale_id {
        assert_eq!(id.is_uuid(), id.instant().is_some());
        let _ = id.utc_date();
        fields.insert("message_id".into(), id.as_str().into());
    }
    let is_uuid = posted.sale_id.as_ref().is_some_and(SaleId::is_uuid);
    match &posted.envelope {
        Envelope::Sealed { sealed } => {
            assert!(is_uuid);
            assert!(Jwe::parse(sealed).is_ok());
            fields.insert("sealed".into(), sealed.as_str().into());
        }
        Envelope::Classic { content_base64 } => {
            assert!(!is_uuid);
            assert!(decode_content(content_base64).is_some_and(|content| !content.is_empty()));
            fields.insert("content_base64".into(), content_base64.as_str().into());
        }
    }
    let anew = serde_json::to_vec(&fields).expect("strings only");
    assert_eq!(parse(&anew), Ok(posted));
});
