use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use kassa_bus::ShopId;
use kassa_bus::attention::NeedsAttention;
use kassa_bus::message::Reason;
use kassa_bus::notify::{Alert, Severity, Texts};
use kassa_bus::registry::Shop;
use serde_json::json;

use super::gsm7::SmsText;
use super::incident::Failures;
use super::outgoing::{News, Outgoing, Texted};
use super::runbook::runbook;

/// What ICT and its programs read of an incident, by whatever they subscribed with, with what became of the manager's text
/// message as far as it is known. `needs` is what needs attention of the shop now; `shop` is missing if it is not registered,
/// `stage` on one machine. People read the shop's time, programs UTC.
#[must_use]
pub fn alert(
    needs: &NeedsAttention,
    reason: Reason,
    shop: Option<&Shop>,
    outgoing: &Outgoing,
    stage: Option<&str>,
) -> Alert {
    let shop_id = &needs.shop_id;
    let (news, Failures { count, first, last, source, tills }) = (outgoing.news, &outgoing.failures);
    let what = match (news, reason.needs_attention()) {
        (News::Opened, true) => "sales are rejected",
        (News::StillOpen, true) => "sales are still rejected",
        (News::Over, true) => "over, all is booked or given up",
        (News::Over, false) => "no more come, nothing is to be booked",
        (_, false) if reason == Reason::Conflict => {
            "recorded ids come with another content, nothing is to be booked"
        }
        (_, false) => "recorded sales come again, nothing is to be booked",
    };
    let headline = format!("{shop_id}: {what} ({reason})");
    let zone = shop.map_or(TimeZone::UTC, Shop::zone);
    let time = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let (first, last, zone_name) = (time(*first), time(*last), zone.iana_name().unwrap_or("UTC"));
    let tills = if tills.is_empty() { String::new() } else { format!(", of {}", tills.all()) };
    let summary =
        format!("{count} rejected since {first} ({zone_name}){tills}, the last at {last} from {source}.");
    let manager =
        outgoing.texted.map(|texted| format!("{}\n", manager(shop, texted, time))).unwrap_or_default();
    let remedy = match news {
        News::Over => "Nothing is to be done at once. What was rejected is kept.".to_owned(),
        News::Opened | News::StillOpen => runbook(reason, needs, stage),
    };
    let severity = severity(news, reason);
    let program = json!({
        "news": news,
        "shop_id": shop_id,
        "reason": reason,
        "severity": severity,
        "at": outgoing.at,
        "failures": outgoing.failures,
        "manager": outgoing.texted,
    });
    About { shop_id, reason: reason.as_str(), severity }.alert(
        &headline,
        &summary,
        &format!("{headline}\n\n{summary}\n{manager}\n{remedy}\n"),
        &program,
    )
}

/// What became of the text message to the shop's manager.
fn manager(shop: Option<&Shop>, texted: Texted, time: impl Fn(Timestamp) -> String) -> String {
    let name = shop.map_or("the shop", |shop| &*shop.name);
    match texted {
        Texted::Sent { at } => format!("The manager of {name} was sent a text message at {}.", time(at)),
        Texted::NotRegistered => "The shop is not registered, so there is nobody to tell there.".to_owned(),
        Texted::NoPhone => {
            format!("The manager of {name} was not sent a text message: no phone number is registered.")
        }
        Texted::OverBudget => {
            format!(
                "The manager of {name} was not sent a text message: this month's budget is used up. Call him."
            )
        }
        Texted::OthersOpen => {
            format!(
                "The manager of {name} was not sent a text message: other sales of the shop are still rejected."
            )
        }
        Texted::Waits { until } => {
            format!(
                "The manager of {name} is to be sent a text message at {}: one a minute at most.",
                time(until)
            )
        }
        Texted::NotYet => {
            format!("The manager of {name} could not be sent a text message yet. It is tried again.")
        }
    }
}

