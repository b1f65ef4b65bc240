use std::collections::BTreeSet;

use kassa_bus::{Network, ShopId, Thumbprint};
use serde::{Deserialize, Serialize};

use super::standing::Standing;
use super::tally::Seen;

/// What sales with a wrong key look like.
///
/// | key | came | looks like |
/// |---|---|---|
/// | another shop's, present or retired | from at most [`FEW`] sources | misconfiguration |
/// | | from more | unclear: many tills were set up wrongly, or somebody uses a public key |
/// | the shop's own, retired | from anywhere | misconfiguration: the tills were not restarted |
/// | the shop's own by now | from anywhere | misconfiguration: the key was in use before it was registered |
/// | unknown, *all of these together* | [`SEVERAL`] keys or more | attack |
/// | | from [`MANY`] sources or more | attack |
/// | | to [`SHOPS`] shops or more | attack |
/// | | one key from one source to one shop | misconfiguration: a till of another company, or another stage |
/// | | otherwise | unclear |
/// | untold (classic), *all of these together* | from [`MANY`] sources, or to [`SHOPS`] shops, or more | attack |
/// | | otherwise | unclear: that it is always the same key cannot be seen |
///
/// Unknown keys are judged together because whoever invents keys invents a new one each time, and each by
/// itself looks harmless. How many sales there are says nothing: one till with a wrong key sends thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LooksLike {
    Misconfiguration,
    Attack,
    Unclear,
}

impl LooksLike {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Misconfiguration => "misconfiguration",
            Self::Attack => "attack",
            Self::Unclear => "unclear",
        }
    }
}

/// Sources that one shop's tills may come from.
pub const FEW: usize = 2;
/// Different unknown keys that are no coincidence.
pub const SEVERAL: usize = 3;
/// Sources that are no single shop's.
pub const MANY: usize = 5;
/// Shops that no single till is set up for.
pub const SHOPS: usize = 3;

/// What was seen of one key at one shop, over the time that is judged.
#[derive(Debug)]
pub struct Case {
    pub shop_id: ShopId,
    pub standing: Standing,
    pub seen: Seen,
}

/// How widely the sales of some cases are spread. A tally names more than any of the limits, so what it does not
/// name makes no difference.
#[derive(Default)]
struct Spread<'a> {
    keys: BTreeSet<Option<&'a str>>,
    sources: BTreeSet<Network>,
    shops: BTreeSet<&'a str>,
}

impl<'a> Spread<'a> {
    fn of(cases: impl Iterator<Item = &'a Case>) -> Self {
        let mut spread = Self::default();
        for case in cases {
            if let Standing::Unknown(kid) = &case.standing {
                spread.keys.insert(kid.as_ref().map(Thumbprint::as_str));
            }
            spread.sources.extend(case.seen.sources.named.keys());
            spread.shops.insert(case.shop_id.as_str());
        }
        spread
    }

    fn looks_like(&self) -> LooksLike {
        let Self { keys, sources, shops } = self;
        if keys.len() >= SEVERAL || sources.len() >= MANY || shops.len() >= SHOPS {
            LooksLike::Attack
        } else if (keys.len(), sources.len(), shops.len()) == (1, 1, 1) {
            LooksLike::Misconfiguration
        } else {
            LooksLike::Unclear
        }
    }
}

