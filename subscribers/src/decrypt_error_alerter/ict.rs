use jiff::civil::Date;
use kassa_bus::ShopId;
use kassa_bus::message::Reason;
use kassa_bus::notify::{Alert, Severity, Texts};
use kassa_bus::registry::Shop;
use serde_json::json;

use super::gsm7::SmsText;
use super::incident::{Failures, News, Outgoing};
use super::runbook::runbook;

/// What ICT and its programs read of an incident, by whatever they subscribed with. `shop` is missing if it is
/// not registered, `stage` on one machine.
#[must_use]
pub fn alert(
    shop_id: &ShopId,
    reason: Reason,
    shop: Option<&Shop>,
    outgoing: &Outgoing,
    stage: Option<&str>,
) -> Alert {
    let (news, Failures { count, first, last, source }) = (outgoing.news, &outgoing.failures);
    let headline = match news {
        News::Opened => format!("{shop_id}: sales are rejected ({reason})"),
        News::StillOpen => format!("{shop_id}: sales are still rejected ({reason})"),
        News::Over => format!("{shop_id}: sales are recorded again ({reason})"),
    };
    let summary = format!("{count} rejected since {first:.0}, the last at {last:.0} from {source}.");
    let manager = match shop {
        None => "The shop is not registered, so there is nobody to tell there.".to_owned(),
        Some(Shop { name, manager_phone: None, .. }) => {
            format!("The manager of {name} has no phone number here.")
        }
        Some(Shop { name, .. }) => format!("The manager of {name} is told by SMS."),
    };
    let remedy = match news {
        News::Over => "Nothing is to be done at once. What was rejected is kept.".to_owned(),
        News::Opened | News::StillOpen => runbook(reason, shop_id, stage),
    };
    let severity = severity(news, reason);
    let program = json!({
        "news": news,
        "shop_id": shop_id,
        "reason": reason,
        "severity": severity,
        "at": outgoing.at,
        "failures": outgoing.failures,
    });
    About { shop_id, reason: reason.as_str(), severity }.alert(
        &headline,
        &summary,
        &format!("{headline}\n\n{summary}\n{manager}\n\n{remedy}\n"),
        &program,
    )
}

/// That a shop's manager gets no more text messages this month.
#[must_use]
pub fn budget_used_up(shop: &Shop, month: Date) -> Alert {
    let Shop { shop_id, name, sms_budget, .. } = shop;
    let month = month.strftime("%Y-%m").to_string();
    let headline = format!("{shop_id}: SMS budget used up");
    let summary = format!("The {sms_budget} text messages of {month} are sent.");
    let email = format!(
        "{headline}\n\n{summary}\nThe manager of {name} is not told of incidents by SMS before next month; call \
         him.\nAlerts go on as before.\n\nWhat to do\n  See why there were so many: is an incident of the shop \
         coming and going?\n  To allow more, raise the shop's sms_budget in shops.toml and apply it.\n",
    );
    let program = json!({ "news": BUDGET, "shop_id": shop_id, "month": month, "sms_budget": sms_budget });
    About { shop_id, reason: BUDGET, severity: Severity::Warning }
        .alert(&headline, &summary, &email, &program)
}

const BUDGET: &str = "sms-budget";

/// Sales that nobody can read, and those of a till that was never enrolled, are everything a shop or till sells; the
/// others are single ones, or somebody's who should not sell.
fn severity(news: News, reason: Reason) -> Severity {
    match (news, reason) {
        (News::Over, _) => Severity::Info,
        (_, Reason::WrongKey | Reason::UnknownShop | Reason::Unsigned | Reason::UnknownTill) => {
            Severity::Critical
        }
        (
            _,
            Reason::Malformed
            | Reason::Tampered
            | Reason::InvalidSale
            | Reason::Conflict
            | Reason::Replayed
            | Reason::BadSignature
            | Reason::RevokedTill
            | Reason::Dropped,
        ) => Severity::Warning,
    }
}

struct About<'a> {
    shop_id: &'a ShopId,
    reason: &'static str,
    severity: Severity,
}

