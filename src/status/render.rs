use jiff::Timestamp;

use super::headline::{Headline, Mood, count, gone_off, headline};
use super::paper::{Cell, Ink, Paper, ago, amount, grouped, long, plain, since, took, wide};
use super::shops::shops;
use super::{Alarm, Cost, Health, Hop, Need, OpenIncident, Queue, Status};
use crate::monitor::alarms::Severity;

/// The status on one screen, if the screen is not too small and not too much has gone off.
#[must_use]
pub fn render(status: &Status, paper: Paper) -> String {
    let mut lines = title(status, paper);
    if let Some(health) = &status.health {
        lines.extend(alarms(&health.alarms, status.at, paper));
        lines.push(String::new());
        lines.extend(flow(&health.hops, paper));
        lines.push(String::new());
        lines.extend(subscribers(&health.subscribers, paper));
        lines.push(String::new());
        lines.extend(last_hour(&health.recorded, paper));
    }
    lines.push(String::new());
    lines.extend(attention(status, paper));
    lines.extend(shops(status, paper));
    lines.push(String::new());
    lines.extend(besides(status, paper));
    paper.cut(&lines)
}

/// The status in one line, for a log.
#[must_use]
pub fn line(status: &Status) -> String {
    let Headline { text, since, run, .. } = headline(status);
    let mut line = format!("{} {text}", status.at.strftime("%FT%TZ"));
    if let Some(since) = since {
        line.push_str(&format!(" since {}", since.strftime("%FT%TZ")));
    }
    if let Some(run) = run {
        line.push_str(&format!("; run: {run}"));
    }
    if let Some(health) = &status.health {
        let sold = health.hops.last().map_or(0.0, |project| project.per_minute);
        line.push_str(&format!("; {} sales a minute", amount(sold)));
        if let Some(pending) = health.pending {
            line.push_str(&format!(", {} pending", amount(pending)));
        }
    }
    plain(&line) + "\n"
}

fn ink_of(mood: Mood) -> Ink {
    match mood {
        Mood::Well => Ink::Good,
        Mood::Ailing => Ink::Warning,
        Mood::Ill => Ink::Bad,
    }
}

fn mark(mood: Mood) -> &'static str {
    match mood {
        Mood::Well => "●",
        Mood::Ailing => "▲",
        Mood::Ill => "✖",
    }
}

fn title(status: &Status, paper: Paper) -> Vec<String> {
    let (place, at) = (plain(&status.place), status.at.strftime("%-d %b %Y %T UTC").to_string());
    let gap = paper.width.saturating_sub(wide(&place) + wide(&at) + 2).max(2);
    let Headline { mood, text, since: begun, run } = headline(status);
    let since = begun.map_or(String::new(), |begun| format!(" {}", since(begun, status.at)));
    let mut lines = vec![
        format!(
            "  {}{}{}",
            paper.write(&place, Ink::Bold),
            " ".repeat(gap - 2),
            paper.write(&at, Ink::Faint)
        ),
        String::new(),
    ];
    let said = paper.wrapped(&format!("{} {text}{since}", mark(mood)), 2, ink_of(mood));
    lines.extend(said);
    // That of an alarm stands below, with the alarm.
    let told = status.health.as_ref().is_some_and(|health| !gone_off(&health.alarms).is_empty());
    let run = run.filter(|_| !told);
    lines.extend(run.into_iter().flat_map(|run| paper.wrapped(&format!("run: {run}"), 4, Ink::Command)));
    lines
}

/// More alarms than these are told in a line each.
const TOLD_AT_LENGTH: usize = 4;

/// Each alarm that has gone off: what it means, why, and what to run.
fn alarms(alarms: &[Alarm], now: Timestamp, paper: Paper) -> Vec<String> {
    let gone_off = gone_off(alarms);
    let mut lines = Vec::new();
    for alarm in &gone_off {
        let (mark, ink) = match alarm.severity {
            Severity::Critical => ("✖", Ink::Bad),
            Severity::Warning => ("▲", Ink::Warning),
        };
        let name = paper.write(&plain(&format!("{mark} {}", alarm.name)), ink);
        let since = paper.write(&since(alarm.since, now), Ink::Faint);
        let next = match &alarm.run {
            Some(run) => format!("run: {}", plain(run)),
            None => format!("see: {}", alarm.runbook),
        };
        if gone_off.len() > TOLD_AT_LENGTH {
            lines.push(format!("  {name}  {since}  {}", paper.write(&next, Ink::Command)));
            continue;
        }
        lines.push(String::new());
        lines.push(format!("  {name}  {since}"));
        lines.extend(paper.wrapped(&alarm.meaning, 4, Ink::Plain));
        lines.extend(paper.wrapped(&alarm.why, 4, Ink::Faint));
        lines.extend(paper.wrapped(&next, 4, Ink::Command));
    }
    lines
}

