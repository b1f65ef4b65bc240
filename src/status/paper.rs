//! What a status is written on: widths, colours, and numbers as people read them.

use console::Style;
use jiff::{SignedDuration, Timestamp, Zoned};

/// How wide, and whether in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paper {
    pub width: usize,
    pub colour: bool,
}

/// What a text is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Bold,
    Faint,
    Good,
    Warning,
    Bad,
    Command,
}

/// A text in a column.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub text: String,
    pub ink: Ink,
    pub right: bool,
}

impl Cell {
    pub fn left(text: impl Into<String>, ink: Ink) -> Self {
        Self { text: plain(&text.into()), ink, right: false }
    }

    pub fn right(text: impl Into<String>, ink: Ink) -> Self {
        Self { right: true, ..Self::left(text, ink) }
    }
}

impl Paper {
    pub(super) fn write(self, text: &str, ink: Ink) -> String {
        let style = Style::new().force_styling(self.colour);
        let style = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Bold => style.bold(),
            Ink::Faint => style.dim(),
            Ink::Good => style.green(),
            Ink::Warning => style.yellow(),
            Ink::Bad => style.red().bold(),
            Ink::Command => style.cyan(),
        };
        style.apply_to(text).to_string()
    }

    /// A cell of this width.
    pub(super) fn padded(self, cell: &Cell, width: usize) -> String {
        let room = " ".repeat(width.saturating_sub(wide(&cell.text)));
        let text = self.write(&cell.text, cell.ink);
        if cell.right { format!("{room}{text}") } else { format!("{text}{room}") }
    }

    /// Rows under each other, two spaces in and two between, each column as wide as its widest.
    pub(super) fn columns(self, rows: &[Vec<Cell>]) -> Vec<String> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let widest = |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|c| wide(&c.text)).max();
        let widths: Vec<usize> = (0..columns).map(|n| widest(n).unwrap_or_default()).collect();
        let cell = |(cell, width): (&Cell, &usize)| self.padded(cell, *width);
        let row = |row: &Vec<Cell>| row.iter().zip(&widths).map(cell).collect::<Vec<_>>().join("  ");
        rows.iter().map(|cells| format!("  {}", row(cells)).trim_end().to_owned()).collect()
    }

    /// Lines cut off where the paper ends.
    pub(super) fn cut(self, lines: &[String]) -> String {
        let cut = |line: &String| console::truncate_str(line, self.width, "…").into_owned() + "\n";
        lines.iter().map(cut).collect()
    }

    /// A text in lines that fit, each as far in.
    pub(super) fn wrapped(self, text: &str, indent: usize, ink: Ink) -> Vec<String> {
        let room = self.width.saturating_sub(indent).max(20);
        let mut lines: Vec<String> = Vec::new();
        for word in plain(text).split_whitespace() {
            match lines.last_mut() {
                Some(line) if wide(line) + 1 + wide(word) <= room => line.push_str(&format!(" {word}")),
                _ => lines.push(word.to_owned()),
            }
        }
        lines.iter().map(|line| format!("{}{}", " ".repeat(indent), self.write(line, ink))).collect()
    }
}

/// Columns a text takes.
pub(super) fn wide(text: &str) -> usize {
    console::measure_text_width(text)
}

/// A text without what would steer the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How much there is of something: `0`, `0.2`, `17`, `1,204`.
pub(super) fn amount(value: f64) -> String {
    if value > 0.0 && value < 9.95 && (value - value.round()).abs() > 0.04 {
        return format!("{value:.1}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates, far beyond any shop"
    )]
    grouped(&(value.max(0.0).round() as u64).to_string())
}

/// Digits in threes; decimals as they are.
pub(super) fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (whole, decimals) = digits.split_once('.').map_or((digits, None), |(w, d)| (w, Some(d)));
    let first = whole.len() % 3;
    let mut parts: Vec<&str> = if first > 0 { vec![&whole[..first]] } else { Vec::new() };
    parts.extend(whole.as_bytes()[first..].chunks(3).filter_map(|three| std::str::from_utf8(three).ok()));
    let decimals = decimals.map_or(String::new(), |d| format!(".{d}"));
    format!("{sign}{}{decimals}", parts.join(","))
}

/// A time in milliseconds: `12 ms`, `1.2 s`, `34 s`, `3 min`.
pub(super) fn took(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_950.0 => format!("{:.1} s", ms / 1_000.0),
        ms => long(ms / 1_000.0),
    }
}

/// A time in seconds: `12 s`, `3 min`, `5 h`, `2 days`.
pub(super) fn long(seconds: f64) -> String {
    match seconds {
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 99.5 * 60.0 => format!("{:.0} min", s / 60.0),
        s if s < 48.0 * 3_600.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// How long ago something was.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    long(now.duration_since(at).max(SignedDuration::ZERO).as_secs_f64())
}

/// A time of today, or the day as well, and in which zone; and how long ago that was.
pub(super) fn since(at: &Zoned, now: Timestamp) -> String {
    let same = at.date() == now.to_zoned(at.time_zone().clone()).date();
    let when = at.strftime(if same { "%H:%M %Z" } else { "%-d %b %H:%M %Z" });
    format!("since {when} ({})", ago(at.timestamp(), now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_read_them() {
        for (value, text) in [(0.0, "0"), (0.2, "0.2"), (3.0, "3"), (9.96, "10"), (1_204.4, "1,204")] {
            assert_eq!(amount(value), text);
        }
        for (number, text) in [("1", "1"), ("123456", "123,456"), ("-1234567.50", "-1,234,567.50")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn times_are_as_exact_as_they_are_long() {
        for (ms, text) in [(0.4, "0 ms"), (999.0, "999 ms"), (1_240.0, "1.2 s"), (34_000.0, "34 s")] {
            assert_eq!(took(ms), text);
        }
        for (s, text) in [(99.0, "99 s"), (180.0, "3 min"), (7_200.0, "2 h"), (172_800.0, "2 days")] {
            assert_eq!(long(s), text);
        }
    }

    #[test]
    fn what_came_from_outside_does_not_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
