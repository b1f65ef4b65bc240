use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use kassa_bus::amount::Amount;

/// A table of columns with a line under the headings, as wide as the terminal allows.
#[must_use]
pub fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header(headings);
    if let Some((_, columns)) = console::Term::stdout().size_checked() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    }
    table
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
