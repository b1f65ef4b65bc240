use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An exact decimal: a quantity or a sum of money in the shop's currency.
///
/// One that came from outside is below 10¹² and has at most 18 digits, 17 of them decimals: enough for
/// what a till that adds up in floats sends (0.30000000000000004), and so few that sums up to 10¹¹ stay
/// exact whatever they are of, within a [`Decimal`]'s 28 digits and a `DynamoDB` number's 38. Minus zero
/// is zero.
///
/// ```
/// # fn main() -> Result<(), kassa_bus::amount::InvalidAmount> {
/// use kassa_bus::amount::Amount;
/// let sum = "0.1".parse::<Amount>()? + "0.2".parse()?;
/// assert_eq!(sum, "0.3".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(Decimal);

const MAX_DECIMALS: u32 = 17;
const MAX_DIGITS: u32 = 18;
const LIMIT: i64 = 1_000_000_000_000;

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAmount {
    #[error("is not a decimal number")]
    NotANumber,
    #[error("is out of range: below 1000000000000, with at most 18 digits, is allowed")]
    OutOfRange,
}

impl Amount {
    pub const ZERO: Self = Self(Decimal::ZERO);

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < Decimal::ZERO
    }

    #[must_use]
    pub fn is_positive(self) -> bool {
        self.0 > Decimal::ZERO
    }

    /// The nearest float: to be looked at, not to be reckoned with.
    #[must_use]
    pub fn nearest(self) -> f64 {
        self.0.to_f64().unwrap_or(f64::NAN)
    }

    /// Reads a stored sum, which may be larger than what a till may send.
    ///
    /// # Errors
    /// If the text is not a decimal of at most 28 digits.
    pub fn from_stored(text: &str) -> Result<Self, InvalidAmount> {
        Decimal::from_str_exact(text)
            .or_else(|_| Decimal::from_scientific(text))
            .map(|d| Self(d.normalize()))
            .map_err(|_| InvalidAmount::NotANumber)
    }
}

/// The text of a JSON number or string, as a till sends it: digits, one point, an exponent.
impl FromStr for Amount {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        if !is_number(text) {
            return Err(InvalidAmount::NotANumber);
        }
        // What cannot be held exactly is a number all the same, only too long.
        let value = if text.contains(['e', 'E']) {
            Decimal::from_scientific(text)
        } else {
            Decimal::from_str_exact(text)
        }
        .map_err(|_| InvalidAmount::OutOfRange)?
        .normalize();
        let digits = value.mantissa().unsigned_abs().checked_ilog10().map_or(1, |log| log + 1);
        if value.abs() >= Decimal::from(LIMIT) || value.scale() > MAX_DECIMALS || digits > MAX_DIGITS {
            return Err(InvalidAmount::OutOfRange);
        }
        Ok(Self(value))
    }
}

/// The grammar of a JSON number (RFC 8259 section 6), leading zeros allowed.
fn is_number(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let exponent = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    digits(whole) && fraction.is_none_or(digits) && exponent.is_none_or(digits)
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<i64> for Amount {
    fn from(whole: i64) -> Self {
        Self(whole.into())
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self((self.0 + other.0).normalize())
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self((self.0 - other.0).normalize())
    }
}

impl Neg for Amount {
    type Output = Self;
    fn neg(self) -> Self {
        Self::ZERO - self
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount(text: &str) -> Result<String, InvalidAmount> {
        text.parse::<Amount>().map(|a| a.to_string())
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(amount("0.1").unwrap(), "0.1");
        assert_eq!(amount("12.50").unwrap(), "12.5");
        assert_eq!(amount("1e3").unwrap(), "1000");
        assert_eq!(amount("-0"), Ok("0".into()));
        assert_eq!(amount("-0.00"), Ok("0".into()));
        assert_eq!(amount("0.30000000000000004").unwrap(), "0.30000000000000004");
        assert_eq!(amount("999999999999.999999").unwrap(), "999999999999.999999");
        let ten_times: Amount = std::iter::repeat_n("0.1".parse().unwrap(), 10).sum();
        assert_eq!(ten_times, Amount::from(1));
    }

    #[test]
    fn what_is_no_number_or_too_long_is_told_apart() {
        for text in ["", "NaN", "Infinity", "-", "1,5", "0x10", "1_000", ".", "١", " 1", "--1", "1.2.3"] {
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
        ] {
            assert_eq!(amount(text), Err(InvalidAmount::OutOfRange), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[0-9eE+.-]{0,45}") {
            let _ = amount(&text);
        }

        #[test]
        fn storing_and_reading_changes_nothing(millionths in -999_999_999_999_999_999i64..=999_999_999_999_999_999) {
            let value = Amount(Decimal::new(millionths, 6).normalize());
            prop_assert_eq!(amount(&value.to_string()).unwrap(), value.to_string());
            let json = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), value);
        }
    }
}