/// The list of what needs attention, each with the command to begin with.
fn attention(status: &Status, paper: Paper) -> Vec<String> {
    if status.attention.is_empty() {
        return Vec::new();
    }
    let none = || Cell::left("", Ink::Plain);
    let headings = ["needs attention", "till", "how many", "since", "what"];
    let mut rows = vec![headings.map(|name| Cell::left(name, Ink::Faint)).to_vec()];
    rows.extend(status.attention.iter().map(|need| {
        vec![
            need.shop_id.as_ref().map_or_else(none, |shop| Cell::left(shop.as_str(), Ink::Bold)),
            need.till.as_ref().map_or_else(none, |till| Cell::left(till.as_str(), Ink::Plain)),
            need.count.map_or_else(none, |count| Cell::left(grouped(&count.to_string()), Ink::Bold)),
            need.since.map_or_else(none, |at| Cell::left(ago(at, status.at), Ink::Plain)),
            Cell::left(need.what(), Ink::Warning),
        ]
    }));
    let mut lines = Vec::new();
    let mut told = paper.columns(&rows).into_iter();
    lines.extend(told.next());
    for (line, need) in told.zip(&status.attention) {
        lines.push(line);
        lines.extend(paper.wrapped(&format!("run: {}", need.run), 4, Ink::Command));
    }
    lines.push(String::new());
    lines
}

/// What was not measured, or is nothing.
const NONE: &str = "–";

fn cell(value: Option<f64>, text: impl Fn(f64) -> String, ink: Ink) -> Cell {
    match value {
        None => Cell::left(NONE, Ink::Faint),
        Some(value) => Cell::left(text(value), ink),
    }
}

/// Something there should be none of.
fn wrong(value: Option<f64>, ink: Ink) -> Cell {
    match value {
        Some(value) if value > 0.0 => Cell::left(amount(value), ink),
        Some(_) => Cell::left("0", Ink::Faint),
        None => Cell::left(NONE, Ink::Faint),
    }
}

/// How wide a step of the way is drawn, where there is room, and the least that its name needs.
const STEP: usize = 15;
const NARROW_STEP: usize = 11;

/// The way of a sale, and how it goes at each step.
fn flow(hops: &[Hop], paper: Paper) -> Vec<String> {
    let room = paper.width.saturating_sub(2) / (hops.len() + 1);
    let step = room.clamp(NARROW_STEP, STEP);
    let padded = |cell: Cell| {
        let text = console::truncate_str(&cell.text, step - 1, "…").into_owned();
        paper.padded(&Cell { text, ..cell }, step)
    };
    let row = |name: &str, of: &dyn Fn(&Hop) -> Cell| {
        let cells: String = hops.iter().map(|hop| padded(of(hop))).collect();
        let line = format!("  {}{cells}", padded(Cell::left(name, Ink::Faint)));
        line.trim_end().to_owned()
    };
    let dead_letters = |hop: &Hop| match &hop.queue {
        None => Cell::left("", Ink::Plain),
        Some(queue) => wrong(queue.dead_letters, Ink::Bad),
    };
    vec![
        format!("  {}", paper.write(&way(hops, step), Ink::Bold)),
        row("a minute", &|hop| Cell::left(amount(hop.per_minute), Ink::Bold)),
        row("p50", &|hop| cell(hop.p50, took, Ink::Plain)),
        row("p99", &|hop| cell(hop.p99, took, Ink::Plain)),
        row("failed", &|hop| wrong(Some(hop.failed), Ink::Warning)),
        row("waiting", &|hop| waiting(hop.queue.as_ref())),
        row("dead letters", &dead_letters),
    ]
}

/// `till ──────▶ accept ─────▶ …`
fn way(hops: &[Hop], wide: usize) -> String {
    let step = |name: &str| format!("{:─<width$}▶ ", format!("{name} "), width = wide - 2);
    let names: Vec<&str> = std::iter::once("till").chain(hops.iter().map(|hop| hop.name.as_str())).collect();
    match names.split_last() {
        Some((last, before)) => before.iter().map(|name| step(name)).collect::<String>() + last,
        None => String::new(),
    }
}

