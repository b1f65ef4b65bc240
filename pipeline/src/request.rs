use kassa_bus::limits::MAX_ENVELOPE;
use kassa_bus::message::{Envelope, decode_content};
use kassa_bus::{SaleId, ShopId};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::problem::Problem;
use kassa_bus::json::object;
use kassa_bus::jwe::{Jwe, RSA_2048_BYTES};

use kassa_bus::limits::{MAX_BATCH, MAX_BATCH_BODY, MAX_BODY};

/// A well-formed `POST /shop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    pub shop_id: ShopId,
    /// Absent on classic sales that leave the id to us.
    pub sale_id: Option<SaleId>,
    pub envelope: Envelope,
}

/// A sale of a batch, or why it is none, with its id where that can be told.
pub type Member = Result<Posted, (Option<SaleId>, Problem)>;

/// What a `POST /shop` brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posts {
    One(Posted),
    /// Sealed sales of one shop, in the order they were sent.
    Batch(ShopId, Vec<Member>),
}

impl Posts {
    /// Whose they are.
    #[must_use]
    pub fn shop_id(&self) -> &ShopId {
        match self {
            Self::One(posted) => &posted.shop_id,
            Self::Batch(shop_id, _) => shop_id,
        }
    }
}

/// Says no to a body that comes packed, by a `Content-Encoding` (RFC 9110 section 8.4): nothing is unpacked here.
///
/// # Errors
/// [`Problem::Encoding`].
pub fn check_encoding(codings: &str) -> Result<(), Problem> {
    let plain = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    if codings.split(',').map(str::trim).all(plain) { Ok(()) } else { Err(Problem::Encoding) }
}

/// The fields as the JSON text they were sent as, so that one of the wrong type can be named. Nothing
/// is built of what is not a string: however deep it nests, it is only skipped.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    shop_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    message_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    content_base64: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    sealed: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    sales: Option<&'a RawValue>,
}

/// One of a batch.
#[derive(Deserialize)]
struct MemberFields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    message_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    sealed: Option<&'a RawValue>,
}

/// `null` is not absent: a till whose id is null by mistake must hear of it, or each of its retries
/// would be a sale of its own.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// Reads a request body. Fields that are not ours are ignored.
///
/// # Errors
/// [`Problem::TooLarge`], or [`Problem::Malformed`] with the first wrong field. Of a batch, what is wrong with one
/// sale is that one's.
pub fn parse(body: &[u8]) -> Result<Posts, Problem> {
    if body.len() > MAX_BATCH_BODY {
        return Err(Problem::TooLarge);
    }
    match parse_any(body) {
        Ok(Posts::Batch(shop_id, members)) => Ok(Posts::Batch(shop_id, members)),
        _ if body.len() > MAX_BODY => Err(Problem::TooLarge),
        other => other,
    }
}

fn parse_any(body: &[u8]) -> Result<Posts, Problem> {
    if body.trim_ascii().is_empty() {
        return Err(Problem::malformed("body", "is empty; a JSON object is expected"));
    }
    if [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"].iter().any(|mark| body.starts_with(mark)) {
        let why = "begins with a byte order mark (U+FEFF); send the JSON without it, in UTF-8";
        return Err(Problem::malformed("body", why));
    }
    let fields: Fields = object(body).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        let what = if e.is_data() { "is not a JSON object with each field once" } else { "is not JSON" };
        Problem::malformed("body", format!("{what} ({place})"))
    })?;
    let shop_id = required("shop_id", fields.shop_id)?;
    let shop_id = shop_id.parse().map_err(|e| Problem::malformed("shop_id", format!("{e}")))?;
    if let Some(sales) = fields.sales {
        if fields.message_id.or(fields.sealed).or(fields.content_base64).is_some() {
            return Err(Problem::malformed("sales", "came with a sale beside it; send one of them"));
        }
        return Ok(Posts::Batch(ShopId::clone(&shop_id), batch(&shop_id, sales)?));
    }
    let sale_id = fields.message_id.map(id).transpose()?;
    let envelope = match (fields.sealed, fields.content_base64) {
        (Some(_), Some(_)) => {
            return Err(Problem::malformed("sealed", "came with content_base64; send one of them"));
        }
        (None, None) => {
            return Err(Problem::malformed(
                "sealed",
                "is missing, and so is content_base64; send one of them",
            ));
        }
        (Some(sealed), None) => self::sealed(string("sealed", sealed)?, sale_id.as_ref())?,
        (None, Some(content)) => classic(string("content_base64", content)?, sale_id.as_ref())?,
    };
    Ok(Posts::One(Posted { shop_id, sale_id, envelope }))
}

