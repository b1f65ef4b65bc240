use kassa_bus::amount::Total;

use super::headline::count;
use super::paper::{Cell, Ink, Paper, ago, grouped, wide};
use super::{Standing, Status};
use crate::show::money;

/// More shops than these stand side by side.
const IN_ROWS: usize = 8;

/// How wide today's bar is, of a day as last week's.
const BAR: usize = 12;

/// How each shop sells.
pub(super) fn shops(status: &Status, paper: Paper) -> Vec<String> {
    match status.shops.len() {
        0 => vec!["  There are no shops yet: kassa apply makes those of shops.toml.".to_owned()],
        1..=IN_ROWS => rows(status, paper),
        _ => grid(status, paper),
    }
}

fn last(shop: &Standing, status: &Status) -> (String, Ink) {
    match shop.last_sale {
        Some(at) => (format!("{} ago", ago(at, status.at)), Ink::Plain),
        None => ("never".to_owned(), Ink::Faint),
    }
}

/// One below the other, today against last week.
fn rows(status: &Status, paper: Paper) -> Vec<String> {
    let headings =
        [("shop", false), ("last sale", true), ("today", false), ("sales", true), ("turnover", true)];
    let mut heads: Vec<Cell> =
        headings.map(|(name, right)| Cell { right, ..Cell::left(name, Ink::Faint) }).to_vec();
    heads.push(Cell::right("a week ago", Ink::Faint));
    let mut rows = vec![heads];
    for shop in &status.shops {
        let (last, ink) = last(shop, status);
        rows.push(vec![
            Cell::left(shop.shop_id.as_str(), Ink::Bold),
            Cell::right(last, ink),
            Cell::left(bar(shop), Ink::Good),
            Cell::right(grouped(&shop.today.sales.to_string()), Ink::Plain),
            Cell::right(grouped(&money(shop.today.turnover)), Ink::Plain),
            match shop.last_week {
                Some(day) => Cell::right(grouped(&day.sales.to_string()), Ink::Faint),
                None => Cell::right("–", Ink::Faint),
            },
        ]);
    }
    paper.columns(&rows)
}

/// Today's sales as a part of the whole day's a week ago.
fn bar(shop: &Standing) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let Some(day) = shop.last_week.filter(|day| day.sales > 0) else { return "·".repeat(BAR) };
    let eighths = shop.today.sales.saturating_mul(BAR as u64 * 8) / day.sales;
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX).min(BAR * 8);
    let bar = "█".repeat(eighths / 8) + PARTS[eighths % 8];
    let rest = BAR.saturating_sub(wide(&bar));
    bar + &"·".repeat(rest)
}

/// As many beside each other as there is room for, down the columns; and what all of them come to.
fn grid(status: &Status, paper: Paper) -> Vec<String> {
    let cells: Vec<[Cell; 3]> = status
        .shops
        .iter()
        .map(|shop| {
            let (last, ink) = last(shop, status);
            [
                Cell::left(shop.shop_id.as_str(), Ink::Bold),
                Cell::right(last, ink),
                Cell::right(grouped(&shop.today.sales.to_string()), Ink::Plain),
            ]
        })
        .collect();
    let widest = cells.iter().map(|cells| cells.iter().map(|c| wide(&c.text) + 2).sum::<usize>() + 2).max();
    let across = (paper.width.saturating_sub(2) / widest.unwrap_or(1).max(1)).clamp(1, 6);
    let down = cells.len().div_ceil(across);
    let row = |n: usize| -> Vec<Cell> {
        let of_row = cells.iter().skip(n).step_by(down);
        let spaced = of_row.enumerate().flat_map(|(place, cells)| {
            let gap = (place > 0).then(|| Cell::left("", Ink::Plain));
            gap.into_iter().chain(cells.iter().cloned())
        });
        spaced.collect()
    };
    let sales = status.shops.iter().map(|shop| shop.today.sales).fold(0, u64::saturating_add);
    let turnover: Total = status.shops.iter().map(|shop| shop.today.turnover).sum();
    let turnover = turnover.amount().map_or_else(|| turnover.to_string(), |sum| grouped(&money(sum)));
    let all = format!(
        "  {}: when each sold last, and its sales today ({} in all, {})",
        count(cells.len(), "shop"),
        grouped(&sales.to_string()),
        turnover
    );
    let mut lines = vec![paper.write(&all, Ink::Faint)];
    lines.extend(paper.columns(&(0..down).map(row).collect::<Vec<_>>()));
    lines
}