/// How many wait, and how long the oldest of them has.
fn waiting(queue: Option<&Queue>) -> Cell {
    let Some(queue) = queue else { return Cell::left("", Ink::Plain) };
    let text = match (queue.waiting, queue.oldest_seconds) {
        (None, None) => return Cell::left(NONE, Ink::Faint),
        (None, Some(oldest)) => format!("{} behind", long(oldest)),
        (Some(waiting), Some(oldest)) if waiting > 0.0 && oldest > 0.0 => {
            format!("{}, {}", amount(waiting), long(oldest))
        }
        (Some(waiting), _) => amount(waiting),
    };
    Cell::left(text, Ink::Plain)
}

fn subscribers(hops: &[Hop], paper: Paper) -> Vec<String> {
    let headings = ["who listens", "a minute", "p50", "p99", "failed", "waiting", "dead letters"];
    let mut rows = vec![headings.map(|name| Cell::left(name, Ink::Faint)).to_vec()];
    for hop in hops {
        rows.push(vec![
            Cell::left(hop.name.clone(), Ink::Plain),
            Cell::left(amount(hop.per_minute), Ink::Bold),
            cell(hop.p50, took, Ink::Plain),
            cell(hop.p99, took, Ink::Plain),
            wrong(Some(hop.failed), Ink::Warning),
            waiting(hop.queue.as_ref()),
            wrong(hop.queue.as_ref().and_then(|queue| queue.dead_letters), Ink::Bad),
        ]);
    }
    paper.columns(&rows)
}

/// Sales of the last hour as a picture of one line.
fn last_hour(recorded: &[f64], paper: Paper) -> Vec<String> {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let each = if paper.width >= 84 { 1 } else { 2 };
    let sums: Vec<f64> = recorded.chunks(each).map(|minutes| minutes.iter().sum()).collect();
    let most = sums.iter().copied().fold(0.0, f64::max);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of eight bars")]
    let bar = |sum: &f64| match sum {
        sum if *sum <= 0.0 => ' ',
        sum => BARS[((sum / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    let picture: String = sums.iter().map(bar).collect();
    let total = format!("{} sales", amount(recorded.iter().sum()));
    vec![format!("  last hour  {}  {total}", paper.write(&format!("▕{picture}▏"), Ink::Good))]
}

/// What else there is to know.
fn besides(status: &Status, paper: Paper) -> Vec<String> {
    let mut rows = Vec::new();
    let mut row = |name: &str, text: String, ink| {
        rows.push(vec![Cell::left(name, Ink::Faint), Cell::left(text, ink)]);
    };
    if let Some(Health { pending, pending_seconds, not_deployed, .. }) = &status.health {
        row("pending", pending_text(*pending, *pending_seconds), Ink::Plain);
        if !not_deployed.is_empty() {
            let which = not_deployed.join(", ");
            row(
                "unwatched",
                format!("{} not deployed: {which}", count(not_deployed.len(), "alarm")),
                Ink::Warning,
            );
        }
    }
    let listed = |incident: &&OpenIncident| {
        let of =
            |need: &Need| need.shop_id.as_ref() == Some(&incident.shop_id) && need.reason == incident.reason;
        status.attention.iter().any(of)
    };
    let unlisted = status.incidents.iter().filter(|incident| !listed(incident));
    for OpenIncident { shop_id, reason, since: begun, sales } in unlisted {
        let since = since(*begun, status.at);
        let sales = grouped(&sales.to_string());
        row("incident", format!("{shop_id}: {sales} sales rejected, {reason}, {since}"), Ink::Warning);
    }
    for unreadable in &status.unreadable {
        row("left out", plain(unreadable), Ink::Warning);
    }
    let Cost { today, this_month, counted } = &status.cost;
    let how = if *counted { "as AWS counts, list prices" } else { "if it were on AWS" };
    row("cost", format!("${today:.2} today, ${this_month:.2} this month ({how})"), Ink::Plain);
    paper.columns(&rows)
}

fn pending_text(pending: Option<f64>, seconds: Option<f64>) -> String {
    match (pending, seconds) {
        (None, _) => "nobody has looked in the last minutes".to_owned(),
        (Some(pending), _) if pending <= 0.0 => "none".to_owned(),
        (Some(pending), None) => format!("{} sales", amount(pending)),
        (Some(pending), Some(seconds)) => {
            format!("{} sales, the oldest for {}", amount(pending), long(seconds))
        }
    }
}
