//! Amounts: exact decimals that a till may send and a row of a `DynamoDB` table can hold, and what they add up to.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Neg};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An exact decimal: a quantity or a sum of money in the shop's currency.
///
/// It has at most 21 whole digits and 17 decimals: the 38 digits of a `DynamoDB` number, and 10⁹ of the largest lines.
/// What came from outside ([`FromStr`]) is below 10¹² and has at most 18 digits, 17 of them decimals: enough for what a
/// till that adds up in floats sends (0.30000000000000004), and so few that a line is below 120 bytes as published.
/// Minus zero is zero.
///
/// Many are added up as a [`Total`], which always can be.
///
/// ```
/// # fn main() -> Result<(), kassa_bus::amount::InvalidAmount> {
/// use kassa_bus::amount::{Amount, Total};
/// let sum: Total = ["0.1".parse::<Amount>()?, "0.2".parse()?].into_iter().sum();
/// assert_eq!(sum.amount(), Some("0.3".parse()?));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

/// Decimals there are: an amount is a whole number of 10⁻¹⁷.
const DECIMALS: u32 = 17;
const ONE: i128 = 10_i128.pow(DECIMALS);

/// Digits of a `DynamoDB` number
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>).
const DIGITS: u32 = 38;
const MAX: i128 = 10_i128.pow(DIGITS) - 1;

/// What comes from outside is below this.
const INPUT_LIMIT: i128 = 1_000_000_000_000 * ONE;
const INPUT_DIGITS: u32 = 18;

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAmount {
    #[error("is not a decimal number")]
    NotANumber,
    #[error("is out of range: below 1000000000000, with at most 18 digits, 17 of them decimals, is allowed")]
    OutOfRange,
}

impl Amount {
    pub const ZERO: Self = Self(0);

    /// The largest there is; the smallest is [`Neg`] of it.
    pub const MAX: Self = Self(MAX);

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    #[must_use]
    pub fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// The nearest float: to be looked at, not to be reckoned with.
    #[must_use]
    pub fn nearest(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// Both together, unless that is more than an amount can be.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        (Total::from(self) + Total::from(other)).amount()
    }

    /// Reads a stored sum, which may be larger than what a till may send.
    ///
    /// # Errors
    /// If the text is not a decimal of at most 21 whole digits and 17 decimals.
    pub fn from_stored(text: &str) -> Result<Self, InvalidAmount> {
        let units = units(text)?.ok_or(InvalidAmount::OutOfRange)?;
        Self::of(units).ok_or(InvalidAmount::OutOfRange)
    }

    fn of(units: i128) -> Option<Self> {
        (units.unsigned_abs() <= MAX.unsigned_abs()).then_some(Self(units))
    }
}

/// The text of a JSON number or string, as a till sends it: digits, one point, an exponent.
impl FromStr for Amount {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let amount = Self::from_stored(text)?;
        let size = amount.0.abs();
        // Zeros at the end are none of its digits.
        let zeros = (0..DECIMALS).take_while(|n| size % 10_i128.pow(n + 1) == 0).count();
        let digits = size.checked_ilog10().map_or(0, |log| log as usize + 1).saturating_sub(zeros);
        if size < INPUT_LIMIT && digits <= INPUT_DIGITS as usize {
            Ok(amount)
        } else {
            Err(InvalidAmount::OutOfRange)
        }
    }
}

/// How many 10⁻¹⁷ a number is; nothing if it is no whole number of them, or too many by far.
fn units(text: &str) -> Result<Option<i128>, InvalidAmount> {
    let (sign, whole, fraction, exponent) = number(text).ok_or(InvalidAmount::NotANumber)?;
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Ok(Some(0));
    }
    // How many zeros follow the last significant digit, in units.
    let zeros = || {
        let cut = digits.len() - digits.trim_end_matches('0').len();
        let exponent = if exponent.is_empty() { 0 } else { exponent.parse::<i64>().ok()? };
        let after = i64::try_from(cut).ok()? - i64::try_from(fraction.len()).ok()?;
        u32::try_from(exponent.checked_add(after)?.checked_add(DECIMALS.into())?).ok()
    };
    let units = || significant.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(zeros()?)?);
    Ok(units().map(|units| if sign { -units } else { units }))
}

/// The parts of a JSON number (RFC 8259 section 6), leading zeros allowed: whether it is negative, whole digits,
/// decimals, exponent.
fn number(text: &str) -> Option<(bool, &str, &str, &str)> {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let is_exponent = |e: &str| digits(e.strip_prefix(['+', '-']).unwrap_or(e));
    let well = digits(whole) && fraction.is_none_or(digits) && exponent.is_none_or(is_exponent);
    well.then_some((sign, whole, fraction.unwrap_or_default(), exponent.unwrap_or_default()))
}

