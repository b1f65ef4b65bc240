//! `Retry-After`, for whoever posts and is told to come back later.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How long a server asks to be left alone (RFC 9110 section 10.2.3): seconds, or a date in any of the three forms of section
/// 5.6.7. A date that is over is no wait. Whoever waits bounds it.
#[must_use]
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
    Some(at.duration_since(now).max(SignedDuration::ZERO).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn it_is_seconds_or_a_date_in_any_form_http_has() {
        for (text, seconds) in [
            ("120", Some(120)),
            (" 1 ", Some(1)),
            ("0", Some(0)),
            ("18446744073709551616", Some(u64::MAX)),
            // IMF-fixdate, RFC 850, asctime.
            ("Sun, 22 Nov 2026 12:02:00 GMT", Some(120)),
            ("Sunday, 22-Nov-26 12:02:00 GMT", Some(120)),
            ("Sun Nov 22 12:02:00 2026", Some(120)),
            ("Tue Dec  1 12:00:00 2026", Some(9 * 24 * 3600)),
            ("Sunday, 22-Nov-20 12:02:00 GMT", Some(0)),
            ("Sun Nov 22 11:58:00 2020", Some(0)),
            ("-5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Sun, 22 Nov 2026", None),
        ] {
            assert_eq!(retry_after(text, now()), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[0-9]{0,30}|[A-Z][a-z]{2}[, ].{0,30}") {
            let _ = retry_after(&text, now());
        }
    }
}