fn id(value: &RawValue) -> Result<SaleId, Problem> {
    string("message_id", value)?.parse().map_err(|e| Problem::malformed("message_id", format!("{e}")))
}

fn batch(shop_id: &ShopId, sales: &RawValue) -> Result<Vec<Member>, Problem> {
    let must = || Problem::malformed("sales", format!("must be an array of 1 to {MAX_BATCH} sales"));
    let sales: Vec<&RawValue> = serde_json::from_str(sales.get()).map_err(|_| must())?;
    if sales.is_empty() || sales.len() > MAX_BATCH {
        return Err(must());
    }
    Ok(sales.into_iter().map(|sale| member(shop_id, sale)).collect())
}

fn member(shop_id: &ShopId, sale: &RawValue) -> Member {
    let not_one =
        |_| Problem::malformed("sales", "holds something else than a sale with message_id and sealed");
    let fields: MemberFields = object(sale.get().as_bytes()).map_err(|e| (None, not_one(e)))?;
    let sale_id = fields.message_id.map(id).transpose().map_err(|problem| (None, problem))?;
    let of = |problem| (sale_id.clone(), problem);
    let text = required("sealed", fields.sealed).map_err(of)?;
    let envelope = sealed(text, sale_id.as_ref()).map_err(of)?;
    Ok(Posted { shop_id: shop_id.clone(), sale_id, envelope })
}

fn sealed(sealed: String, sale_id: Option<&SaleId>) -> Result<Envelope, Problem> {
    match sale_id {
        None => return Err(Problem::malformed("message_id", "is missing; a sealed sale has a UUIDv7")),
        Some(id) if !id.is_uuid() => {
            return Err(Problem::malformed("message_id", "must be a UUIDv7 for a sealed sale"));
        }
        Some(_) => {}
    }
    let envelope = sized(Envelope::Sealed { sealed })?;
    Jwe::parse(envelope.text()).map_err(|e| Problem::malformed("sealed", e.to_string()))?;
    Ok(envelope)
}

/// An envelope that the event store and its queues have room for.
fn sized(envelope: Envelope) -> Result<Envelope, Problem> {
    if envelope.bytes() > MAX_ENVELOPE { Err(Problem::TooLarge) } else { Ok(envelope) }
}

fn classic(content_base64: String, sale_id: Option<&SaleId>) -> Result<Envelope, Problem> {
    if sale_id.is_some_and(SaleId::is_uuid) {
        return Err(Problem::malformed(
            "message_id",
            "must be <digits>-<yyyymmdd> for a classic sale, or absent",
        ));
    }
    let envelope = sized(Envelope::Classic { content_base64 })?;
    match decode_content(envelope.text()) {
        Some(content) if content.len() == RSA_2048_BYTES => Ok(envelope),
        Some(content) => {
            let bytes = content.len();
            let why = format!("is {bytes} bytes; what an RSA-2048 key encrypted is {RSA_2048_BYTES}");
            Err(Problem::malformed("content_base64", why))
        }
        None => Err(Problem::malformed("content_base64", "is not base64 (RFC 4648, standard alphabet)")),
    }
}

fn required(field: &'static str, value: Option<&RawValue>) -> Result<String, Problem> {
    string(field, value.ok_or_else(|| Problem::malformed(field, "is missing"))?)
}

