/// What of a series is drawn: pieces without gaps, layers on each other.
mod pieces;
/// Escaping, words, odd values.
#[cfg(test)]
mod tests;
/// Which times are written under a chart.
mod times;

use std::error::Error;
use std::fmt::Write;

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};
use pieces::{pieces, stacked};
use plotters::chart::DualCoordChartContext;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, ChartBuilder, Circle, IntoDrawingArea, IntoFont, LineSeries, Polygon, RGBColor, Rectangle,
    SVGBackend,
};
use plotters::style::{Color, ShapeStyle};
use times::Times;

use super::text::{measured, plain};

/// One line of a chart.
pub(super) struct Series {
    pub label: String,
    /// By time.
    pub points: Vec<(Timestamp, f64)>,
    /// In seconds; where more is between two points, the line is broken.
    pub period: u32,
    pub right: bool,
    pub ink: Ink,
}

/// The colour something is drawn in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ink {
    /// One of the palette's, which has another for the dark.
    Palette(u8),
    /// `#rrggbb`.
    Given(String),
}

/// A line across.
pub(super) struct Threshold {
    pub value: f64,
    pub right: bool,
    /// Whether what is above it is bad, or what is below.
    pub above: Option<bool>,
    pub ink: Ink,
}

/// The least and the most that an axis shows, if they are given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

pub(super) struct Chart<'a> {
    pub title: &'a str,
    pub series: &'a [Series],
    pub thresholds: &'a [Threshold],
    pub from: Timestamp,
    pub to: Timestamp,
    pub left: Bounds,
    pub right: Bounds,
    pub stacked: bool,
}

/// Colours of the palette. A series more than there are begins it again.
pub(super) const PALETTE: u8 = 8;

/// Colours that stand for others: the style sheet gives each its own in the light and in the dark, by these very
/// numbers. The charting crate writes colours as attributes, which styles come before.
const TEXT: RGBColor = RGBColor(1, 0, 0x10);
const LINE: RGBColor = RGBColor(1, 0, 0x11);

impl Ink {
    fn color(&self) -> RGBColor {
        match self {
            Self::Palette(n) => RGBColor(1, 0, n % PALETTE),
            Self::Given(hex) => {
                let part = |at: usize| hex.get(at..at + 2).and_then(|part| u8::from_str_radix(part, 16).ok());
                match (part(1), part(3), part(5)) {
                    (Some(red), Some(green), Some(blue)) => RGBColor(red, green, blue),
                    _ => TEXT,
                }
            }
        }
    }

    /// A sample of it, for a legend.
    pub(super) fn swatch(&self) -> Markup {
        let RGBColor(red, green, blue) = self.color();
        html! {
            svg.swatch viewBox="0 0 10 10" width="10" height="10" aria-hidden="true" focusable="false" {
                rect width="10" height="10" rx="2" fill=(format!("#{red:02X}{green:02X}{blue:02X}")) {}
            }
        }
    }
}

/// A drawing is twice as large inside as it is shown, since the charting crate knows whole pixels only.
const FINE: u32 = 2;
const LABEL: u32 = 11 * FINE;
const BELOW: u32 = 20 * FINE;
const BESIDE: u32 = 42 * FINE;

type Axes = Cartesian2d<Times, RangedCoordf64>;
type Drawn<'a, 'b> = DualCoordChartContext<'a, SVGBackend<'b>, Axes, Axes>;
type Drew = Result<(), Box<dyn Error>>;

