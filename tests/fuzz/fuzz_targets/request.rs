//! Whatever bytes are posted: `request::parse` never panics. What it takes is at most `MAX_BODY` long, or a batch of at
//! most `MAX_BATCH_BODY`, and of envelopes whose form later stages need not doubt, and is taken the same when it is
//! written anew. What it refuses is refused without repeating it.

#![no_main]

use kassa_bus::SaleId;
use kassa_bus::jwe::Jwe;
use kassa_bus::message::{Envelope, decode_content};
use kassa_pipeline::problem::Problem;
use kassa_bus::limits::{MAX_BATCH, MAX_BATCH_BODY, MAX_BODY, MAX_ENVELOPE};
use kassa_pipeline::request::{Posted, Posts, parse};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

/// Longer than any detail that only says what is wrong.
const MAX_DETAIL: usize = 200;

/// What was refused says why, and not what it was.
fn brief(problem: &Problem, length: usize) {
    match problem {
        Problem::Malformed { detail, .. } => assert!(detail.len() <= MAX_DETAIL, "{detail}"),
        Problem::TooLarge => assert!(length > MAX_ENVELOPE),
        other => panic!("{other:?} does not follow from the body"),
    }
}

/// The fields of a sale that was taken.
fn fields(posted: &Posted) -> Map<String, Value> {
    let mut fields = Map::new();
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
            assert!(decode_content(content_base64).is_some_and(|content| content.len() == 256));
            fields.insert("content_base64".into(), content_base64.as_str().into());
        }
    }
    fields
}

fuzz_target!(|body: &[u8]| {
    let posts = match parse(body) {
        Ok(posts) => posts,
        Err(problem) => return brief(&problem, body.len()),
    };
    let (mut anew, taken) = match posts {
        Posts::One(posted) => {
            assert!(body.len() <= MAX_BODY);
            let mut anew = fields(&posted);
            anew.insert("shop_id".into(), posted.shop_id.as_str().into());
            (anew, Posts::One(posted))
        }
        Posts::Batch(shop_id, members) => {
            assert!(body.len() <= MAX_BATCH_BODY && (1..=MAX_BATCH).contains(&members.len()));
            let mut taken = Vec::new();
            for member in members {
                match member {
                    Ok(posted) => {
                        assert!(posted.shop_id == shop_id && matches!(posted.envelope, Envelope::Sealed { .. }));
                        taken.push(posted);
                    }
                    Err((_, problem)) => brief(&problem, body.len()),
                }
            }
            if taken.is_empty() {
                return;
            }
            let mut anew = Map::new();
            anew.insert("shop_id".into(), shop_id.as_str().into());
            anew.insert("sales".into(), taken.iter().map(|posted| Value::Object(fields(posted))).collect());
            (anew, Posts::Batch(shop_id, taken.into_iter().map(Ok).collect()))
        }
    };
    anew.insert("ignored".into(), Value::Null);
    let anew = serde_json::to_vec(&anew).expect("strings only");
    assert_eq!(parse(&anew), Ok(taken));
});
