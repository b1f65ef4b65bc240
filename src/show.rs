//! Text for people: tables, amounts, plans.

use std::fmt;

use comfy_table::{CellAlignment, ColumnConstraint, LineStyle, TableStyle, Width};
use console::measure_text_width;
use kassa_bus::amount::Amount;

/// Rows under headings, as wide as the terminal allows. No word of it is ever broken, an id least of all: where the words have no
/// room beside each other, each row is told cell by cell.
#[derive(Debug, Clone)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns of numbers.
    right: Vec<usize>,
}

/// Words that are longer are no ids, and may be broken: a SHA-256 has as many digits.
const LONGEST_WORD: usize = 64;

/// Spaces around a cell.
const PADDING: usize = 2;

/// A table with these headings.
#[must_use]
pub fn table<const N: usize>(headings: [&str; N]) -> Table {
    Table { headings: headings.map(str::to_owned).into(), rows: Vec::new(), right: Vec::new() }
}

impl Table {
    pub fn add_row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Has numbers stand under each other.
    #[must_use]
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.right.extend(columns);
        self
    }

    fn laid_out(&self, width: Option<usize>) -> String {
        match width {
            // Columns have one space between them.
            Some(width) if self.least().iter().sum::<usize>() + self.headings.len() > width + 1 => {
                self.by_cell(width)
            }
            Some(width) => self.by_row(width + 1 - self.headings.len()),
            None => self.by_row(usize::MAX),
        }
    }

    /// How wide each column is at least, so that no word of it is broken.
    fn least(&self) -> Vec<usize> {
        let longest = |line: &str| line.split_whitespace().map(measure_text_width).max().unwrap_or_default();
        self.widest(&|line| longest(line).min(LONGEST_WORD))
    }

    /// The most of something that any line of a column has.
    fn widest(&self, of: &dyn Fn(&str) -> usize) -> Vec<usize> {
        let column = |(n, heading): (usize, &String)| {
            let cells = self.rows.iter().filter_map(|row| row.get(n)).flat_map(|cell| cell.lines());
            cells.chain([heading.as_str()]).map(of).max().unwrap_or_default() + PADDING
        };
        self.headings.iter().enumerate().map(column).collect()
    }

    /// How wide each column is, where all have this much room: those that want little more than the least get that.
    fn widths(&self, room: usize) -> Vec<usize> {
        let (mut widths, wanted) = (self.least(), self.widest(&measure_text_width));
        let mut left = room.saturating_sub(widths.iter().sum());
        let more = |widths: &[usize], n: usize| wanted[n].saturating_sub(widths[n]);
        let mut columns: Vec<usize> = (0..widths.len()).collect();
        columns.sort_by_key(|n| more(&widths, *n));
        for (n, still) in columns.into_iter().zip((1..=widths.len()).rev()) {
            let given = more(&widths, n).min(left / still);
            widths[n] += given;
            left -= given;
        }
        widths
    }

    fn by_row(&self, room: usize) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
        table.set_header(&self.headings).add_rows(&self.rows);
        for (n, width) in self.widths(room).into_iter().enumerate() {
            let Some(column) = table.column_mut(n) else { continue };
            let width = u16::try_from(width).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
            if self.right.contains(&n) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    fn by_cell(&self, width: usize) -> String {
        let names = self.headings.iter().map(|heading| measure_text_width(heading)).max().unwrap_or_default();
        let room = width.saturating_sub(names + PADDING);
        let cell = |(heading, cell): (&String, &String)| {
            let mut text = String::new();
            for (n, line) in cell.lines().flat_map(|line| wrapped(line, room)).enumerate() {
                text.push_str(&format!("{:names$}  {line}\n", if n == 0 { heading.as_str() } else { "" }));
            }
            text
        };
        let row = |row: &Vec<String>| self.headings.iter().zip(row).map(cell).collect::<String>();
        self.rows.iter().map(row).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }
}

/// As wide as the terminal, where there is one.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terminal = console::Term::stdout().size_checked();
        f.write_str(&self.laid_out(terminal.map(|(_, columns)| columns.into())))
    }
}

/// A text in lines of whole words.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= room => {
                line.push_str(&format!(" {word}"));
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// An amount of money: two decimals, or as many as it has if those are more.
#[must_use]
pub fn money(amount: Amount) -> String {
    let exact = amount.to_string();
    match exact.split_once('.').map_or(0, |(_, decimals)| decimals.len()) {
        0 => exact + ".00",
        1 => exact + "0",
        _ => exact,
    }
}

/// A line of a plan, coloured by its mark on a terminal: what is new is green, what changes is yellow.
#[must_use]
pub fn marked(line: &str) -> String {
    let colour = match line.chars().next() {
        Some('+') => console::Style::new().green(),
        Some('~') => console::Style::new().yellow(),
        _ => console::Style::new(),
    };
    colour.apply_to(line).to_string()
}

/// The first characters of a long text.
#[must_use]
pub fn short(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALE: &str = "019394e8-6c00-7000-8000-000000000001";
    const KEY: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

    #[track_caller]
    fn fits(table: &Table, width: usize, whole: &[&str]) -> String {
        let text = table.laid_out(Some(width));
        for whole in whole {
            assert!(text.contains(whole), "{whole} is broken:\n{text}");
        }
        assert!(text.lines().all(|line| measure_text_width(line) <= width), "wider than {width}:\n{text}");
        text
    }

    #[test]
    fn other_columns_give_way_to_an_id() {
        let mut rows = table(["sale", "would be", "what"]);
        rows.add_row([
            SALE.to_owned(),
            "rejected again".to_owned(),
            "the signature is not the till's ".repeat(4),
        ]);
        let text = fits(&rows, 80, &[SALE]);
        assert!(text.starts_with(" sale"), "{text}");
    }

    #[test]
    fn where_two_have_no_room_beside_each_other_they_stand_below_each_other() {
        let mut rows = table(["since", "shop", "sale", "tried", "why", "id"]);
        let why = "the shop's key cannot be used now: ".repeat(3);
        let cells = ["2026-11-22 12:00:00", "AMIS1", SALE, "3", &why, KEY].map(str::to_owned);
        rows.add_row(cells.clone());
        rows.add_row(cells);
        let text = fits(&rows, 80, &[SALE, KEY]);
        assert!(text.contains(&format!("sale   {SALE}\ntried  3\n")), "{text}");
        // And beside each other, where there is room.
        assert!(rows.laid_out(None).lines().any(|line| line.contains(SALE) && line.contains(KEY)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_word_is_broken_however_narrow_the_terminal(
            rows in proptest::collection::vec(proptest::array::uniform4("[a-z0-9-]{1,64}( [a-z]{1,12}){0,8}"), 1..5),
            width in 77usize..200,
        ) {
            let mut all = table(["one", "two", "three", "four"]);
            for row in &rows {
                all.add_row(row.clone());
            }
            let text = all.laid_out(Some(width));
            let told: Vec<&str> = text.split_whitespace().collect();
            prop_assert!(text.lines().all(|line| measure_text_width(line) <= width), "{text}");
            for word in rows.iter().flatten().flat_map(|cell| cell.split_whitespace()) {
                prop_assert!(told.contains(&word), "{word} of\n{text}");
            }
        }
    }
}
