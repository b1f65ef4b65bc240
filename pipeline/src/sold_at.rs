//! When a sale was sold, as its till writes it: every date and time of RFC 3339 (5.6), which is kept as an instant, to the
//! nanosecond.
//!
//! `T` and `Z` may be small, and a space may stand for the `T`; seconds may have any number of decimals, of which nine are
//! kept; a leap second is the second before it. What is after the last instant that can be kept, 9999-12-30T22:00:00.999999999Z,
//! as a program writes it that means never, is that one.

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;

/// The instant that a till wrote, unless that is none.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let (before, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, offset) = fraction.split_at(digits);
    let text = match fraction.get(..9).unwrap_or(fraction) {
        "" => text.to_owned(),
        nanoseconds => format!("{before}.{nanoseconds}{offset}"),
    };
    text.parse().ok().or_else(|| is_after_the_last(&text).then_some(Timestamp::MAX))
}

/// A time that is one by all but its size. Those before the first instant have no form in RFC 3339.
fn is_after_the_last(text: &str) -> bool {
    let parts = Pieces::parse(text).ok().filter(|_| text.starts_with("9999-12-"));
    parts.is_some_and(|parts| parts.time().is_some() && parts.to_numeric_offset().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(text: &str, instant: &str) {
        assert_eq!(parse(text).map(|at| at.to_string()), Some(instant.to_owned()), "{text}");
    }

    #[test]
    fn every_form_of_rfc_3339_is_taken_and_kept_to_the_nanosecond() {
        // Its own examples (5.8), of which two are leap seconds.
        is("1985-04-12T23:20:50.52Z", "1985-04-12T23:20:50.52Z");
        is("1996-12-19T16:39:57-08:00", "1996-12-20T00:39:57Z");
        is("1990-12-31T23:59:60Z", "1990-12-31T23:59:59Z");
        is("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59Z");
        is("1937-01-01T12:00:27.87+00:20", "1937-01-01T11:40:27.87Z");
        // Small letters, a space, an offset that nobody knows.
        is("2026-11-22t12:00:00z", "2026-11-22T12:00:00Z");
        is("2026-11-22 12:00:00Z", "2026-11-22T12:00:00Z");
        is("2026-11-22T12:00:00-00:00", "2026-11-22T12:00:00Z");
        is("2026-11-22T12:00:00+23:59", "2026-11-21T12:01:00Z");
        is("2026-11-22T12:00:00-23:59", "2026-11-23T11:59:00Z");
        is("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z");
        // Any number of decimals.
        for (decimals, kept) in [("1", ".1"), ("123456789", ".123456789"), ("1234567899", ".123456789")] {
            is(&format!("2026-11-22T12:00:00.{decimals}+01:00"), &format!("2026-11-22T11:00:00{kept}Z"));
        }
        is(&format!("2026-11-22T12:00:00.{}Z", "9".repeat(1_000)), "2026-11-22T12:00:00.999999999Z");
        is(&format!("2016-12-31T23:59:60.{}z", "9".repeat(10)), "2016-12-31T23:59:59.999999999Z");
        // The first year and the last.
        is("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z");
        is("0000-01-01T00:00:00+23:59", "-000001-12-31T00:01:00Z");
    }

    #[test]
    fn what_is_after_the_last_instant_is_that_one_and_reads_back() {
        let last = "9999-12-30T22:00:00.999999999Z";
        is(last, last);
        for after in [
            "9999-12-30T22:00:01Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31t23:59:60.9999999999z",
            "9999-12-31T23:59:59.9999999999+00:00",
            "9999-12-31T23:59:59-23:59",
            "9999-12-29T23:59:59-23:59",
        ] {
            is(after, last);
        }
        // As it stands in an event and in what the warehouse gets.
        let json = serde_json::to_string(&Timestamp::MAX).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), Timestamp::MAX);
    }

    #[test]
    fn what_is_no_time_is_none_also_at_the_end_of_time() {
        for text in [
            "",
            "yesterday",
            "2026-11-22",
            "2026-11-22T12:00:00",
            "2026-11-22T25:00:00Z",
            "2026-11-22T12:00:61Z",
            "2026-11-22T12:00:00.Z",
            "2026-02-29T12:00:00Z",
            "2026-11-22T12:00:00+24:00x",
            "9999-12-31",
            "9999-12-31T23:59:59",
            "9999-12-32T23:59:59Z",
            "9999-12-31T23:59:59.é",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