fn string(field: &'static str, value: &RawValue) -> Result<String, Problem> {
    let kind = match value.get().as_bytes().first() {
        Some(b'"') => {
            let text = serde_json::from_str(value.get());
            return text.map_err(|_| Problem::malformed(field, "is not a string of Unicode characters"));
        }
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ => "a number",
    };
    Err(Problem::malformed(field, format!("must be a string, not {kind}")))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    #[track_caller]
    fn refused(body: &str, field: &str) {
        match parse(body.as_bytes()) {
            Err(Problem::Malformed { field: named, .. }) => assert_eq!(named, field, "{body}"),
            other => panic!("{body} gave {other:?}"),
        }
    }

    #[test]
    fn a_classic_sale_with_and_without_an_id_is_taken() {
        let id = |body: &[u8]| match parse(body).unwrap() {
            Posts::One(posted) => posted.sale_id.map(|id| id.to_string()),
            Posts::Batch(..) => panic!("one sale is no batch"),
        };
        let content = "A".repeat(342);
        let with =
            format!(r#"{{"shop_id":"AMIS1","content_base64":"{content}","message_id":"7-20261122","x":1}}"#);
        assert_eq!(id(with.as_bytes()).as_deref(), Some("7-20261122"));
        assert_eq!(id(format!(r#"{{"shop_id":"AMIS1","content_base64":"{content}=="}}"#).as_bytes()), None);
    }

    #[test]
    fn what_is_wrong_with_one_sale_of_a_batch_is_that_ones() {
        let id = "0193a4e8-6c00-7000-8000-000000000001";
        let body =
            format!(r#"{{"shop_id":"A","sales":[{{"message_id":"{id}","sealed":"x"}},7,{{"sealed":"x"}}]}}"#);
        let Ok(Posts::Batch(shop, members)) = parse(body.as_bytes()) else { panic!("a batch") };
        let told: Vec<_> = members
            .into_iter()
            .map(|member| match member {
                Err((id, Problem::Malformed { field, .. })) => (id.map(|id| id.to_string()), field),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shop.as_str(), "A");
        assert_eq!(told, [(Some(id.to_owned()), "sealed"), (None, "sales"), (None, "message_id")]);
        // and what is wrong with the batch is everybody's
        for sales in ["[]", "{}", "null", "1", &format!("[{}1]", "1,".repeat(100))] {
            refused(&format!(r#"{{"shop_id":"A","sales":{sales}}}"#), "sales");
        }
        refused(r#"{"shop_id":"A","sales":[1],"sealed":"x"}"#, "sales");
    }

    #[test]
    fn a_batch_may_be_larger_than_a_sale_but_none_of_its_sales() {
        let sealed = "x".repeat(MAX_ENVELOPE + 1);
        let large = Problem::TooLarge;
        let id = "0193a4e8-6c00-7000-8000-000000000001";
        let body = format!(
            r#"{{"shop_id":"A","sales":[{{"message_id":"{id}","sealed":"{sealed}"}},{{"sealed":"x"}}]}}"#
        );
        let Ok(Posts::Batch(_, members)) = parse(body.as_bytes()) else { panic!("a batch") };
        assert_eq!(members[0], Err((Some(id.parse().unwrap()), large.clone())));
        assert!(matches!(members[1], Err((None, Problem::Malformed { .. }))));
        // and whatever else is as large is refused as that
        let body = format!(r#"{{"shop_id":"A","message_id":"{id}","sealed":"{sealed}"}}"#);
        assert_eq!(parse(body.as_bytes()), Err(large.clone()));
        assert_eq!(parse(&vec![b' '; MAX_BATCH_BODY + 1]), Err(large));
    }

    #[test]
    fn a_byte_order_mark_and_a_packed_body_are_named() {
        let said = |body: &[u8]| parse(body).unwrap_err().document().1["detail"].to_string();
        for body in [&b"\xef\xbb\xbf{}"[..], b"\xff\xfe{\0}\0", b"\xfe\xff\0{\0}"] {
            assert!(said(body).contains("byte order mark"), "{body:?}");
        }
        for plain in ["", "identity", " Identity , identity"] {
            assert_eq!(check_encoding(plain), Ok(()));
        }
        for packed in ["gzip", "identity, gzip", "br", "x"] {
            assert_eq!(check_encoding(packed), Err(Problem::Encoding));
        }
    }

    #[test]
    fn null_is_not_absent() {
        refused(r#"{"shop_id":null,"content_base64":"AAAA"}"#, "shop_id");
        refused(r#"{"shop_id":"A","content_base64":"AAAA","message_id":null}"#, "message_id");
        refused(r#"{"shop_id":"A","content_base64":"AAAA","sealed":null}"#, "sealed");
    }

    #[test]
    fn base64_may_be_in_lines() {
        let lines = r"QUFB\nQUFB\r\n".repeat(42);
        let body = format!(r#"{{"shop_id":"AMIS1","content_base64":"{lines}QUFBQQ==\n"}}"#);
        assert!(parse(body.as_bytes()).is_ok());
        assert_eq!(decode_content("QUFB\nQQ==").unwrap(), b"AAAA");
    }

    #[test]
    fn the_wrong_field_is_named() {
        refused("", "body");
        refused("  ", "body");
        refused("hello", "body");
        refused("[]", "body");
        refused(r#" ["AMIS1","7-20261122","AAAA"]"#, "body");
        refused("{", "body");
        refused(&"[".repeat(100_000), "body");
        refused(&format!(r#"{{"shop_id":{}1"#, r#"{"a":"#.repeat(10_000)), "body");
        refused(r#"{"shop_id":"A","shop_id":"B","content_base64":"AAAA"}"#, "body");
        refused(r#"{"content_base64":"AAAA"}"#, "shop_id");
        refused(r#"{"shop_id":1,"content_base64":"AAAA"}"#, "shop_id");
        refused(r#"{"shop_id":"a b","content_base64":"AAAA"}"#, "shop_id");
        refused(r#"{"shop_id":"A","content_base64":"AAAA","message_id":"x"}"#, "message_id");
        refused(r#"{"shop_id":"A","content_base64":"AAAA","message_id":7}"#, "message_id");
        refused(
            r#"{"shop_id":"A","content_base64":"AAAA","message_id":"0193a4e8-6c00-7000-8000-000000000001"}"#,
            "message_id",
        );
        refused(r#"{"shop_id":"A","content_base64":"*"}"#, "content_base64");
        refused(r#"{"shop_id":"A","content_base64":""}"#, "content_base64");
        refused(r#"{"shop_id":"A","content_base64":["AAAA"]}"#, "content_base64");
        for bytes in [1, 255, 257, 512] {
            let content = BASE64_STANDARD.encode(vec![0; bytes]);
            refused(&format!(r#"{{"shop_id":"A","content_base64":"{content}"}}"#), "content_base64");
        }
        refused(r#"{"shop_id":"A"}"#, "sealed");
        refused(r#"{"shop_id":"A","sealed":"x","content_base64":"AAAA"}"#, "sealed");
        refused(r#"{"shop_id":"A","sealed":"x"}"#, "message_id");
        refused(r#"{"shop_id":"A","sealed":"x","message_id":"7-20261122"}"#, "message_id");
        refused(
            r#"{"shop_id":"A","sealed":"a.b.c","message_id":"0193a4e8-6c00-7000-8000-000000000001"}"#,
            "sealed",
        );
    }

    #[test]
    fn nothing_but_a_string_is_a_string_however_it_is_nested() {
        // given what serde_json itself would take for JSON in a string, and read again
        let hidden = r#"{"$serde_json::private::RawValue":"\"A\""}"#;
        refused(&format!(r#"{{"shop_id":{hidden},"content_base64":"AAAA"}}"#), "shop_id");
        // and that within itself, 60 times over, with 120 arrays around each: some 50 KB
        let escaped = |text: String| text.replace('\\', r"\u005c").replace('"', r"\u0022");
        let nested = (0..60).fold("1".to_owned(), |text, _| {
            let hidden = format!(r#"{{"$serde_json::private::RawValue":"{}"}}"#, escaped(text));
            format!("{}{hidden}{}", "[".repeat(120), "]".repeat(120))
        });
        refused(&format!(r#"{{"shop_id":{nested},"content_base64":"AAAA"}}"#), "shop_id");
        refused(&format!(r#"{{"shop_id":{}{}}}"#, "[".repeat(60_000), "]".repeat(60_000)), "shop_id");
    }

    #[test]
    fn an_envelope_is_taken_up_to_the_limit_and_line_breaks_count_as_they_are_kept() {
        let posted = |content: &str| {
            let body =
                serde_json::json!({"shop_id": "A", "message_id": "7-20261122", "content_base64": content});
            parse(body.to_string().as_bytes())
        };
        let content = "A".repeat(342);
        let with = |blank: &str, blanks: usize| format!("{content}{}", blank.repeat(blanks));
        let left = MAX_ENVELOPE - content.len();
        assert!(posted(&with(" ", left)).is_ok() && posted(&with("\n", left / 2)).is_ok());
        assert_eq!(posted(&with(" ", left + 1)), Err(Problem::TooLarge));
        assert_eq!(posted(&with("\n", left / 2 + 1)), Err(Problem::TooLarge));
    }

    #[test]
    fn what_is_too_large_is_told_before_it_is_read() {
        assert_eq!(parse(&vec![b'x'; MAX_BODY + 1]), Err(Problem::TooLarge));
    }
}
