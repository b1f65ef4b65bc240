//! What people read when an alarm's action is run.

use kassa_bus::notify::{Alert, Severity, Texts};
use serde_json::json;

use super::State;
use super::alarms;
use super::standing::Told;

/// The alert, in the words of each protocol.
#[must_use]
pub fn alert(told: &Told, stack: &str) -> Alert {
    let Told { name, title, meaning, run, state, at, why, .. } = told;
    let severity = match (state, told.severity) {
        (State::Ok | State::InsufficientData, _) => Severity::Info,
        (State::Alarm, alarms::Severity::Warning) => Severity::Warning,
        (State::Alarm, alarms::Severity::Critical) => Severity::Critical,
    };
    let word = if *state == State::Alarm { "ALARM" } else { "OK" };
    let headline = format!("{word}: {title}");
    let todo = if *state == State::Alarm { run.as_str() } else { "Nothing is to be done at once." };
    let since = at.strftime("%-d %B %Y, %H:%M UTC");
    let email = format!(
        "{headline}\n\n{meaning}\n\nSince {since}: {why}\n\nWhat to do\n  {todo}\n  docs/runbook.md#{name}\n"
    );
    let program =
        json!({"alarm": name, "stack": stack, "state": state, "severity": severity, "at": at, "why": why});
    let push = json!({"title": headline, "body": meaning});
    let data = json!({"alarm": name, "state": state, "severity": severity});
    let texts = Texts {
        default: format!("Kassa: {headline}. {meaning}"),
        email,
        sms: ascii(&format!("Kassa: {headline}. {todo}"), 160),
        https: program.to_string(),
        gcm: json!({"fcmV1Message": {"message": {"notification": push, "data": data}}}).to_string(),
        apns: json!({"aps": {"alert": push}, "kassa": data}).to_string(),
    };
    // SNS takes fewer than 100 characters.
    Alert {
        subject: ascii(&format!("Kassa: {headline}"), 99),
        shop_id: None,
        reason: name.clone(),
        severity,
        texts,
    }
}

/// What every subject and every phone takes.
fn ascii(text: &str, most: usize) -> String {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().map(plain).take(most).collect()
}
