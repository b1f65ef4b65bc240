//! Whatever an envelope holds: `content::parse` never panics. What it takes has 1 to `MAX_LINES`
//! lines with no mixed signs, exact amounts within their range, and exact totals in whatever order
//! they are added; and all of it reads back as the same after it was stored. What it refuses is
//! refused without repeating it.

#![no_main]

use kassa_bus::amount::Amount;
use kassa_bus::{Line, Totals};
use kassa_pipeline::content::{MAX_LINES, parse};
use libfuzzer_sys::fuzz_target;

/// Longer than any error that only names the place and what is wrong.
const MAX_ERROR: usize = 200;

/// The amount in millionths, from its text alone.
fn millionths(amount: Amount) -> i128 {
    let text = amount.to_string();
    let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(fraction.len() <= 6, "too many decimals");
    assert!(sign == 1 || digits != "0", "minus zero");
    sign * format!("{whole}{fraction:0<6}").parse::<i128>().expect("digits and one point")
}

fuzz_target!(|json: &[u8]| {
    let content = match parse(json) {
        Ok(content) => content,
        Err(error) => {
            let error = error.to_string();
            assert!(error.len() <= MAX_ERROR, "{error}");
            return;
        }
    };
    let mut lines = content.lines;
    assert!((1..=MAX_LINES).contains(&lines.len()));

    let (mut number, mut turnover) = (0, 0);
    for line in &lines {
        assert_eq!(line.item_no.to_string().parse(), Ok(line.item_no));
        for amount in [line.gross_number, line.gross_turnover] {
            assert_eq!(amount.to_string().parse(), Ok(amount));
            assert!(millionths(amount).abs() < 1_000_000_000_000_000_000);
        }
        let (n, t) = (millionths(line.gross_number), millionths(line.gross_turnover));
        assert!(n.signum() * t.signum() != -1, "mixed signs");
        number += n;
        turnover += t;
    }

    let totals = Totals::of(&lines);
    assert_eq!((millionths(totals.gross_number), millionths(totals.gross_turnover)), (number, turnover));
    for total in [totals.gross_number, totals.gross_turnover] {
        assert_eq!(Amount::from_stored(&total.to_string()), Ok(total));
    }

    let stored = serde_json::to_string(&lines).expect("strings only");
    let read: Vec<Line> = serde_json::from_str(&stored).expect("what was just written");
    assert!(read == lines, "storing changed the lines");
    lines.reverse();
    assert_eq!(Totals::of(&lines), totals);

    if let Some(id) = content.sale_id {
        assert_eq!(id.to_string().parse().as_ref(), Ok(&id));
        let _ = id.utc_date();
    }
    if let Some(at) = content.sold_at {
        assert_eq!(at.to_string().parse().ok(), Some(at));
    }
    if let Some(till) = content.till {
        assert!((1..=100).contains(&till.len()) && !till.contains(char::is_control));
    }
});