/// Neither an exponent nor zeros at the end.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.abs() / ONE, self.0.abs() % ONE);
        let rest = format!("{rest:017}");
        let decimals = rest.trim_end_matches('0');
        let point = if decimals.is_empty() { "" } else { "." };
        f.pad_integral(self.0 >= 0, "", &format!("{whole}{point}{decimals}"))
    }
}

impl From<i64> for Amount {
    fn from(whole: i64) -> Self {
        // 19 digits, of 21.
        Self(i128::from(whole) * ONE)
    }
}

impl Neg for Amount {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

/// A JSON string: a JSON number would be read as a float by most clients.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Takes what [`Serialize`] wrote, sums included.
impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_stored(&text).map_err(serde::de::Error::custom)
    }
}

/// What amounts add up to: exactly, in whatever order, also where it is on the way more than an [`Amount`] can be.
///
/// It is the whole number `units + carry · 2¹²⁸` of 10⁻¹⁷, so that no addition rounds, wraps or panics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    units: i128,
    /// It takes more additions to use it up than a machine can do in a lifetime.
    carry: i64,
}

impl Total {
    /// The amount it is, unless it is more than one can be.
    #[must_use]
    pub fn amount(self) -> Option<Amount> {
        Some(self.units).filter(|_| self.carry == 0).and_then(Amount::of)
    }
}

impl From<Amount> for Total {
    fn from(amount: Amount) -> Self {
        Self { units: amount.0, carry: 0 }
    }
}

impl Add for Total {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let (units, wrapped) = self.units.overflowing_add(other.units);
        let carry = match (wrapped, other.units < 0) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => -1,
        };
        Self { units, carry: self.carry.wrapping_add(other.carry).wrapping_add(carry) }
    }
}

impl Neg for Total {
    type Output = Self;
    fn neg(self) -> Self {
        // −2¹²⁷ is the one whose opposite is no i128: it is 2¹²⁷ − 2¹²⁸.
        let (units, wrapped) = self.units.overflowing_neg();
        Self { units, carry: self.carry.wrapping_neg().wrapping_add(i64::from(wrapped)) }
    }
}

impl Sum<Amount> for Total {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Self {
        amounts.map(Self::from).fold(Self::default(), Add::add)
    }
}

