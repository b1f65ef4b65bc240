use jiff::{SignedDuration, Timestamp};
use kassa_bus::Refusal;
use kassa_bus::retry_after::retry_after;

/// What is kept of the warehouse's answer to a delivery.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    /// How its text begins.
    pub text: Vec<u8>,
}

/// What an answer means for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    Taken,
    Down(Down),
    /// It wants no deliveries any more.
    Gone,
    /// It wants none of this one as it is. `divisible` if a single sale may be at fault.
    Refused {
        /// The status, and what the warehouse said to it.
        why: Refusal,
        divisible: bool,
    },
}

/// The warehouse takes nothing now: no sale's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// The status or the kind of failure; nothing of what was sent or answered.
    pub why: String,
    /// When the warehouse wants to be asked again, if it said so.
    pub until: Option<Timestamp>,
    /// Whether it may be over within a second.
    pub blip: bool,
}

/// However long the warehouse asks for, nobody may wait longer: it may have been a slip.
pub(super) const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// Characters of a refusal that are kept.
const KEPT: usize = 300;

impl Answer {
    #[must_use]
    pub fn meaning(&self, now: Timestamp) -> Meaning {
        match self.status {
            200..=299 => Meaning::Taken,
            410 => Meaning::Gone,
            // Redirects are not followed: what was allowed is the address, not whatever it names. A 421 is about its name, not
            // about the delivery.
            300..=399 | 408 | 421 | 425 | 429 | 500.. => Meaning::Down(self.down(now)),
            status => Meaning::Refused {
                why: Refusal::answered(format!("the warehouse answered {status}"), printable(&self.text)),
                divisible: matches!(status, 400 | 413 | 422),
            },
        }
    }

    fn down(&self, now: Timestamp) -> Down {
        let until = self.retry_after.as_deref().and_then(|text| until(text, now));
        let why = match self.status {
            300..=399 => format!("status {}: redirects are not followed", self.status),
            status => format!("status {status}"),
        };
        Down { why, until, blip: self.status >= 500 && until.is_none() }
    }
}

/// When to come back, of a `Retry-After`.
fn until(text: &str, now: Timestamp) -> Option<Timestamp> {
    let wait = SignedDuration::try_from(retry_after(text, now)?).unwrap_or(SignedDuration::MAX);
    wait.is_positive().then(|| now + wait.min(LONGEST_WAIT))
}

/// The beginning of a text that somebody else wrote, fit for a console and a message's attribute.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let fit = |c: char| if c.is_alphanumeric() || c.is_ascii_punctuation() { c } else { ' ' };
    let text: String = text.chars().map(fit).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(KEPT).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn answer(status: u16, retry_after: Option<&str>, text: &str) -> Meaning {
        Answer { status, retry_after: retry_after.map(Into::into), text: text.into() }.meaning(now())
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in 200..300 {
            assert_eq!(answer(status, None, "thanks"), Meaning::Taken);
        }
        assert_eq!(answer(410, Some("5"), ""), Meaning::Gone);
        for status in (500..600).chain([301, 302, 303, 307, 308, 408, 421, 425, 429, 999]) {
            let Meaning::Down(down) = answer(status, None, "oops") else { panic!("{status}") };
            assert_eq!(down.blip, status >= 500, "{status}");
            assert!(down.why.contains(&status.to_string()) && !down.why.contains("oops"));
        }
        for status in (400..500).filter(|status| ![408, 410, 421, 425, 429].contains(status)) {
            let divisible = [400, 413, 422].contains(&status);
            assert_eq!(
                answer(status, None, "no\nsuch \u{1b}[31mtill"),
                Meaning::Refused {
                    why: Refusal::answered(format!("the warehouse answered {status}"), "no such [31mtill"),
                    divisible
                }
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_an_hour_at_most() {
        for (text, seconds) in [
            ("120", Some(120)),
            ("0", None),
            ("soon", None),
            ("7200", Some(3600)),
            ("99999999999999999999", Some(3600)),
            ("Sun, 22 Nov 2026 12:02:00 GMT", Some(120)),
            ("Sunday, 22-Nov-26 12:02:00 GMT", Some(120)),
            ("Sun Nov 22 12:02:00 2026", Some(120)),
            ("Sun, 22 Nov 2026 11:58:00 GMT", None),
            ("Fri, 01 Jan 2100 00:00:00 GMT", Some(3600)),
        ] {
            let expected = seconds.map(|s| now() + SignedDuration::from_secs(s));
            assert_eq!(until(text, now()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_warehouse_that_says_when_is_not_asked_at_once() {
        let Meaning::Down(down) = answer(503, Some("30"), "") else { panic!() };
        assert_eq!((down.blip, down.until), (false, Some(now() + SignedDuration::from_secs(30))));
    }

    proptest! {
        #[test]
        fn what_is_kept_of_a_refusal_is_short_and_printable(text in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let kept = printable(&text);
            prop_assert!(kept.chars().count() <= KEPT);
            prop_assert!(kept.chars().all(|c| c == ' ' || c.is_alphanumeric() || c.is_ascii_punctuation()));
        }

        #[test]
        fn no_retry_after_panics_or_waits_longer_than_an_hour(text in "\\PC{0,40}|[0-9]{0,30}") {
            if let Some(until) = until(&text, now()) {
                prop_assert!(until > now() && until <= now() + LONGEST_WAIT);
            }
        }
    }
}
