use std::fmt::Write;
use std::iter::repeat_n;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use kassa_bus::webhook::WarehouseSale;

use super::dimensions::SaleKeys;

/// Columns of [`COPY`](super::dialect::COPY).
const COLUMNS: i16 = 11;

/// Microseconds from 1970 to 2000, where Postgres counts from.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// The earliest time Postgres has, of 4714 BC (<https://www.postgresql.org/docs/15/datatype-datetime.html>). What a till
/// says it sold before is as good as nothing said.
const FIRST: Timestamp = Timestamp::constant(-210_866_803_200, 0);

/// Rows for `COPY … (format binary)`
/// (<https://www.postgresql.org/docs/15/sql-copy.html#id-1.9.3.55.9.4>).
pub(super) struct Rows {
    buffer: BytesMut,
    /// A number's digits, on their way into the buffer.
    digits: String,
}

impl Rows {
    pub fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        buffer.put_slice(b"PGCOPY\n\xff\r\n\0");
        buffer.put_i32(0); // flags
        buffer.put_i32(0); // no extension
        Self { buffer, digits: String::new() }
    }

    /// Adds a sale's lines.
    pub fn sale(&mut self, sale: &WarehouseSale, keys: &SaleKeys, items: impl Iterator<Item = i32>) {
        for ((line_no, line), item) in (1..).zip(&sale.lines).zip(items) {
            self.buffer.put_i16(COLUMNS);
            self.integer(keys.shop);
            self.text(sale.sale_id.as_str());
            self.integer(line_no);
            self.integer(item);
            self.integer(keys.date);
            self.or_null(sale.sold_at.filter(|at| *at >= FIRST), Self::timestamp);
            self.timestamp(sale.accepted_at);
            self.numeric(line.gross_number);
            self.numeric(line.gross_turnover);
            self.or_null(sale.till.as_deref(), Self::text);
            self.or_null(sale.seq, Self::numeric);
        }
    }

    pub fn finish(mut self) -> Bytes {
        self.buffer.put_i16(-1);
        self.buffer.freeze()
    }

    fn or_null<T>(&mut self, value: Option<T>, put: impl Fn(&mut Self, T)) {
        match value {
            Some(value) => put(self, value),
            None => self.buffer.put_i32(-1),
        }
    }

    fn integer(&mut self, value: i32) {
        self.buffer.put_i32(4);
        self.buffer.put_i32(value);
    }

    fn text(&mut self, value: &str) {
        self.buffer.put_i32(length(value.len()));
        self.buffer.put_slice(value.as_bytes());
    }

    fn timestamp(&mut self, value: Timestamp) {
        self.buffer.put_i32(8);
        self.buffer.put_i64(value.as_microsecond() - POSTGRES_EPOCH);
    }

    fn numeric(&mut self, value: impl std::fmt::Display) {
        self.digits.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.digits, "{value}");
        let at = self.buffer.len();
        self.buffer.put_i32(0);
        put_numeric(&mut self.buffer, &self.digits);
        let written = length(self.buffer.len() - at - 4);
        self.buffer[at..at + 4].copy_from_slice(&written.to_be_bytes());
    }
}

fn length(bytes: usize) -> i32 {
    // A field is far below 2 GiB: a whole delivery is 8 MiB.
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// A decimal number as Postgres sends it: how many groups of four digits, the first group's power of ten
/// thousand, the sign, how many decimals to show, and the groups.
fn put_numeric(buffer: &mut BytesMut, text: &str) {
    let (sign, text) = text.strip_prefix('-').map_or((0, text), |text| (0x4000, text));
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let (groups, decimal_groups) = (whole.len().div_ceil(4), decimals.len().div_ceil(4));
    for number in [groups + decimal_groups, groups - 1, sign, decimals.len()] {
        // An Amount has at most 38 digits.
        buffer.put_i16(i16::try_from(number).unwrap_or(0));
    }
    let zeros = |digits: &str, groups: usize| repeat_n(b'0', 4 * groups - digits.len());
    let mut digits = zeros(whole, groups)
        .chain(whole.bytes())
        .chain(decimals.bytes())
        .chain(zeros(decimals, decimal_groups))
        .map(|digit| i16::from(digit - b'0'));
    while let Some(first) = digits.next() {
        buffer.put_i16(digits.by_ref().take(3).fold(first, |group, digit| 10 * group + digit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is_sent(text: &str, expected: &[i16]) {
        let mut buffer = BytesMut::new();
        put_numeric(&mut buffer, text);
        let sent: Vec<i16> = buffer.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
        assert_eq!(sent, expected, "{text}");
    }

    #[test]
    fn numbers_are_sent_in_groups_of_four_digits_around_the_point() {
        is_sent("0", &[1, 0, 0, 0, 0]);
        is_sent("37.9", &[2, 0, 0, 1, 37, 9000]);
        is_sent("-12345.00006", &[4, 1, 0x4000, 5, 1, 2345, 0, 6000]);
        is_sent("18446744073709551615", &[5, 4, 0, 0, 1844, 6744, 737, 955, 1615]);
        is_sent("0.30000000000000004", &[6, 0, 0, 17, 0, 3000, 0, 0, 0, 4000]);
    }
}