/// As its amount, or in words.
impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.amount() {
            Some(amount) => amount.fmt(f),
            None => f.pad("more than a row holds"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    fn amount(text: &str) -> Result<String, InvalidAmount> {
        text.parse::<Amount>().map(|a| a.to_string())
    }

    #[track_caller]
    fn stored(text: &str) -> Amount {
        Amount::from_stored(text).unwrap()
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(amount("0.1").unwrap(), "0.1");
        assert_eq!(amount("12.50").unwrap(), "12.5");
        assert_eq!(amount("1e3").unwrap(), "1000");
        assert_eq!(amount("-0"), Ok("0".into()));
        assert_eq!(amount("-0.00"), Ok("0".into()));
        assert_eq!(amount("-0.5"), Ok("-0.5".into()));
        assert_eq!(amount("0.30000000000000004").unwrap(), "0.30000000000000004");
        assert_eq!(amount("999999999999.999999").unwrap(), "999999999999.999999");
        assert_eq!(amount("1.20e-1"), Ok("0.12".into()));
        assert_eq!(format!("{:>6}|{:<6}", stored("-1.5"), stored("1.5")), "  -1.5|1.5   ");
        let ten_times: Total = std::iter::repeat_n("0.1".parse::<Amount>().unwrap(), 10).sum();
        assert_eq!(ten_times.amount(), Some(Amount::from(1)));
    }

    #[test]
    fn what_is_no_number_or_too_long_is_told_apart() {
        for text in ["", "NaN", "Infinity", "-", "1,5", "0x10", "1_000", ".", "١", " 1", "--1", "1.2.3", "1e"]
        {
            assert_eq!(amount(text), Err(InvalidAmount::NotANumber), "{text:?}");
        }
        for text in [
            "1000000000000",
            "0.000000000000000001",
            "123456789012.3456789",
            &"9".repeat(40),
            &"1".repeat(5000),
            "1e30",
            "1e-30",
            "1e999",
            "1e99999999999999999999",
            "1e-99999999999999999999",
        ] {
            assert_eq!(amount(text), Err(InvalidAmount::OutOfRange), "{text:?}");
        }
    }

    #[test]
    fn a_row_holds_38_digits_and_ten_to_the_ninth_of_the_largest_lines() {
        let largest = format!("{}.{}", "9".repeat(21), "9".repeat(17));
        assert_eq!(stored(&largest), Amount::MAX);
        assert_eq!(stored(&format!("-{largest}")), -Amount::MAX);
        assert_eq!(Amount::MAX.to_string(), largest);
        assert_eq!(stored("1e20").to_string(), format!("1{}", "0".repeat(20)));
        for beyond in ["1e21", "1e-18", &format!("{largest}1"), &format!("1{largest}")] {
            assert_eq!(Amount::from_stored(beyond), Err(InvalidAmount::OutOfRange), "{beyond}");
        }
        let line: Amount = "999999999999.999999".parse().unwrap();
        let lines = (0..9).fold(Total::from(line), |sum, _| (0..9).fold(sum, |ten, _| ten + sum));
        assert_eq!(lines.amount().unwrap().to_string(), "999999999999999999000");
    }

    #[test]
    fn a_total_that_is_on_the_way_more_than_a_row_holds_is_exact_when_it_is_no_more() {
        let many = || std::iter::repeat_n(Amount::MAX, 1000);
        let all: Total = many().chain([Amount::from(7)]).sum();
        assert_eq!((all.amount(), all.to_string()), (None, "more than a row holds".into()));
        assert_eq!((-all).amount(), None);
        let back = many().map(Neg::neg).map(Total::from).fold(all, Add::add);
        assert_eq!(back, Total::from(Amount::from(7)));
        assert_eq!(all + -all, Total::default());
        assert_eq!((Total::from(Amount::MAX) + Total::from(stored("1e-17"))).amount(), None);
    }

    /// Within what `rust_decimal` holds exactly: 28 digits.
    fn decimal() -> impl Strategy<Value = Decimal> {
        let digits = |scale: u32| 10_i128.pow(27.min(21 + scale));
        let of = move |(n, scale): (i128, u32)| Decimal::from_i128_with_scale(n % digits(scale), scale);
        (-(10_i128.pow(27))..10_i128.pow(27), 0u32..=17).prop_map(of)
    }

    fn of(decimal: Decimal) -> Amount {
        stored(&decimal.to_string())
    }

    fn any_amount() -> impl Strategy<Value = Amount> {
        prop_oneof![-MAX..=MAX, Just(MAX), Just(-MAX), -9i128..9].prop_map(Amount)
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[0-9eE+.-]{0,45}") {
            let _ = (amount(&text), Amount::from_stored(&text));
        }

        #[test]
        fn it_reads_and_shows_numbers_as_decimals_do(value in decimal(), zeros in "0{0,9}") {
            prop_assert_eq!(of(value).to_string(), value.normalize().to_string());
            let scientific = format!("{zeros}{:e}", value.abs());
            prop_assert_eq!(stored(&scientific), of(value.abs()));
            prop_assert_eq!(of(value).nearest().to_string(), value.to_string().parse::<f64>().unwrap().to_string());
        }

        #[test]
        fn sums_and_order_are_those_of_decimals(a in decimal(), b in decimal()) {
            prop_assert_eq!(of(a).cmp(&of(b)), a.cmp(&b));
            // Its own sums round beyond 28 digits.
            let exact = Decimal::from(10_i128.pow(27 - a.scale().max(b.scale())));
            if a.abs().max(b.abs()) < exact && a.abs().max(b.abs()) < Decimal::from(10_i128.pow(20)) {
                prop_assert_eq!(of(a).checked_add(of(b)), Some(of(a + b)));
            }
        }

        /// Whatever the order and the brackets, and with nothing between rounded: the model keeps digits apart.
        #[test]
        fn totals_are_exact_in_any_order(amounts in prop::collection::vec(any_amount(), 0..40), cut in 0usize..40) {
            let [high, low]: [i128; 2] = [|a: &Amount| a.0.div_euclid(ONE), |a: &Amount| a.0.rem_euclid(ONE)]
                .map(|part| amounts.iter().map(part).sum());
            let (left, right) = amounts.split_at(cut.min(amounts.len()));
            let total = right.iter().copied().sum::<Total>() + left.iter().copied().sum::<Total>();
            let high = high + low.div_euclid(ONE);
            let model = high.checked_mul(ONE).and_then(|h| h.checked_add(low.rem_euclid(ONE))).and_then(Amount::of);
            prop_assert_eq!(total.amount(), model);
            prop_assert_eq!(total, amounts.iter().rev().copied().sum::<Total>());
            prop_assert_eq!(total + -total, Total::default());
        }

        #[test]
        fn storing_and_reading_changes_nothing(value in any_amount()) {
            prop_assert_eq!(stored(&value.to_string()), value);
            let json = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), value);
        }

        /// 120 bytes, as published.
        #[test]
        fn what_a_till_may_send_makes_short_lines(digits in "[0-9]{1,30}", at in 0usize..30, item in "[1-9][0-9]{17}") {
            let (whole, decimals) = digits.split_at(at.min(digits.len()));
            let text = format!("-0{whole}.{decimals}0");
            if let Ok(amount) = text.parse::<Amount>() {
                let line = crate::Line { item_no: item.parse().unwrap(), gross_number: amount, gross_turnover: amount };
                prop_assert!(serde_json::to_string(&line).unwrap().len() <= 120);
            }
        }
    }
}
