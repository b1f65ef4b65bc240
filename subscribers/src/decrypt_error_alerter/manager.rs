use jiff::Zoned;
use kassa_bus::message::Reason;
use kassa_bus::registry::Shop;

use super::gsm7::SmsText;
use super::incident::{News, Outgoing};

/// What the manager reads, in his language and the shop's time: what, since when, that nothing is lost, and
/// who else knows. Those who read neither Dutch nor English get English.
#[must_use]
pub fn sms(shop: &Shop, reason: Reason, outgoing: &Outgoing) -> SmsText {
    let zone = shop.zone();
    let local = |at: jiff::Timestamp| at.to_zoned(zone.clone());
    let (first, at) = (local(outgoing.failures.first), local(outgoing.at));
    let (count, news) = (outgoing.failures.count, outgoing.news);
    let text = match shop.language.as_str() {
        "nl" => dutch(news, reason, count, &since(&first, &at, &DUTCH_MONTHS)),
        _ => english(news, reason, count, &since(&first, &at, &ENGLISH_MONTHS)),
    };
    SmsText::about(&shop.name, &text)
}

fn english(news: News, reason: Reason, count: u64, since: &str) -> String {
    let sales = if count == 1 { "sale" } else { "sales" };
    let why = match reason {
        Reason::WrongKey => "a till has the wrong key",
        Reason::UnknownShop => "the shop has no key",
        Reason::Malformed => "a till sends garbled data",
        Reason::Tampered => "they were changed on the way",
        Reason::InvalidSale => "a till sends wrong figures",
        Reason::Conflict => "a till uses a number twice",
        Reason::Replayed => "they were booked before",
        Reason::Unsigned => "a till does not sign them",
        Reason::BadSignature => "a till's signature is wrong",
        Reason::UnknownTill => "a till is not enrolled",
        Reason::RevokedTill => "a till was locked out",
        Reason::Dropped => "ICT gave them up",
    };
    match news {
        News::Opened => format!(
            "{count} {sales} since {since} cannot be booked: {why}. Nothing is lost, keep selling. ICT has been told."
        ),
        News::StillOpen => format!(
            "{count} {sales} since {since} still cannot be booked: {why}. Nothing is lost. ICT has been told."
        ),
        News::Over => format!(
            "sales are booked again. {count} {sales} since {since} could not be: kept, nothing is lost. ICT has been told."
        ),
    }
}

fn dutch(news: News, reason: Reason, count: u64, since: &str) -> String {
    let sales = if count == 1 { "verkoop" } else { "verkopen" };
    let why = match reason {
        Reason::WrongKey => "een kassa heeft de verkeerde sleutel",
        Reason::UnknownShop => "de winkel heeft geen sleutel",
        Reason::Malformed => "een kassa stuurt onleesbare gegevens",
        Reason::Tampered => "onderweg is er iets aan veranderd",
        Reason::InvalidSale => "een kassa stuurt verkeerde getallen",
        Reason::Conflict => "een kassa telt een nummer dubbel",
        Reason::Replayed => "ze zijn al eerder geboekt",
        Reason::Unsigned => "een kassa ondertekent ze niet",
        Reason::BadSignature => "een kassa tekent verkeerd",
        Reason::UnknownTill => "een kassa is niet aangemeld",
        Reason::RevokedTill => "een kassa is geblokkeerd",
        Reason::Dropped => "ICT heeft ze opgegeven",
    };
    match news {
        News::Opened => {
            format!(
                "{count} {sales} sinds {since} niet te boeken: {why}. Verkoop door, er gaat niets verloren. ICT weet het."
            )
        }
        News::StillOpen => {
            format!(
                "{count} {sales} sinds {since} nog niet te boeken: {why}. Er gaat niets verloren. ICT weet het."
            )
        }
        News::Over => format!(
            "verkopen worden weer geboekt. {count} {sales} sinds {since} nog niet: bewaard, niets is verloren. ICT weet het."
        ),
    }
}

