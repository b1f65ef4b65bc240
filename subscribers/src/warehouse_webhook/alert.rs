use kassa_bus::notify::{Alert, Severity, Texts};
use serde_json::json;

use super::state::News;

/// What ICT is told. Names the warehouse's host only: the rest of its URL may hold a token.
#[must_use]
pub fn alert(news: &News, host: &str) -> Alert {
    let (severity, subject, text) = match news {
        News::Silent { since, why } => (
            Severity::Warning,
            "The warehouse does not answer",
            format!(
                "{host} has taken no sales since {since} ({why}).\n\n\
                 Nothing is lost: the queue keeps every sale for 14 days and the warehouse gets them all when it \
                 is back. It is asked again once a minute.\n\n\
                 kassa webhook    shows how it goes; with --resume the next run asks at once\n"
            ),
        ),
        News::Back { since, at } => (
            Severity::Info,
            "The warehouse answers again",
            format!(
                "{host} takes sales again since {at}, after being away since {since}. It now gets what waited.\n"
            ),
        ),
        News::Gone { at } => (
            Severity::Critical,
            "The warehouse wants no more sales (410 Gone)",
            format!(
                "{host} answered 410 Gone at {at}. Nothing is sent to it any more.\n\n\
                 Nothing is lost yet: the queue keeps every sale for 14 days. Ask the warehouse team for the new \
                 URL and deploy it, or, if the answer was a mistake, run\n\n\
                 kassa webhook --resume\n"
            ),
        ),
    };
    let short = format!("Kassa: {subject} ({host})");
    let texts = Texts {
        default: short.clone(),
        email: text,
        sms: short.clone(),
        https:
            json!({"reason": REASON, "severity": severity, "subject": subject, "host": host, "state": news})
                .to_string(),
        gcm: json!({"fcmV1Message": {"message": {"notification": {"title": subject, "body": short}}}})
            .to_string(),
        apns: json!({"aps": {"alert": {"title": subject, "body": short}}}).to_string(),
    };
    Alert { subject: format!("Kassa: {subject}"), shop_id: None, reason: REASON.into(), severity, texts }
}

const REASON: &str = "warehouse";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_fit_their_protocols() {
        let now: jiff::Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for news in [
            News::Silent { since: now, why: "status 503".into() },
            News::Back { since: now, at: now },
            News::Gone { at: now },
        ] {
            let Alert { subject, texts, .. } = alert(&news, "warehouse.example");
            assert!(subject.is_ascii() && subject.len() < 100 && !subject.contains('\n'), "{subject}");
            assert!(texts.sms.is_ascii() && texts.sms.len() <= 160, "{}", texts.sms);
            assert!(
                texts.email.contains("warehouse.example") && texts.email.contains("2026-11-22T12:00:00Z")
            );
            for payload in [texts.https, texts.gcm, texts.apns] {
                assert!(serde_json::from_str::<serde_json::Value>(&payload).is_ok() && payload.len() < 2048);
            }
        }
    }
}
