use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use kassa_bus::amount::Amount;
use kassa_bus::{ItemNo, Line, SaleId, ShopId, TillId};
use serde::Deserialize;
use serde_json::value::RawValue;

use kassa_bus::json::object;
use kassa_bus::limits::{MAX_LINE, MAX_LINES, MAX_TILL, json_bytes};

use crate::sold_at;

/// What an envelope holds. Has no `Debug`: it is the sale in plaintext.
pub struct Content {
    pub lines: Vec<Line>,
    /// Sealed sales repeat their id inside, where nobody else can write it.
    pub sale_id: Option<SaleId>,
    /// Signed sales say whose they are, so that one is no other shop's.
    pub shop_id: Option<ShopId>,
    pub till: Option<String>,
    pub seq: Option<u64>,
    pub sold_at: Option<Timestamp>,
}

/// Why the content is no sale. Names the place, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} {why}")]
pub struct InvalidContent {
    place: String,
    why: String,
}

fn invalid(place: impl Into<String>, why: impl fmt::Display) -> InvalidContent {
    InvalidContent { place: place.into(), why: format!("{why}") }
}

/// Numbers stay the text they were sent as, so that none becomes a float.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    sales: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    sale_id: Option<&'a RawValue>,
    #[serde(borrow)]
    shop_id: Option<&'a RawValue>,
    #[serde(borrow)]
    till: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    sold_at: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LineFields<'a> {
    #[serde(borrow)]
    item_no: Option<&'a RawValue>,
    #[serde(borrow)]
    gross_number: Option<&'a RawValue>,
    #[serde(borrow)]
    gross_turnover: Option<&'a RawValue>,
}

/// Reads `{"sales":[{"item_no","gross_number","gross_turnover"}, …]}` and what sealed sales add.
/// Fields that are not ours are ignored.
///
/// # Errors
/// [`InvalidContent`] with the first place that is wrong.
pub fn parse(json: &[u8]) -> Result<Content, InvalidContent> {
    let fields: Fields = object(json).map_err(|e| {
        invalid("the content", format!("is not a sale in JSON (line {}, column {})", e.line(), e.column()))
    })?;
    let lines = fields.sales.ok_or_else(|| invalid("sales", "is missing"))?;
    if lines.is_empty() || lines.len() > MAX_LINES {
        return Err(invalid("sales", format!("must have 1 to {MAX_LINES} lines")));
    }
    let lines =
        lines.into_iter().enumerate().map(|(n, line)| read_line(n, line)).collect::<Result<_, _>>()?;
    let till: Option<String> = fields.till.map(|raw| value("till", raw)).transpose()?;
    till.as_deref().map(check_till).transpose()?;
    Ok(Content {
        lines,
        sale_id: fields.sale_id.map(|raw| text("sale_id", raw)).transpose()?,
        shop_id: fields.shop_id.map(|raw| text("shop_id", raw)).transpose()?,
        till,
        seq: fields.seq.map(|raw| text("seq", raw)).transpose()?,
        sold_at: fields.sold_at.map(|raw| instant(&scalar("sold_at", raw)?)).transpose()?,
    })
}

/// The till that a content says it is of, whatever else is wrong with it.
#[must_use]
pub fn till(json: &[u8]) -> Option<TillId> {
    #[derive(Deserialize)]
    struct Named {
        till: Option<TillId>,
    }
    object::<Named>(json).ok()?.till
}

/// Whether a till may have this name.
///
/// # Errors
/// [`InvalidContent`], if not.
pub fn check_till(name: &str) -> Result<(), InvalidContent> {
    if name.is_empty() || name.len() > MAX_TILL || name.contains(char::is_control) {
        return Err(invalid("till", format!("must be 1 to {MAX_TILL} bytes without control characters")));
    }
    Ok(())
}

fn instant(text: &str) -> Result<Timestamp, InvalidContent> {
    let why = "must be a date and time with offset (RFC 3339), as 2026-11-22T12:00:00Z";
    sold_at::parse(text).ok_or_else(|| invalid("sold_at", why))
}

fn read_line(n: usize, line: &RawValue) -> Result<Line, InvalidContent> {
    let line: LineFields = object(line.get().as_bytes()).map_err(|_| {
        invalid(format!("sales[{n}]"), "must be an object with item_no, gross_number and gross_turnover")
    })?;
    let place = |field: &str| format!("sales[{n}].{field}");
    let raw = |field: &str, value: Option<&'_ RawValue>| -> Result<String, InvalidContent> {
        value.ok_or_else(|| invalid(place(field), "is missing")).and_then(|raw| scalar(&place(field), raw))
    };
    let amount = |field: &str, value| -> Result<Amount, InvalidContent> {
        raw(field, value)?.parse().map_err(|e| invalid(place(field), e))
    };
    let item_no: ItemNo = raw("item_no", line.item_no)?
        .parse()
        .map_err(|e| invalid(place("item_no"), format!("is wrong: {e}")))?;
    let line = Line {
        item_no,
        gross_number: amount("gross_number", line.gross_number)?,
        gross_turnover: amount("gross_turnover", line.gross_turnover)?,
    };
    if line.has_mixed_signs() {
        return Err(invalid(
            format!("sales[{n}]"),
            "has mixed signs: a refund has negative number and turnover",
        ));
    }
    // With the comma after it.
    let bytes = json_bytes(&line) + 1;
    if bytes > MAX_LINE {
        return Err(invalid(format!("sales[{n}]"), format!("has {bytes} bytes, of {MAX_LINE} at most")));
    }
    Ok(line)
}

