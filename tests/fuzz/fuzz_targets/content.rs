//! Whatever an envelope holds: `content::parse` never panics. What it takes has 1 to `MAX_LINES`
//! lines with no mixed signs and amounts within their range, adds up exactly, and reads back as the same after it was
//! stored. What it refuses is refused without repeating it.

#![no_main]

use kassa_bus::amount::Amount;
use kassa_bus::{Line, Totals};
use kassa_bus::limits::MAX_LINES;
use kassa_pipeline::content::parse;
use libfuzzer_sys::fuzz_target;

/// Longer than any error that only names the place and what is wrong.
const MAX_ERROR: usize = 200;

const MAX_DIGITS: usize = 18;
const MAX_DECIMALS: usize = 17;
const ONE: i128 = 10_i128.pow(MAX_DECIMALS as u32);
const LIMIT: i128 = 1_000_000_000_000 * ONE;

/// The amount in units of the last decimal there may be, from its text alone.
fn units(amount: Amount) -> i128 {
    let text = amount.to_string();
    let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(fraction.len() <= MAX_DECIMALS, "too many decimals: {text}");
    assert!(sign == 1 || digits != "0", "minus zero");
    sign * format!("{whole}{fraction:0<MAX_DECIMALS$}").parse::<i128>().expect("digits and one point")
}

/// How many digits the amount has without leading zeros.
fn digits(amount: Amount) -> usize {
    amount.to_string().replace(['-', '.'], "").trim_start_matches('0').len()
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

    for line in &lines {
        assert_eq!(line.item_no.to_string().parse(), Ok(line.item_no));
        for amount in [line.gross_number, line.gross_turnover] {
            assert_eq!(amount.to_string().parse(), Ok(amount));
            assert!(units(amount).abs() < LIMIT);
            assert!(digits(amount) <= MAX_DIGITS);
        }
        assert!(units(line.gross_number).signum() * units(line.gross_turnover).signum() != -1, "mixed signs");
    }

    let totals = Totals::of(&lines).expect("what a sale's lines add up to is an amount");
    lines.reverse();
    assert_eq!(Totals::of(&lines), Some(totals));
    lines.reverse();
    let numbers: Vec<i128> = lines.iter().map(|line| units(line.gross_number)).collect();
    let turnovers: Vec<i128> = lines.iter().map(|line| units(line.gross_turnover)).collect();
    for (amounts, total) in [(numbers, totals.gross_number), (turnovers, totals.gross_turnover)] {
        assert_eq!(Amount::from_stored(&total.to_string()), Ok(total));
        assert_eq!(units(total), amounts.iter().sum());
    }

    let stored = serde_json::to_string(&lines).expect("strings only");
    let read: Vec<Line> = serde_json::from_str(&stored).expect("what was just written");
    assert!(read == lines, "storing changed the lines");

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
