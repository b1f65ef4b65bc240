use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kassa_bus::error::chain;
use maud::{Markup, html};

use super::Shown;
use crate::console::chart::{Bounds, Chart, Ink, PALETTE, Series, Threshold};
use crate::console::page;
use crate::console::text::{measured, outside};
use crate::monitor::dashboard::{Axis, Column, Fill, Metrics, Row, Side, View};
use crate::monitor::{Line, Monitor, Query};

/// A metric widget's inside.
pub(super) async fn content(
    monitor: &dyn Monitor,
    metrics: &Metrics,
    size: (u32, u32),
    shown: Shown,
) -> Markup {
    let (from, to) = shown.times(metrics.span.unwrap_or(shown.span));
    let queries: Vec<Query> = metrics.rows.iter().map(|row| query(metrics, row)).collect();
    match monitor.data(&queries, from, to).await {
        Err(why) => page::unavailable("This", &chain(&why)),
        Ok(lines) => {
            let series = series(metrics, lines);
            match metrics.view {
                View::TimeSeries => chart(metrics, &series, (from, to), size),
                View::SingleValue => numbers(metrics, &series),
                View::Table => table(metrics, &series),
            }
        }
    }
}

/// Of a number of the whole time the parts are asked for: hours, which are added up.
fn query(metrics: &Metrics, row: &Row) -> Query {
    let period = if metrics.whole_span { row.query.period.min(3_600) } else { row.query.period };
    Query { period, ..row.query.clone() }
}

/// A line for each answer, in the rows' order and colours. A row that searches has any number of them.
fn series(metrics: &Metrics, lines: Vec<Line>) -> Vec<Series> {
    let mut by_row: HashMap<String, Vec<Line>> = HashMap::new();
    for line in lines {
        by_row.entry(line.id.clone()).or_default().push(line);
    }
    let mut series = Vec::new();
    let mut inks = (0..PALETTE).cycle();
    for row in metrics.rows.iter().filter(|row| row.query.shown) {
        let answers = by_row.remove(&row.query.id).unwrap_or_default();
        let given = row.color.as_ref().filter(|_| answers.len() < 2);
        for line in answers {
            series.push(Series {
                label: line.label,
                points: line.points,
                period: query(metrics, row).period,
                right: row.side == Side::Right,
                ink: given
                    .map_or_else(|| Ink::Palette(inks.next().unwrap_or(0)), |hex| Ink::Given(hex.clone())),
            });
        }
    }
    series
}

/// Pixels: what a widget has on a screen of 1280, and what it has on a phone.
const COLUMN: u32 = 49;
const ROW: u32 = 50;
const HEADING: u32 = 92;
const PHONE: u32 = 312;

fn chart(
    metrics: &Metrics,
    series: &[Series],
    (from, to): (Timestamp, Timestamp),
    size: (u32, u32),
) -> Markup {
    let thresholds: Vec<Threshold> = metrics.thresholds.iter().map(threshold).collect();
    let bounds = |axis: &Axis| Bounds { min: axis.min, max: axis.max };
    let chart = Chart {
        title: &metrics.title,
        series,
        thresholds: &thresholds,
        from,
        to,
        left: bounds(&metrics.left),
        right: bounds(&metrics.right),
        stacked: metrics.stacked,
    };
    let (width, height) = ((size.0 * COLUMN).max(PHONE) - 36, (size.1 * ROW).max(HEADING + 110) - HEADING);
    let narrow = width > PHONE * 3 / 2;
    html! {
        @if series.iter().all(|series| series.points.is_empty()) { p.nothing { "Nothing in this time" } }
        (axes(metrics))
        (chart.draw(width, height, if narrow { "broad" } else { "any" }))
        @if narrow { (chart.draw(PHONE, 190, "slim")) }
        (legend(metrics, series, &thresholds))
        @if !series.is_empty() { details.values { summary { "Values" } (values(series)) } }
    }
}

fn threshold(of: &crate::monitor::dashboard::Threshold) -> Threshold {
    Threshold {
        value: of.value,
        right: of.y_axis == Side::Right,
        above: of.fill.map(|fill| fill == Fill::Above),
        ink: Ink::Given(of.color.clone().unwrap_or_else(|| "#d13212".to_owned())),
    }
}