/// That a shop's manager gets no more text messages this month.
#[must_use]
pub fn budget_used_up(shop: &Shop, month: Date) -> Alert {
    let Shop { shop_id, name, sms_budget, .. } = shop;
    let month = month.strftime("%Y-%m").to_string();
    let headline = format!("{shop_id}: SMS budget used up");
    let summary = format!("The shop's budget of {sms_budget} text messages for {month} is used up.");
    let email = format!(
        "{headline}\n\n{summary}\nThe manager of {name} was not sent the one that was due, and gets none before next month; \
         call him.\nAlerts go on as before.\n\nWhat to do\n  See why there were so many: is an incident of the shop \
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
            sms: SmsText::about("Kassa", &[format!("{headline}. {summary}")]).into(),
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
    use serde_json::Value;

    use super::super::outgoing::Addressee;
    use super::super::testing::{failures, shop};
    use super::*;
    use kassa_bus::attention::UnbookedSales;
    use kassa_bus::text::Language;

    fn told(news: News, reason: Reason, shop: Option<&Shop>, stage: Option<&str>) -> Alert {
        let at: Timestamp = "2026-11-22T13:05:00Z".parse().unwrap();
        let failures = failures(12, "2026-11-22T13:05:00Z", &["kassa-3"]);
        let texted = Some(if shop.is_some() { Texted::Sent { at } } else { Texted::NotRegistered });
        let outgoing = Outgoing { news, to: Addressee::Ict, at, failures, claimed_until: None, texted };
        let id = shop.map_or_else(|| "AMIS1".parse().unwrap(), |shop| shop.shop_id.clone());
        let wrong_key = UnbookedSales {
            reason: Reason::WrongKey,
            till: "kassa-3".parse().ok(),
            key_of: "AMIS2".parse().ok(),
            count: 12,
            since: at,
            first: "1-20261122".parse().unwrap(),
        };
        let needs = NeedsAttention { shop_id: id, sales: vec![wrong_key], more: false };
        alert(&needs, reason, shop, &outgoing, stage)
    }

    #[test]
    fn ict_reads_what_it_means_and_which_commands_to_run() {
        let shop = shop("AMIS Nieuwegein", Language::Dutch);
        let alert = told(News::Opened, Reason::WrongKey, Some(&shop), Some("prod"));
        assert_eq!(alert.subject, "Kassa: AMIS1: sales are rejected (wrong-key)");
        assert_eq!((alert.reason.as_str(), alert.severity), ("wrong-key", Severity::Critical));
        for part in [
            "12 rejected since 2026-11-22 14:05:00 (Europe/Amsterdam), of kassa-3, the last at 2026-11-22 14:05:00 from 192.0.2.7.",
            "The manager of AMIS Nieuwegein was sent a text message at 2026-11-22 14:05:00.",
            "Begin with\n  kassa retry --shop AMIS1 --reason wrong-key --opened-with AMIS2 --stage prod\n",
            "\n  kassa drop --shop AMIS1 --reason wrong-key --why '...' --stage prod\n",
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
    fn of_what_is_booked_already_nothing_is_said_to_be_booked() {
        for (news, headline) in [
            (
                News::Opened,
                "Kassa: AMIS1: recorded ids come with another content, nothing is to be booked (conflict)",
            ),
            (News::Over, "Kassa: AMIS1: no more come, nothing is to be booked (conflict)"),
        ] {
            let alert = told(news, Reason::Conflict, None, None);
            assert_eq!(alert.subject, headline);
            for not in ["kassa retry", "kassa drop", "given up"] {
                assert!(!alert.texts.email.contains(not), "{}", alert.texts.email);
            }
        }
    }

    #[test]
    fn programs_read_json() {
        let alert = told(News::Over, Reason::WrongKey, None, None);
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let https = parse(&alert.texts.https);
        assert_eq!((&https["news"], &https["severity"]), (&json!("over"), &json!("info")));
        assert_eq!(https["failures"]["count"], 12);
        assert_eq!(https["failures"]["first"], "2026-11-22T13:05:00Z");
        let title = "AMIS1: over, all is booked or given up (wrong-key)";
        assert_eq!(parse(&alert.texts.gcm)["fcmV1Message"]["message"]["notification"]["title"], title);
        assert_eq!(parse(&alert.texts.apns)["aps"]["alert"]["title"], title);
    }

    #[test]
    fn everything_fits_whatever_the_shop_is_called() {
        let mut shop = shop(&"Ωmega \"€\" ".repeat(50), Language::English);
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
        let alert = budget_used_up(&shop("AMIS Nieuwegein", Language::Dutch), "2026-11-22".parse().unwrap());
        assert_eq!(alert.subject, "Kassa: AMIS1: SMS budget used up");
        assert!(alert.texts.email.contains("The shop's budget of 30 text messages for 2026-11 is used up."));
        assert!(alert.texts.email.contains("raise the shop's sms_budget"));
    }
}
