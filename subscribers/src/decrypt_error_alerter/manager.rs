//! What a shop's manager reads.

use jiff::{Timestamp, Zoned};
use kassa_bus::message::Reason;
use kassa_bus::registry::Shop;
use kassa_bus::text::Language;

use super::gsm7::SmsText;
use super::incident::Failures;
use super::outgoing::News;

/// What the manager reads, in his language and the shop's time: what, since when, what to do, and who else hears of it.
/// Whatever is wrong at once is one text.
#[must_use]
pub fn sms(shop: &Shop, news: News, about: &[(Reason, &Failures)], at: Timestamp) -> SmsText {
    let zone = shop.zone();
    let count = about.iter().map(|(_, failures)| failures.count).sum();
    let first = about.iter().map(|(_, failures)| failures.first).min().unwrap_or(at);
    let (first, at) = (first.to_zoned(zone.clone()), at.to_zoned(zone));
    let words = match shop.language {
        Language::English => &ENGLISH,
        Language::Dutch => &DUTCH,
    };
    let since = since(&first, &at, words.months);
    let advice = about.iter().map(|(reason, _)| Advice::on(*reason)).max().unwrap_or(Advice::SellOn);
    let advice = (words.advice)(advice, news);
    let says = |why: &str| (words.says)(news, count, &since, why, advice);
    let why = |(reason, failures): &(Reason, &Failures), named: bool| {
        let tills = Some(failures.tills.in_a_text()).filter(|tills| named && !tills.is_empty());
        let tills = tills.map(|tills| format!(" ({tills})")).unwrap_or_default();
        format!("{}{tills}", (words.why)(*reason))
    };
    let whys = |named| about.iter().map(|of| why(of, named)).collect::<Vec<_>>().join("; ");
    // The first that has room.
    let mut texts = vec![says(&whys(true)), says(&whys(false))];
    if about.len() > 1 {
        texts.push(says(&(words.reasons)(about.len())));
    }
    SmsText::about(&shop.name, &texts)
}

/// What is right for the manager to do until ICT has done its part, the most careful last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Advice {
    /// What is sold on is kept, and is booked once ICT has done its part.
    SellOn,
    /// It is kept, but a till that goes on so makes more that cannot be booked as it is.
    Kept,
    /// Whose till that is may not sell.
    DoNotSell,
}

impl Advice {
    fn on(reason: Reason) -> Self {
        match reason {
            Reason::WrongKey
            | Reason::UnknownShop
            | Reason::Unsigned
            | Reason::BadSignature
            | Reason::UnknownTill => Self::SellOn,
            Reason::Malformed
            | Reason::Tampered
            | Reason::InvalidSale
            | Reason::Conflict
            | Reason::Replayed
            | Reason::Dropped => Self::Kept,
            Reason::RevokedTill => Self::DoNotSell,
        }
    }
}

/// A language.
struct Words {
    why: fn(Reason) -> &'static str,
    reasons: fn(usize) -> String,
    advice: fn(Advice, News) -> &'static str,
    says: fn(News, u64, &str, &str, &str) -> String,
    months: &'static [&'static str; 12],
}

