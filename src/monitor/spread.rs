//! How values are spread, in little room: for percentiles of what was measured in many parts.

use serde::{Deserialize, Serialize};

/// How many values there were of about each size, within 2.5 percent. Sizes are logarithmic, and those without values
/// take no room: a minute of one metric has some dozens. (A histogram of the `hdrhistogram` crate has all sizes there
/// can be.) Two of them can be put together, and then are as exact as each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spread(Vec<(i16, u32)>);

/// From one size to the next.
const STEP: f64 = 1.05;

/// The size of one; that of zero is none, and what is negative mirrors what is positive.
const ONE: i16 = 8_000;

impl Spread {
    pub fn of(values: &[f64]) -> Self {
        let mut sizes: Vec<i16> = values.iter().map(|value| size(*value)).collect();
        sizes.sort_unstable();
        let mut spread: Vec<(i16, u32)> = Vec::new();
        for size in sizes {
            match spread.last_mut() {
                Some((last, n)) if *last == size => *n += 1,
                _ => spread.push((size, 1)),
            }
        }
        Self(spread)
    }

    pub fn merge(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        for (size, n) in &other.0 {
            match self.0.binary_search_by_key(size, |(size, _)| *size) {
                Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(*n),
                Err(at) => self.0.insert(at, (*size, *n)),
            }
        }
    }

    /// The value that so many percent are not above, or `None` of nothing.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let all: u64 = self.0.iter().map(|(_, n)| u64::from(*n)).sum();
        #[expect(clippy::cast_precision_loss, reason = "so many values there are never")]
        let wanted = (percent / 100.0 * all as f64).ceil().max(1.0);
        let mut upto = 0.0;
        let found = self.0.iter().find(|(_, n)| {
            upto += f64::from(*n);
            upto >= wanted
        });
        found.map(|(size, _)| value(*size))
    }

    /// In bytes.
    pub fn room(&self) -> usize {
        self.0.capacity() * size_of::<(i16, u32)>()
    }
}

fn size(value: f64) -> i16 {
    if value == 0.0 || !value.is_finite() {
        return 0;
    }
    // Beyond it, all are one size.
    let most = f64::from(ONE - 1);
    #[expect(clippy::cast_possible_truncation, reason = "it is within the bounds")]
    let steps = (value.abs().ln() / STEP.ln()).ceil().clamp(-most, most) as i16;
    if value < 0.0 { -(steps + ONE) } else { steps + ONE }
}

/// The middle of what is of that size.
fn value(size: i16) -> f64 {
    match size {
        0 => 0.0,
        1.. => STEP.powf(f64::from(size - ONE) - 0.5),
        _ => -STEP.powf(f64::from(-size - ONE) - 0.5),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_within_three_percent_however_the_values_came(
            mut values in prop::collection::vec(prop_oneof![Just(0.0), -1e6..1e9, 0.001..10.0], 1..200),
            cut in 0usize..200,
            percent in 0.0..=100.0,
        ) {
            let (one, other) = values.split_at(cut.min(values.len()));
            let mut spread = Spread::of(one);
            spread.merge(&Spread::of(other));
            let told = spread.percentile(percent).unwrap();
            values.sort_by(f64::total_cmp);
            let all = f64::from(u32::try_from(values.len()).unwrap());
            let wanted = (percent / 100.0 * all).ceil().max(1.0);
            let rank = (1..).zip(&values).find(|(rank, _)| f64::from(*rank) >= wanted);
            let right = *rank.unwrap().1;
            prop_assert!((told - right).abs() <= right.abs() * 0.03, "{told}, not {right}");
        }
    }

    #[test]
    fn of_nothing_there_is_no_percentile() {
        assert_eq!(Spread::default().percentile(50.0), None);
    }
}