/// A JSON string's or number's text.
fn scalar(place: &str, raw: &RawValue) -> Result<String, InvalidContent> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map_err(|_| invalid(place, "is not a string")),
        Some(b'-' | b'0'..=b'9') => Ok(text.to_owned()),
        _ => Err(invalid(place, "must be a string or a number")),
    }
}

fn text<T: FromStr>(place: &str, raw: &RawValue) -> Result<T, InvalidContent> {
    scalar(place, raw)?.parse().map_err(|_| invalid(place, "is not in its form"))
}

fn value<'a, T: Deserialize<'a>>(place: &str, raw: &'a RawValue) -> Result<T, InvalidContent> {
    serde_json::from_str(raw.get()).map_err(|_| invalid(place, "is of the wrong type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(item: &str, number: &str, turnover: &str) -> String {
        format!(r#"{{"sales":[{{"item_no":{item},"gross_number":{number},"gross_turnover":{turnover}}}]}}"#)
    }

    #[track_caller]
    fn refused(json: &str, says: &str) {
        let error = parse(json.as_bytes()).err().expect("refused").to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn numbers_come_as_strings_or_numbers_and_stay_exact() {
        for json in
            [line("\"00098\"", "\"3\"", "\"0.30\""), line("98", "3", "0.30"), line("98", "3.0", "3e-1")]
        {
            let content = parse(json.as_bytes()).ok().unwrap();
            let line = &content.lines[0];
            assert_eq!(line.item_no.to_string(), "98");
            assert_eq!(
                (line.gross_number.to_string(), line.gross_turnover.to_string()),
                ("3".into(), "0.3".into())
            );
        }
    }

    #[test]
    fn a_refund_is_negative_in_both_and_an_exchange_has_both_kinds_of_lines() {
        assert!(parse(line("98", "-1", "-12.50").as_bytes()).is_ok());
        assert!(parse(line("98", "1", "0").as_bytes()).is_ok());
        assert!(parse(line("98", "-0", "5").as_bytes()).is_ok());
        refused(&line("98", "1", "-12.50"), "mixed signs");
        refused(&line("98", "-1", "12.50"), "mixed signs");
        let exchange = r#"{"sales":[{"item_no":1,"gross_number":-1,"gross_turnover":-5},{"item_no":2,"gross_number":1,"gross_turnover":7}]}"#;
        assert_eq!(parse(exchange.as_bytes()).ok().unwrap().lines.len(), 2);
    }

    #[test]
    fn what_is_no_sale_is_refused_with_the_place_and_without_the_value() {
        refused("", "not a sale");
        refused("{}", "sales is missing");
        refused(r#"{"sales":[]}"#, "1 to 2000 lines");
        refused(r#"[[{"item_no":1,"gross_number":1,"gross_turnover":1}]]"#, "not a sale");
        refused(r#"{"sales":[["98","1","1"]]}"#, "sales[0] must be an object");
        refused(r#"{"sales":[{}]}"#, "sales[0].item_no is missing");
        refused(&line("98", "NaN", "1"), "not a sale");
        refused(&line("98", "\"NaN\"", "1"), "sales[0].gross_number is not a decimal number");
        refused(&line("98", &"9".repeat(40), "1"), "sales[0].gross_number is out of range");
        refused(&line("98", "1", "0.123456789012345678"), "sales[0].gross_turnover is out of range");
        refused(&line("98", "true", "1"), "string or a number");
        refused(&line("98", "null", "1"), "missing");
        refused(&line("98", "[1]", "1"), "string or a number");
        refused(&line("-98", "1", "1"), "item_no");
        refused(&line(&format!("\"{}\"", "7".repeat(5000)), "1", "1"), "1 to 18 digits");
        refused(r#"{"sales":[{"item_no":1,"gross_number":1,"gross_turnover":1}],"till":5}"#, "till");
        refused(
            r#"{"sales":[{"item_no":1,"gross_number":1,"gross_turnover":1}],"sold_at":"yesterday"}"#,
            "sold_at",
        );
        refused(&format!(r#"{{"sales":{}"#, "[".repeat(100_000)), "not a sale");
    }

    #[test]
    fn a_thousand_lines_are_one_sale() {
        let one = r#"{"item_no":1,"gross_number":1,"gross_turnover":"0.1"}"#;
        let sale = format!(r#"{{"sales":[{}]}}"#, vec![one; 1000].join(","));
        let content = parse(sale.as_bytes()).ok().unwrap();
        assert_eq!(kassa_bus::Totals::of(&content.lines).unwrap().gross_turnover.to_string(), "100");
    }
}