const ENGLISH: Words = Words {
    why: |reason| match reason {
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
    },
    reasons: |reasons| format!("for {reasons} reasons"),
    advice: |advice, news| match (advice, news) {
        (Advice::SellOn, News::Opened) => "Nothing is lost, keep selling.",
        (Advice::SellOn, _) => "Nothing is lost.",
        (Advice::Kept, _) => "They are kept.",
        (Advice::DoNotSell, _) => "Do not sell with that till.",
    },
    says: |news, count, since, why, advice| {
        let sales = if count == 1 { "sale" } else { "sales" };
        match news {
            News::Opened => {
                format!("{count} {sales} since {since} cannot be booked: {why}. {advice} ICT is told too.")
            }
            News::StillOpen => {
                format!(
                    "{count} {sales} since {since} still cannot be booked: {why}. {advice} ICT is told too."
                )
            }
            News::Over => format!(
                "nothing needs attention any more. {count} {sales} since {since}: booked by now, or given up by ICT."
            ),
        }
    },
    months: &["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
};

const DUTCH: Words = Words {
    why: |reason| match reason {
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
    },
    reasons: |reasons| format!("om {reasons} redenen"),
    advice: |advice, news| match (advice, news) {
        (Advice::SellOn, News::Opened) => "Verkoop door, er gaat niets verloren.",
        (Advice::SellOn, _) => "Er gaat niets verloren.",
        (Advice::Kept, _) => "Ze zijn bewaard.",
        (Advice::DoNotSell, _) => "Verkoop niet met die kassa.",
    },
    says: |news, count, since, why, advice| {
        let sales = if count == 1 { "verkoop" } else { "verkopen" };
        match news {
            News::Opened => {
                format!("{count} {sales} sinds {since} niet te boeken: {why}. {advice} ICT hoort het.")
            }
            News::StillOpen => {
                format!("{count} {sales} sinds {since} nog niet te boeken: {why}. {advice} ICT hoort het.")
            }
            News::Over => format!(
                "niets vraagt nog aandacht. {count} {sales} sinds {since}: inmiddels geboekt, of door ICT opgegeven."
            ),
        }
    },
    months: &["jan", "feb", "mrt", "apr", "mei", "jun", "jul", "aug", "sep", "okt", "nov", "dec"],
};

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
    use super::super::testing::{failures, shop};
    use super::*;
    use proptest::prelude::*;

    const NOON: &str = "2026-11-22T13:06:00Z";
    const TODAY: &str = "2026-11-22T13:05:00Z";
    const MAY: &str = "2026-05-21T23:30:00Z";

    fn text(language: Language, news: News, about: &[(Reason, Failures)]) -> String {
        let about: Vec<_> = about.iter().map(|(reason, failures)| (*reason, failures)).collect();
        sms(&shop("AMIS Nieuwegein", language), news, &about, NOON.parse().unwrap()).to_string()
    }

    #[track_caller]
    fn reads(language: Language, news: News, about: &[(Reason, Failures)], wanted: &str) {
        assert_eq!(text(language, news, about), wanted);
    }

    #[test]
    fn it_says_what_since_when_and_what_to_do() {
        let wrong_key = |count, first| [(Reason::WrongKey, failures(count, first, &[]))];
        reads(
            Language::English,
            News::Opened,
            &wrong_key(12, TODAY),
            "AMIS Nieuwegein: 12 sales since 14:05 cannot be booked: a till has the wrong key. \
             Nothing is lost, keep selling. ICT is told too.",
        );
        reads(
            Language::Dutch,
            News::Opened,
            &wrong_key(1, TODAY),
            "AMIS Nieuwegein: 1 verkoop sinds 14:05 niet te boeken: een kassa heeft de verkeerde sleutel. \
             Verkoop door, er gaat niets verloren. ICT hoort het.",
        );
        reads(
            Language::English,
            News::Over,
            &wrong_key(12, MAY),
            "AMIS Nieuwegein: nothing needs attention any more. 12 sales since 22 May 01:30: \
             booked by now, or given up by ICT.",
        );
        reads(
            Language::Dutch,
            News::Over,
            &wrong_key(10_000, MAY),
            "AMIS Nieuwegein: niets vraagt nog aandacht. 10000 verkopen sinds 22 mei 01:30: \
             inmiddels geboekt, of door ICT opgegeven.",
        );
    }

    #[test]
    fn it_names_the_till_where_there_is_room() {
        reads(
            Language::English,
            News::Opened,
            &[(Reason::UnknownTill, failures(2, TODAY, &["kassa-3", "kassa-4"]))],
            "AMIS Nieuwegein: 2 sales since 14:05 cannot be booked: a till is not enrolled (kassa-3, kassa-4). \
             Nothing is lost, keep selling. ICT is told too.",
        );
        let long = ["a-rather-long-till-1", "a-rather-long-till-2", "a-rather-long-till-3"];
        let crowded =
            text(Language::English, News::StillOpen, &[(Reason::BadSignature, failures(99_999, MAY, &long))]);
        assert!(crowded.starts_with("AMIS Nieuwegein: ") && crowded.contains("wrong. Nothing"), "{crowded}");
    }

    #[test]
    fn several_reasons_are_one_text() {
        let about = [
            (Reason::WrongKey, failures(3, TODAY, &[])),
            (Reason::UnknownTill, failures(2, "2026-11-22T12:59:00Z", &["kas-3"])),
        ];
        reads(
            Language::English,
            News::Opened,
            &about,
            "AMIS Nieuwegein: 5 sales since 13:59 cannot be booked: a till has the wrong key; a till is not enrolled \
             (kas-3). Nothing is lost, keep selling. ICT is told too.",
        );
        let many = Reason::ALL.map(|reason| (reason, failures(1, TODAY, &[])));
        let told = text(Language::Dutch, News::Opened, &many);
        assert!(told.contains("12 verkopen sinds 14:05 niet te boeken: om 12 redenen."), "{told}");
    }

    #[test]
    fn nobody_is_told_to_sell_on_where_that_is_wrong() {
        for (language, sell_on, not) in [
            (Language::English, "keep selling", "Do not sell with that till"),
            (Language::Dutch, "Verkoop door", "Verkoop niet met die kassa"),
        ] {
            let revoked = (Reason::RevokedTill, failures(2, TODAY, &["kassa-3"]));
            let beside = (Reason::WrongKey, failures(2, TODAY, &[]));
            for about in [vec![revoked.clone()], vec![beside.clone(), revoked.clone()]] {
                let told = text(language, News::Opened, &about);
                assert!(told.contains(not) && !told.contains(sell_on), "{told}");
            }
            let twice = text(language, News::Opened, &[(Reason::Conflict, failures(2, TODAY, &[]))]);
            assert!(!twice.contains(sell_on), "{twice}");
            assert!(text(language, News::Opened, &[beside]).contains(sell_on));
        }
    }

    #[test]
    fn there_is_room_for_a_name_whatever_is_said() {
        let news = [News::Opened, News::StillOpen, News::Over];
        for (news, reason) in news.into_iter().flat_map(|n| Reason::ALL.map(|r| (n, r))) {
            for language in [Language::English, Language::Dutch] {
                let failures = failures(99_999, "2026-01-30T13:05:00Z", &["kassa-1"]);
                let at = NOON.parse().unwrap();
                let text =
                    sms(&shop(&"x".repeat(100), language), news, &[(reason, &failures)], at).to_string();
                let name = text.chars().take_while(|char| *char == 'x').count();
                assert!(name >= 15, "{name}: {text}");
                assert!(text.ends_with('.'), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_one_message_whatever_the_shop_the_count_and_the_tills(
            name in "\\PC{0,80}", counts in prop::collection::vec(0u64..1_000_000_000, 1..5), dutch: bool, from in 0usize..8,
            tills in prop::collection::vec("[a-z0-9][a-z0-9.-]{0,63}", 0..5),
        ) {
            let shop = shop(&name, if dutch { Language::Dutch } else { Language::English });
            let tills: Vec<&str> = tills.iter().map(String::as_str).collect();
            let about: Vec<_> = counts.iter().zip(&Reason::ALL[from..]).map(|(count, reason)| (*reason, failures(*count, TODAY, &tills))).collect();
            let about: Vec<_> = about.iter().map(|(reason, failures)| (*reason, failures)).collect();
            let text = sms(&shop, News::Opened, &about, NOON.parse().unwrap()).to_string();
            prop_assert!(text.chars().count() <= 160);
            prop_assert!(text.contains(&about.iter().map(|(_, f)| f.count).sum::<u64>().to_string()));
        }
    }
}
