use serde::{Deserialize, Serialize};

use crate::amount::Amount;
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
    #[must_use]
    pub fn of(lines: &[Line]) -> Self {
        Self {
            gross_number: lines.iter().map(|l| l.gross_number).sum(),
            gross_turnover: lines.iter().map(|l| l.gross_turnover).sum(),
        }
    }
}
