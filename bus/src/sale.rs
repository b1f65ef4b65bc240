use serde::{Deserialize, Serialize};

use crate::amount::{Amount, Total};
use crate::ids::ItemNo;

/// One line of a sale. A refund has a negative number *and* turnover.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub item_no: ItemNo,
    /// How many (pieces, kilograms): an exact decimal.
    pub gross_number: Amount,
    /// What was paid, in the shop's currency.
    pub gross_turnover: Amount,
}

impl Line {
    /// Whether one of number and turnover is sold and the other given back, which is neither a sale nor a refund.
    #[must_use]
    pub fn has_mixed_signs(&self) -> bool {
        (self.gross_number.is_negative() && self.gross_turnover.is_positive())
            || (self.gross_number.is_positive() && self.gross_turnover.is_negative())
    }
}

/// What a sale's lines add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub gross_number: Amount,
    pub gross_turnover: Amount,
}

impl Totals {
    /// Nothing if that is more than an [`Amount`] can be, which 10⁹ of the largest lines are not.
    #[must_use]
    pub fn of(lines: &[Line]) -> Option<Self> {
        let sum = |of: fn(&Line) -> Amount| lines.iter().map(of).sum::<Total>().amount();
        Some(Self { gross_number: sum(|l| l.gross_number)?, gross_turnover: sum(|l| l.gross_turnover)? })
    }
}