/// Judges each case, in the light of all of them.
#[must_use]
pub fn judge(cases: &[Case]) -> Vec<LooksLike> {
    let together =
        |which: fn(&Standing) -> bool| Spread::of(cases.iter().filter(|c| which(&c.standing))).looks_like();
    let unknown = together(|standing| matches!(standing, Standing::Unknown(_)));
    let untold = together(|standing| *standing == Standing::Untold);
    let one = |case: &Case| match &case.standing {
        Standing::Own | Standing::OwnRetired { .. } => LooksLike::Misconfiguration,
        Standing::Other { .. } | Standing::OtherRetired { .. } if case.seen.sources.named.len() <= FEW => {
            LooksLike::Misconfiguration
        }
        Standing::Other { .. } | Standing::OtherRetired { .. } => LooksLike::Unclear,
        Standing::Unknown(_) => unknown,
        Standing::Untold => untold,
    };
    cases.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::LooksLike::{Attack, Misconfiguration, Unclear};
    use super::*;
    use crate::bad_key_auditor::tally::{MOST, Merge};

    fn shop(n: usize) -> ShopId {
        format!("AMIS{n}").parse().unwrap()
    }

    fn thumbprint(n: usize) -> Thumbprint {
        format!("{n:0>43}").parse().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Sales to a shop from so many sources.
    fn case(to: usize, standing: Standing, sources: usize) -> Case {
        let noon = at("2026-11-22T12:00:00Z");
        let mut seen = Seen::once(noon, Some("till-1"), Network::V4([192, 0, 0]));
        for n in 1..sources {
            seen.merge(Seen::once(noon, Some("till-1"), Network::V4([192, 0, n.try_into().unwrap()])));
        }
        Case { shop_id: shop(to), standing, seen }
    }

    fn unknown(n: usize) -> Standing {
        Standing::Unknown(Some(thumbprint(n)))
    }

    fn other() -> Standing {
        Standing::Other { owner: shop(2) }
    }

    #[track_caller]
    fn look_like(cases: &[Case], expected: LooksLike) {
        let looks = judge(cases);
        assert!(looks.iter().all(|&l| l == expected), "{looks:?}");
    }

    #[test]
    fn the_limits_are_within_what_a_tally_names() {
        assert!([FEW, SEVERAL, MANY, SHOPS].into_iter().all(|limit| limit < MOST));
    }

    #[test]
    fn another_shops_key_is_a_misconfiguration_unless_it_comes_from_all_over() {
        look_like(&[case(1, other(), 1)], Misconfiguration);
        look_like(&[case(1, other(), FEW)], Misconfiguration);
        look_like(&[case(1, other(), FEW + 1)], Unclear);
        let (since, until) = (at("2026-03-02T08:00:00Z"), at("2026-11-20T08:00:00Z"));
        look_like(&[case(1, Standing::OtherRetired { owner: shop(2), since, until }, 1)], Misconfiguration);
    }

    #[test]
    fn a_shops_own_keys_are_a_misconfiguration_wherever_they_come_from() {
        let (since, until) = (at("2026-03-02T08:00:00Z"), at("2026-11-20T08:00:00Z"));
        look_like(&[case(1, Standing::OwnRetired { since, until }, MOST)], Misconfiguration);
        look_like(&[case(1, Standing::Own, MOST)], Misconfiguration);
    }

    #[test]
    fn one_unknown_key_from_one_source_is_a_misconfiguration() {
        look_like(&[case(1, unknown(1), 1)], Misconfiguration);
        look_like(&[case(1, unknown(1), 2)], Unclear);
        look_like(&[case(1, unknown(1), 1), case(2, unknown(1), 1)], Unclear);
        look_like(&[case(1, unknown(1), 1), case(1, unknown(2), 1)], Unclear);
    }

    #[test]
    fn several_unknown_keys_or_many_sources_or_shops_are_an_attack_on_all_of_them() {
        look_like(&(0..SEVERAL).map(|n| case(1, unknown(n), 1)).collect::<Vec<_>>(), Attack);
        look_like(&[case(1, unknown(1), MANY)], Attack);
        look_like(&(0..SHOPS).map(|n| case(n, unknown(1), 1)).collect::<Vec<_>>(), Attack);
    }

    #[test]
    fn a_key_that_cannot_be_told_is_never_called_a_misconfiguration() {
        look_like(&[case(1, Standing::Untold, 1)], Unclear);
        look_like(&[case(1, Standing::Untold, MANY)], Attack);
        look_like(&(0..SHOPS).map(|n| case(n, Standing::Untold, 1)).collect::<Vec<_>>(), Attack);
    }

    #[test]
    fn an_attack_does_not_colour_a_till_with_another_shops_key() {
        let mut cases: Vec<_> = (0..SEVERAL).map(|n| case(1, unknown(n), 1)).collect();
        cases.push(case(1, other(), 1));
        assert_eq!(judge(&cases), [Attack, Attack, Attack, Misconfiguration]);
    }

    #[test]
    fn how_many_sales_there_are_makes_no_difference() {
        let mut one = case(1, other(), 1);
        one.seen.count = 1_000_000;
        look_like(&[one], Misconfiguration);
    }
}