fn axes(metrics: &Metrics) -> Markup {
    html! {
        p.axes {
            span { @if let Some(label) = &metrics.left.label { (outside(label)) } }
            span { @if let Some(label) = &metrics.right.label { (outside(label)) } }
        }
    }
}

/// Names shown under a chart; the table of values has them all.
const NAMED: usize = 12;

fn legend(metrics: &Metrics, series: &[Series], thresholds: &[Threshold]) -> Markup {
    html! {
        ul.legend {
            @for one in series.iter().take(NAMED) {
                li { (one.ink.swatch()) (outside(&one.label)) @if one.right { span.aside { "right" } } }
            }
            @if series.len() > NAMED { li.none { "and " (series.len() - NAMED) " more" } }
            @for (drawn, of) in thresholds.iter().zip(&metrics.thresholds) {
                li.threshold { (drawn.ink.swatch()) (outside(&of.label)) }
            }
        }
    }
}

/// Times that the table of a chart's values has.
const TIMES: usize = 12;

/// The last values, for whoever cannot see the chart or wants to know.
fn values(series: &[Series]) -> Markup {
    let mut times: Vec<Timestamp> =
        series.iter().flat_map(|one| one.points.iter().rev().take(TIMES).map(|(at, _)| *at)).collect();
    times.sort_unstable_by(|one, other| other.cmp(one));
    times.dedup();
    times.truncate(TIMES);
    let at = |one: &Series, at: Timestamp| {
        let place = one.points.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        Some(measured(one.points[place].1))
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Values" { table {
            thead { tr { th scope="col" { "Time" } @for one in series { th.number scope="col" { (outside(&one.label)) } } } }
            tbody { @for time in times { tr {
                th scope="row" { (time.to_zoned(TimeZone::UTC).strftime("%-d %b %H:%M").to_string()) }
                @for one in series { td.number { @match at(one, time) {
                    Some(value) => (value),
                    None => { span.none aria-label="nothing" { "–" } },
                } } }
            } } }
        } }
    }
}

fn numbers(metrics: &Metrics, series: &[Series]) -> Markup {
    let number = |one: &Series| {
        let mut values = one.points.iter().map(|(_, value)| *value);
        if metrics.whole_span { values.reduce(|sum, more| sum + more) } else { values.next_back() }
    };
    html! {
        dl.numbers {
            @for one in series { div { dt { (outside(&one.label)) } dd { @match number(one) {
                Some(value) => (measured(value)),
                None => { span.none { "–" } },
            } } } }
        }
        @if series.is_empty() { p.nothing { "Nothing in this time" } }
    }
}

fn table(metrics: &Metrics, series: &[Series]) -> Markup {
    html! {
        @if series.is_empty() { p.nothing { "Nothing in this time" } }
        @else { div.scroll tabindex="0" role="region" aria-label="Table" { table {
            thead { tr {
                th scope="col" { "Name" }
                @for column in &metrics.columns { th.number scope="col" { (heading(*column)) } }
            } }
            tbody { @for one in series { tr {
                th scope="row" { (outside(&one.label)) }
                @for column in &metrics.columns { td.number { @match summed_up(*column, one) {
                    Some(value) => (measured(value)),
                    None => { span.none aria-label="nothing" { "–" } },
                } } }
            } } }
        } } }
    }
}

fn heading(column: Column) -> &'static str {
    match column {
        Column::Min => "Least",
        Column::Max => "Most",
        Column::Sum => "Sum",
        Column::Avg => "Average",
    }
}

fn summed_up(column: Column, series: &Series) -> Option<f64> {
    let mut values = series.points.iter().map(|(_, value)| *value);
    match column {
        Column::Min => values.reduce(f64::min),
        Column::Max => values.reduce(f64::max),
        Column::Sum => values.reduce(|sum, more| sum + more),
        Column::Avg => {
            #[expect(clippy::cast_precision_loss, reason = "there are not that many points")]
            let count = series.points.len() as f64;
            values.next().map(|first| values.fold(first, |sum, more| sum + more) / count)
        }
    }
}
