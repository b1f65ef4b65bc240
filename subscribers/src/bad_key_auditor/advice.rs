use std::fmt::Display;

use kassa_bus::ShopId;

use super::standing::Standing;
use super::tally::{Bounded, Seen};
use super::verdict::{Case, LooksLike};

/// What to do about a case.
#[must_use]
pub fn advice(case: &Case, looks_like: LooksLike) -> String {
    let Case { shop_id, standing, seen } = case;
    let who = who(seen);
    let several = seen.tills.names() > 1;
    let one_or = |one, more| if several { more } else { one };
    let (has, it, belongs) = (one_or("has", "have"), one_or("it", "them"), one_or("belongs", "belong"));
    let (this, they) = (one_or("this is a till", "these are tills"), one_or("it", "they"));
    let key = format!("GET /shop/{shop_id}/key");
    match (standing, looks_like) {
        (Standing::Own, _) => {
            format!("{shop_id}'s key was in use at {who} before it was registered; nothing to do if no more come")
        }
        (Standing::OwnRetired { .. }, _) => format!("restart {who}, so that {shop_id}'s present key is fetched"),
        (Standing::Other { owner } | Standing::OtherRetired { owner, .. }, LooksLike::Misconfiguration) => {
            format!("{who} of {shop_id} {has} {owner}'s key: load {shop_id}'s with {key}, or, if {this} of {owner}, give {it} {owner}'s shop_id{}", booked(shop_id, standing))
        }
        (Standing::Other { owner } | Standing::OtherRetired { owner, .. }, _) => {
            format!("see whether the tills of {shop_id} were set up anew, with {owner}'s key: theirs is at {key}; if they were not, somebody uses {owner}'s public key, and nothing of it is recorded")
        }
        (_, LooksLike::Attack) => {
            "somebody who has none of our keys posts sales, and nothing of it is recorded: block the sources at the API".to_owned()
        }
        (Standing::Unknown(_), LooksLike::Misconfiguration) => {
            format!("{who} {has} a key of another stage or company: load {shop_id}'s with {key}, or let {it} post where {they} {belongs}")
        }
        (Standing::Unknown(_), _) => {
            format!("see whether {who} {belongs} to {shop_id}: if so, load {shop_id}'s key with {key}; if not, block the source at the API")
        }
        (Standing::Untold, _) => {
            format!("see whether {who} {belongs} to {shop_id}: if so, load {shop_id}'s key with {key}, or, if {they} {has} that, have OAEP use MGF1 with SHA-256 (Java's default is SHA-1); if not, block the source at the API")
        }
    }
}

/// How to book what was sealed with another shop's key, as long as that opens anything.
fn booked(shop: &ShopId, standing: &Standing) -> String {
    let Standing::Other { owner } = standing else { return String::new() };
    format!(
        "; what it sold is booked with kassa retry --shop {shop} --reason wrong-key --opened-with {owner}"
    )
}

/// The tills and where they are: "till-1 at 10.0.0.7".
fn who(seen: &Seen) -> String {
    let tills = if seen.tills.named.is_empty() { "the till".to_owned() } else { some(&seen.tills) };
    format!("{tills} at {}", some(&seen.sources))
}

/// The first few names, in a sentence.
fn some<K: Display>(names: &Bounded<K, u64>) -> String {
    const SOME: usize = 3;
    let mut told: Vec<String> = names.named.keys().take(SOME).map(ToString::to_string).collect();
    if names.named.len() > SOME {
        told.push("others".to_owned());
    }
    match told.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => told.concat(),
    }
}

#[cfg(test)]
mod tests {
    use kassa_bus::Network;

    use super::*;
    use crate::bad_key_auditor::tally::Merge;

    fn case(standing: Standing, sources: u8) -> Case {
        let noon = "2026-11-22T12:00:00Z".parse().unwrap();
        let mut seen = Seen::once(noon, Some("till-1"), Network::V4([192, 0, 0]));
        for n in 1..sources {
            seen.merge(Seen::once(noon, None, Network::V4([192, 0, n])));
        }
        Case { shop_id: "AMIS1".parse().unwrap(), standing, seen }
    }

    #[test]
    fn it_says_which_till_it_is_and_what_to_load() {
        let owner: ShopId = "AMIS2".parse().unwrap();
        let told = advice(&case(Standing::Other { owner }, 1), LooksLike::Misconfiguration);
        assert!(told.starts_with("till-1 at 192.0.0.0/24 of AMIS1 has AMIS2's key"), "{told}");
        assert!(told.contains("GET /shop/AMIS1/key"), "{told}");
        assert!(told.ends_with("kassa retry --shop AMIS1 --reason wrong-key --opened-with AMIS2"), "{told}");
    }

    #[test]
    fn of_several_tills_it_speaks_of_several() {
        let mut case = case(Standing::Other { owner: "AMIS2".parse().unwrap() }, 1);
        case.seen.merge(Seen::once(case.seen.first, Some("till-2"), Network::V4([192, 0, 0])));
        let told = advice(&case, LooksLike::Misconfiguration);
        assert!(told.starts_with("till-1 and till-2 at 192.0.0.0/24 of AMIS1 have AMIS2's key"), "{told}");
        assert!(told.contains("if these are tills of AMIS2, give them AMIS2's shop_id"), "{told}");
        case.standing = Standing::Unknown(None);
        let told = advice(&case, LooksLike::Misconfiguration);
        assert!(told.starts_with("till-1 and till-2 at 192.0.0.0/24 have a key"), "{told}");
        assert!(told.ends_with("let them post where they belong"), "{told}");
    }

    #[test]
    fn of_many_sources_it_names_a_few() {
        let told = advice(&case(Standing::Unknown(None), 16), LooksLike::Unclear);
        assert!(told.contains("till-1 at 192.0.0.0/24, 192.0.1.0/24, 192.0.2.0/24 and others"), "{told}");
    }

    #[test]
    fn of_a_key_that_cannot_be_told_it_names_what_java_does_by_default() {
        let told = advice(&case(Standing::Untold, 1), LooksLike::Unclear);
        assert!(told.contains("MGF1 with SHA-256 (Java's default is SHA-1)"), "{told}");
    }

    #[test]
    fn a_retired_key_is_mended_by_a_restart() {
        let (since, until) =
            ("2026-03-02T08:00:00Z".parse().unwrap(), "2026-11-20T08:00:00Z".parse().unwrap());
        let told = advice(&case(Standing::OwnRetired { since, until }, 1), LooksLike::Misconfiguration);
        assert!(told.starts_with("restart till-1 at 192.0.0.0/24"), "{told}");
    }
}