const ENGLISH_MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DUTCH_MONTHS: [&str; 12] =
    ["jan", "feb", "mrt", "apr", "mei", "jun", "jul", "aug", "sep", "okt", "nov", "dec"];

/// A time of today, or of another day.
fn since(first: &Zoned, at: &Zoned, months: &[&str; 12]) -> String {
    let time = first.strftime("%H:%M");
    if first.date() == at.date() {
        return time.to_string();
    }
    let month = usize::try_from(first.month() - 1).ok().and_then(|month| months.get(month));
    format!("{} {} {time}", first.day(), month.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::super::incident::{Addressee, Failures};
    use super::super::testing::shop;
    use super::*;
    use proptest::prelude::*;

    fn outgoing(news: News, count: u64, first: &str) -> Outgoing {
        let (first, at) = (first.parse().unwrap(), "2026-11-22T13:06:00Z".parse().unwrap());
        let failures = Failures { count, first, last: at, source: "192.0.2.7".into() };
        Outgoing { news, to: Addressee::Manager, at, failures, claimed_until: None }
    }

    #[track_caller]
    fn reads(language: &str, news: News, count: u64, first: &str, text: &str) {
        let shop = shop("AMIS Nieuwegein", language);
        assert_eq!(sms(&shop, Reason::WrongKey, &outgoing(news, count, first)).to_string(), text);
    }

    #[test]
    fn it_says_what_since_when_and_that_nothing_is_lost() {
        let today = "2026-11-22T13:05:00Z";
        reads(
            "en",
            News::Opened,
            12,
            today,
            "AMIS Nieuwegein: 12 sales since 14:05 cannot be booked: a till has the wrong key. \
             Nothing is lost, keep selling. ICT has been told.",
        );
        reads(
            "nl",
            News::Opened,
            1,
            today,
            "AMIS Nieuwegein: 1 verkoop sinds 14:05 niet te boeken: een kassa heeft de verkeerde sleutel. \
             Verkoop door, er gaat niets verloren. ICT weet het.",
        );
        reads(
            "de",
            News::Over,
            12,
            "2026-05-21T23:30:00Z",
            "AMIS Nieuwegein: sales are booked again. 12 sales since 22 May 01:30 could not be: \
             kept, nothing is lost. ICT has been told.",
        );
        reads(
            "nl",
            News::StillOpen,
            10_000,
            "2026-05-21T23:30:00Z",
            "AMIS Nieuwegein: 10000 verkopen sinds 22 mei 01:30 nog niet te boeken: een kassa heeft de verkeerde \
             sleutel. Er gaat niets verloren. ICT weet het.",
        );
    }

    #[test]
    fn there_is_room_for_a_name_whatever_is_said() {
        for (news, reason) in
            [News::Opened, News::StillOpen, News::Over].into_iter().flat_map(|n| Reason::ALL.map(|r| (n, r)))
        {
            for language in ["en", "nl"] {
                let text = sms(
                    &shop(&"x".repeat(100), language),
                    reason,
                    &outgoing(news, 99_999, "2026-01-30T13:05:00Z"),
                )
                .to_string();
                let name = text.chars().take_while(|char| *char == 'x').count();
                assert!(name >= 15, "{name}: {text}");
                assert!(text.ends_with(" ICT has been told.") || text.ends_with(" ICT weet het."));
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_one_message_whatever_the_shop_and_the_count(name in "\\PC{0,80}", count: u64, nl: bool, reason in prop::sample::select(&Reason::ALL)) {
            let shop = shop(&name, if nl { "nl" } else { "en" });
            let text = sms(&shop, reason, &outgoing(News::Opened, count, "2026-11-22T13:05:00Z")).to_string();
            prop_assert!(text.chars().count() <= 160);
            prop_assert!(text.contains(&count.to_string()));
        }
    }
}
