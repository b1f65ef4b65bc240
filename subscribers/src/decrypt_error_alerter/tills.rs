use std::collections::BTreeSet;

use kassa_bus::TillId;
use serde::{Deserialize, Serialize};

/// The tills that rejected sales say they are of: the first few by name, the same ones in whatever order they are added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tills {
    named: BTreeSet<TillId>,
    /// Whether there are more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

/// Tills named, at most.
const NAMED: usize = 3;

impl Tills {
    pub fn add(&mut self, other: Self) {
        self.named.extend(other.named);
        self.more |= other.more || self.named.len() > NAMED;
        while self.named.len() > NAMED {
            self.named.pop_last();
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// `kassa-1, kassa-2, ...`
    #[must_use]
    pub fn all(&self) -> String {
        self.listed(|_| true)
    }

    /// The same for a text message, as far as they can be named in one. Whoever has a shop's public key can make up a till's
    /// name, so none is that a phone would make a link or a number to call of.
    #[must_use]
    pub fn in_a_text(&self) -> String {
        self.listed(sayable)
    }

    fn listed(&self, sayable: impl Fn(&TillId) -> bool) -> String {
        let (said, others): (Vec<&TillId>, Vec<&TillId>) = self.named.iter().partition(|till| sayable(till));
        let mut said: Vec<&str> = said.into_iter().map(TillId::as_str).collect();
        if !said.is_empty() && (self.more || !others.is_empty()) {
            said.push("...");
        }
        said.join(", ")
    }
}

impl FromIterator<TillId> for Tills {
    fn from_iter<I: IntoIterator<Item = TillId>>(tills: I) -> Self {
        let mut all = Self::default();
        tills.into_iter().for_each(|till| all.add(Self { named: BTreeSet::from([till]), more: false }));
        all
    }
}

fn sayable(till: &TillId) -> bool {
    let digits = till.as_str().bytes().filter(u8::is_ascii_digit).count();
    till.as_str().len() <= 20 && digits <= 4 && !till.as_str().contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tills(names: &[&str]) -> Tills {
        names.iter().map(|name| name.parse::<TillId>().unwrap()).collect()
    }

    #[test]
    fn three_are_named_and_that_there_are_more() {
        assert_eq!(tills(&[]).all(), "");
        assert_eq!(tills(&["b", "a", "b"]).all(), "a, b");
        assert_eq!(tills(&["d", "c", "a", "b"]).all(), "a, b, c, ...");
    }

    #[test]
    fn a_text_names_no_till_that_somebody_could_have_made_up_to_be_tapped() {
        for name in ["evil.example", "0900-123456", &"x".repeat(21), "call-06-12-34"] {
            assert_eq!(tills(&[name]).in_a_text(), "", "{name}");
            assert_eq!(tills(&[name, "kassa-1"]).in_a_text(), "kassa-1, ...", "{name}");
            assert_eq!(tills(&[name]).all(), name);
        }
    }

    proptest! {
        #[test]
        fn they_are_the_same_in_whatever_order_they_come(names in prop::collection::vec(0u8..8, 0..12).prop_shuffle(), at in 0usize..12) {
            let of = |names: &[u8]| names.iter().map(|n| format!("kassa-{n}").parse::<TillId>().unwrap()).collect::<Tills>();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            let (left, right) = names.split_at(at.min(names.len()));
            let mut sum = of(left);
            sum.add(of(right));
            prop_assert_eq!(sum, of(&sorted));
        }
    }
}