impl About<'_> {
    fn alert(self, headline: &str, summary: &str, email: &str, program: &serde_json::Value) -> Alert {
        let Self { shop_id, reason, severity } = self;
        let push = json!({ "title": headline, "body": summary });
        let data = json!({ "shop_id": shop_id, "reason": reason, "severity": severity });
        let texts = Texts {
            default: format!("Kassa: {headline}. {summary}"),
            email: email.to_owned(),
            sms: SmsText::about("Kassa", &format!("{headline}. {summary}")).into(),
            https: program.to_string(),
            gcm: json!({ "fcmV1Message": { "message": { "notification": push, "data": data } } }).to_string(),
            apns: json!({ "aps": { "alert": push }, "kassa": data }).to_string(),
        };
        let (shop_id, reason) = (Some(shop_id.clone()), reason.to_owned());
        // SNS takes fewer than 100 characters.
        let subject = format!("Kassa: {headline}").chars().take(99).collect();
        Alert { subject, shop_id, reason, severity, texts }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::super::incident::Addressee;
    use super::super::testing::shop;
    use super::*;

    fn told(news: News, reason: Reason, shop: Option<&Shop>, stage: Option<&str>) -> Alert {
        let at: Timestamp = "2026-11-22T13:05:00Z".parse().unwrap();
        let failures = Failures { count: 12, first: at, last: at, source: "192.0.2.7".into() };
        let outgoing = Outgoing { news, to: Addressee::Ict, at, failures, claimed_until: None };
        let id = shop.map_or_else(|| "AMIS1".parse().unwrap(), |shop| shop.shop_id.clone());
        alert(&id, reason, shop, &outgoing, stage)
    }

    #[test]
    fn ict_reads_what_it_means_and_which_commands_to_run() {
        let shop = shop("AMIS Nieuwegein", "nl");
        let alert = told(News::Opened, Reason::WrongKey, Some(&shop), Some("prod"));
        assert_eq!(alert.subject, "Kassa: AMIS1: sales are rejected (wrong-key)");
        assert_eq!((alert.reason.as_str(), alert.severity), ("wrong-key", Severity::Critical));
        for part in [
            "12 rejected since 2026-11-22T13:05:00Z, the last at 2026-11-22T13:05:00Z from 192.0.2.7.",
            "The manager of AMIS Nieuwegein is told by SMS.",
            "\n  kassa audit keys --shop AMIS1 --since 24h --stage prod\n",
            "\n  kassa check --stage prod\n",
            "Nothing is lost",
        ] {
            assert!(alert.texts.email.contains(part), "{part}\n{}", alert.texts.email);
        }
    }

    #[test]
    fn on_one_machine_there_is_no_stage() {
        let alert = told(News::StillOpen, Reason::Malformed, None, None);
        assert!(alert.texts.email.contains("kassa events --shop AMIS1 |"), "{}", alert.texts.email);
        assert!(!alert.texts.email.contains("--stage"));
        assert!(alert.texts.email.contains("not registered"));
        assert_eq!(alert.severity, Severity::Warning);
    }

    #[test]
    fn programs_read_json() {
        let alert = told(News::Over, Reason::WrongKey, None, None);
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let https = parse(&alert.texts.https);
        assert_eq!((&https["news"], &https["severity"]), (&json!("over"), &json!("info")));
        assert_eq!(https["failures"]["count"], 12);
        let title = "AMIS1: sales are recorded again (wrong-key)";
        assert_eq!(parse(&alert.texts.gcm)["fcmV1Message"]["message"]["notification"]["title"], title);
        assert_eq!(parse(&alert.texts.apns)["aps"]["alert"]["title"], title);
    }

    #[test]
    fn everything_fits_whatever_the_shop_is_called() {
        let mut shop = shop(&"Ωmega \"€\" ".repeat(50), "en");
        shop.shop_id = "x".repeat(64).parse().unwrap();
        let month = "2026-11-01".parse().unwrap();
        for alert in [
            told(News::StillOpen, Reason::UnknownShop, Some(&shop), Some("prod")),
            budget_used_up(&shop, month),
        ] {
            assert!(alert.subject.is_ascii() && alert.subject.len() < 100, "{}", alert.subject);
            assert!(alert.texts.gcm.len() < 2048 && alert.texts.apns.len() < 2048);
            assert!(alert.texts.sms.len() <= 160);
            assert!(json!(alert.texts).to_string().len() < 64 * 1024);
        }
    }

    #[test]
    fn a_used_up_budget_is_told_with_what_to_do() {
        let alert = budget_used_up(&shop("AMIS Nieuwegein", "nl"), "2026-11-22".parse().unwrap());
        assert_eq!(alert.subject, "Kassa: AMIS1: SMS budget used up");
        assert!(alert.texts.email.contains("The 30 text messages of 2026-11 are sent."));
        assert!(alert.texts.email.contains("raise the shop's sms_budget"));
    }
}