impl Chart<'_> {
    /// The chart as SVG, so many pixels wide and high.
    pub(super) fn draw(&self, width: u32, height: u32, class: &str) -> Markup {
        let mut drawn = String::new();
        let size = (width * FINE, height * FINE);
        if let Err(why) = self.draw_into(&mut drawn, size) {
            tracing::warn!(%why, title = self.title, "a chart cannot be drawn");
        }
        // The element around it is our own.
        let inside = drawn.split_once('>').map_or("", |(_, inside)| inside);
        let inside = inside.trim_end().trim_end_matches("</svg>");
        html! {
            svg class={ "chart " (class) } viewBox={ "0 0 " (size.0) " " (size.1) } role="img"
                aria-label=(self.told()) focusable="false" { (PreEscaped(inside)) }
        }
    }

    /// The chart in words.
    fn told(&self) -> String {
        let mut told = format!("{}.", plain(self.title));
        for series in self.series.iter().take(SPOKEN) {
            let label = plain(&series.label);
            let mut values = series.points.iter().map(|(_, value)| *value);
            let all = (values.clone().reduce(f64::min), values.clone().reduce(f64::max), values.next_back());
            let _ = match all {
                (Some(lowest), Some(most), Some(end)) => {
                    let [lowest, most, end] = [lowest, most, end].map(measured);
                    write!(told, " {label}: {end} at the end, between {lowest} and {most}.")
                }
                _ => write!(told, " {label}: nothing."),
            };
        }
        if self.series.len() > SPOKEN {
            let _ = write!(told, " And {} more.", self.series.len() - SPOKEN);
        }
        told
    }

    fn draw_into(&self, into: &mut String, size: (u32, u32)) -> Drew {
        let root = SVGBackend::with_string(into, size).into_drawing_area();
        let both =
            self.series.iter().any(|series| series.right) || self.thresholds.iter().any(|line| line.right);
        let layers = if self.stacked { stacked(self.series) } else { Vec::new() };
        let top =
            layers.last().and_then(|layer| layer.above.iter().map(|(_, value)| *value).reduce(f64::max));
        let (left, right) = (self.range(false, top), self.range(true, None));
        let times = Times { from: self.from.as_second(), to: self.to.as_second() };
        let mut chart = ChartBuilder::on(&root)
            .margin_top(8 * FINE)
            .margin_right(if both { 0 } else { 12 * FINE })
            .x_label_area_size(BELOW)
            .y_label_area_size(BESIDE)
            .right_y_label_area_size(if both { BESIDE } else { 0 })
            .build_cartesian_2d(times, left.0..left.1)?
            .set_secondary_coord(times, right.0..right.1);
        axes(&mut chart, size, both)?;
        for threshold in self.thresholds {
            across(&mut chart, threshold, times, if threshold.right { right } else { left })?;
        }
        for layer in layers {
            let color = self.series[layer.series].ink.color();
            let edge: Vec<_> = layer.above.iter().chain(layer.below.iter().rev()).copied().collect();
            chart.draw_series([Polygon::new(edge, color.mix(0.3).filled())])?;
            chart.draw_series(alone(&layer.above, color))?;
            chart.draw_series(LineSeries::new(layer.above, ShapeStyle::from(color).stroke_width(2)))?;
        }
        for series in self.series.iter().filter(|_| !self.stacked) {
            line(&mut chart, series, times, size.0)?;
        }
        root.present()?;
        Ok(())
    }

    /// From where to where an axis goes: all that is drawn by it, and zero unless something else is given.
    fn range(&self, right: bool, top: Option<f64>) -> (f64, f64) {
        let bounds = if right { self.right } else { self.left };
        let series = self.series.iter().filter(|series| series.right == right && top.is_none());
        let values = series.flat_map(|series| series.points.iter().map(|(_, value)| *value));
        let lines = self.thresholds.iter().filter(|line| line.right == right).map(|line| line.value);
        let (least, most) = values
            .chain(lines)
            .chain(top)
            .filter(|value| value.is_finite())
            .fold((0.0, 0.0), |(least, most): (f64, f64), value| (least.min(value), most.max(value)));
        let air = (most - least) * 0.08;
        let min = bounds.min.unwrap_or(if least < 0.0 { least - air } else { 0.0 });
        let max = bounds.max.unwrap_or(most + air);
        if max > min { (min, max) } else { (min, min + 1.0) }
    }
}

fn axes(chart: &mut Drawn<'_, '_>, size: (u32, u32), both: bool) -> Drew {
    let label = ("sans-serif", LABEL).into_font().color(&TEXT);
    let lines = usize::try_from(size.1 / FINE / 45)?.clamp(2, 6);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(LINE)
        .light_line_style(LINE.mix(0.0))
        .axis_style(LINE)
        .label_style(label.clone())
        .x_labels(usize::try_from(size.0 / FINE / 64)?.max(2))
        .y_labels(lines)
        .y_label_formatter(&|value| measured(*value))
        .draw()?;
    if both {
        let mut axes = chart.configure_secondary_axes();
        axes.axis_style(LINE).label_style(label).y_labels(lines);
        axes.y_label_formatter(&|value: &f64| measured(*value)).draw()?;
    }
    Ok(())
}

/// Series that are told in words.
const SPOKEN: usize = 8;

fn across(chart: &mut Drawn<'_, '_>, threshold: &Threshold, times: Times, within: (f64, f64)) -> Drew {
    let (color, value, (from, to)) = (threshold.ink.color(), threshold.value, (times.from, times.to));
    let bad = threshold.above.map(|above| if above { within.1 } else { within.0 });
    let area = bad.map(|bad| Rectangle::new([(from, value), (to, bad)], color.mix(0.07).filled()));
    let line =
        LineSeries::new([(from, value), (to, value)], ShapeStyle::from(color.mix(0.8)).stroke_width(2));
    if threshold.right {
        chart.draw_secondary_series(area)?;
        chart.draw_secondary_series(line)?;
    } else {
        chart.draw_series(area)?;
        chart.draw_series(line)?;
    }
    Ok(())
}

/// A line of one point would not be seen.
fn alone(piece: &[(i64, f64)], color: RGBColor) -> Option<Circle<(i64, f64), i32>> {
    let [place] = piece else { return None };
    Some(Circle::new(*place, 4, color.filled()))
}

fn line(chart: &mut Drawn<'_, '_>, series: &Series, times: Times, width: u32) -> Drew {
    let color = series.ink.color();
    let style = ShapeStyle::from(color).stroke_width(3);
    for piece in pieces(series, (times.to - times.from) / i64::from(width.max(1))) {
        let dot = alone(&piece, color);
        if series.right {
            chart.draw_secondary_series(dot)?;
            chart.draw_secondary_series(LineSeries::new(piece, style))?;
        } else {
            chart.draw_series(dot)?;
            chart.draw_series(LineSeries::new(piece, style))?;
        }
    }
    Ok(())
}
