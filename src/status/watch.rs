use std::io::IsTerminal;
use std::time::Duration;

use console::Term;

use super::{Paper, Status, line, render};
use crate::output::{OutputError, print, say};

/// Where a watched status is shown.
pub enum Screen {
    /// Drawn over and over, on a screen of its own.
    Terminal(Term),
    /// Nobody sees it change: a line each time.
    Lines,
    /// A JSON object each time.
    Json,
}

/// How wide text is where there is no terminal to ask.
const WIDTH: usize = 100;

impl Paper {
    /// What stdout is, and in colour if that is wanted there.
    #[must_use]
    pub fn stdout() -> Self {
        let term = Term::stdout();
        let width = term.size_checked().map_or(WIDTH, |(_, columns)| usize::from(columns));
        Self { width, colour: term.is_term() && console::colors_enabled() }
    }
}

impl Screen {
    #[must_use]
    pub fn stdout(json: bool) -> Self {
        match (json, std::io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal(Term::stdout()),
            (false, false) => Self::Lines,
        }
    }

    fn open(&self) -> Result<(), OutputError> {
        match self {
            // The terminal's other screen, so that what was there before is there again afterwards; no cursor.
            Self::Terminal(_) => print("\u{1b}[?1049h\u{1b}[?25l"),
            Self::Lines | Self::Json => Ok(()),
        }
    }

    fn show(&self, status: &Status, note: &str) -> Result<(), OutputError> {
        match self {
            Self::Terminal(term) => {
                let (rows, _) = term.size();
                print(frame(&render(status, Paper::stdout()), note, rows.into()))
            }
            Self::Lines => print(line(status)),
            Self::Json => print(format_args!("{}\n", serde_json::json!(status))),
        }
    }

    fn close(&self) -> Result<(), OutputError> {
        match self {
            Self::Terminal(_) => print("\u{1b}[?25h\u{1b}[?1049l"),
            Self::Lines | Self::Json => Ok(()),
        }
    }
}

/// What draws a text over the one before without a flicker: all at once, each line with what is left of the line
/// before taken away, and as many as there is room for.
fn frame(text: &str, note: &str, rows: usize) -> String {
    let room = rows.saturating_sub(2);
    let mut drawn = String::from("\u{1b}[?2026h\u{1b}[H");
    for line in text.lines().take(room) {
        drawn.push_str(&format!("{line}\u{1b}[0m\u{1b}[K\r\n"));
    }
    let below = text.lines().count().saturating_sub(room);
    let note = if below > 0 { format!("{below} lines more than fit; {note}") } else { note.to_owned() };
    drawn.push_str(&format!("\u{1b}[J\r\n  \u{1b}[2m{note}\u{1b}[0m\u{1b}[K\u{1b}[?2026l"));
    drawn
}

/// Shows a status again and again, until whoever watches has enough or the shop is closed. Gives the last one.
///
/// # Errors
/// That of the first look, or of what is written. A later look that fails is told in place of it, and the next is awaited.
pub async fn watch<E: std::fmt::Display + From<OutputError>>(
    screen: &Screen,
    every: Duration,
    mut look: impl AsyncFnMut() -> Result<Status, E>,
    enough: impl Future<Output = Result<(), OutputError>>,
) -> Result<Status, E> {
    let mut last = look().await?;
    let note = format!("every {} s; Ctrl-C ends it", every.as_secs());
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    screen.open()?;
    screen.show(&last, &note)?;
    tokio::pin!(enough);
    while last.open {
        let next = async {
            ticks.tick().await;
            look().await
        };
        tokio::select! {
            enough = &mut enough => {
                enough?;
                break;
            }
            next = next => match next {
                Ok(status) => {
                    screen.show(&status, &note)?;
                    last = status;
                }
                Err(error) => screen.fail(&last, &error.to_string())?,
            },
        }
    }
    screen.close()?;
    Ok(last)
}

impl Screen {
    /// Says that nothing can be seen, above what was seen last.
    fn fail(&self, last: &Status, why: &str) -> Result<(), OutputError> {
        match self {
            Self::Terminal(_) => self.show(last, &format!("not seen since: {why}")),
            Self::Lines | Self::Json => {
                say(format_args!("kassa: {why}"));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_no_higher_than_the_terminal_and_says_what_is_missing() {
        let text: String = (0..50).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
        let frame = frame(&text, "note", 24);
        assert_eq!(frame.matches("\r\n").count(), 23);
        assert!(frame.contains("line 21") && !frame.contains("line 22"), "{frame}");
        assert!(frame.contains("28 lines more than fit; note"), "{frame}");
    }

    #[test]
    fn a_shorter_line_leaves_nothing_of_a_longer_one() {
        assert_eq!(frame("a\nb\n", "", 24).matches("\u{1b}[K").count(), 3);
    }
}
