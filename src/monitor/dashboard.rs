//! The dashboards: the bodies that `CloudWatch` draws, read so that they can be drawn here as well
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html>).
//!
//! What `CloudWatch` knows and this does not is refused: nothing is in a file that the console leaves out.

/// A metric widget's rows: shorthand written out, defaults filled in.
mod row;

use jiff::{Span, SpanRelativeTo, Unit};
use serde::Deserialize;
use serde_json::Value;

use super::placeholders::Placeholders;
pub use row::{Row, Side};

/// Each dashboard's name and body, in the order in which they are offered.
pub const BODIES: [(&str, &str); 3] = [
    ("sales", include_str!("../../dashboards/sales.json")),
    ("operations", include_str!("../../dashboards/operations.json")),
    ("keys", include_str!("../../dashboards/keys.json")),
];

/// Columns of the grid on which widgets stand.
pub const COLUMNS: u32 = 24;

#[derive(Debug, Clone, PartialEq)]
pub struct Dashboard {
    /// Seconds before now with which it opens.
    pub span: u32,
    pub widgets: Vec<Widget>,
}

/// What stands on the grid, and where: in columns and rows from the top left.
#[derive(Debug, Clone, PartialEq)]
pub struct Widget {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Metrics(Box<Metrics>),
    Text {
        markdown: String,
    },
    /// The states of alarms, by their names in `alarms.json`.
    Alarms {
        title: String,
        alarms: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    pub title: String,
    pub view: View,
    /// Whether lines stand on each other.
    pub stacked: bool,
    pub rows: Vec<Row>,
    /// Lines across, at a value.
    pub thresholds: Vec<Threshold>,
    pub left: Axis,
    pub right: Axis,
    /// Seconds before now that are shown, whatever the dashboard shows.
    pub span: Option<u32>,
    /// Whether a number is that of all the time shown; else it is the last period's.
    pub whole_span: bool,
    /// Which columns a table has beside the names: MIN, MAX, SUM, AVG.
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum View {
    TimeSeries,
    SingleValue,
    Table,
}

/// What a table sums a row up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Column {
    Min,
    Max,
    Sum,
    Avg,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Threshold {
    pub label: String,
    pub value: f64,
    /// `#rrggbb`.
    pub color: Option<String>,
    /// Which side of it is bad, and filled in.
    pub fill: Option<Fill>,
    #[serde(default)]
    pub y_axis: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fill {
    Above,
    Below,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Axis {
    pub label: Option<String>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub show_units: Option<bool>,
}

impl Dashboard {
    /// The dashboard of this name, for one deployment. None if there is no such dashboard.
    #[must_use]
    pub fn named(name: &str, with: &Placeholders<'_>) -> Option<Result<Self, String>> {
        let (_, body) = BODIES.iter().find(|(known, _)| *known == name)?;
        Some(Self::read(body, with).map_err(|why| format!("dashboards/{name}.json: {why}")))
    }

    /// # Errors
    /// Says what in the body is wrong, and in which widget.
    pub fn read(body: &str, with: &Placeholders<'_>) -> Result<Self, String> {
        let body: Value = serde_json::from_str(body).map_err(|why| why.to_string())?;
        let body: Body = read(with.fill_all(body)?)?;
        let numbered = body.widgets.into_iter().enumerate();
        let widgets =
            numbered.map(|(n, widget)| widget.read(with).map_err(|why| format!("widget {n}: {why}")));
        let PeriodOverride::Inherit = body.period_override;
        Ok(Self { span: span(&body.start)?, widgets: widgets.collect::<Result<_, _>>()? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    start: String,
    period_override: PeriodOverride,
    widgets: Vec<Placed>,
}

/// Periods are as the widgets say, whatever time is shown: `auto` would make thresholds per minute meaningless.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum PeriodOverride {
    Inherit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Placed {
    r#type: Kind,
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    properties: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Metric,
    Text,
    Alarm,
}

impl Placed {
    fn read(self, with: &Placeholders<'_>) -> Result<Widget, String> {
        let Self { r#type, x, y, width, height, properties } = self;
        if width == 0 || height == 0 || x + width > COLUMNS {
            return Err(format!("stands outside the {COLUMNS} columns"));
        }
        let content = match r#type {
            Kind::Metric => Content::Metrics(Box::new(metrics(read(properties)?)?)),
            Kind::Text => {
                let TextProperties { markdown } = read(properties)?;
                Content::Text { markdown }
            }
            Kind::Alarm => {
                let AlarmProperties { title, alarms } = read(properties)?;
                let alarms = alarms.iter().map(|arn| alarm(arn, with)).collect::<Result<_, _>>()?;
                Content::Alarms { title, alarms }
            }
        };
        Ok(Widget { x, y, width, height, content })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextProperties {
    markdown: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlarmProperties {
    title: String,
    alarms: Vec<String>,
}

/// An alarm's name in `alarms.json`, of its ARN.
fn alarm(arn: &str, with: &Placeholders<'_>) -> Result<String, String> {
    let Placeholders { stack, region, account, .. } = with;
    let name = arn.strip_prefix(&format!("arn:aws:cloudwatch:{region}:{account}:alarm:{stack}-"));
    name.map(str::to_owned).ok_or_else(|| format!("{arn} is no alarm of this stack"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MetricProperties {
    title: String,
    view: View,
    #[serde(default)]
    stacked: bool,
    // `CloudWatch` needs it: the shop is in one region.
    #[serde(rename = "region")]
    _region: String,
    stat: Option<String>,
    period: u32,
    metrics: Vec<Vec<Value>>,
    #[serde(default)]
    annotations: Annotations,
    #[serde(default)]
    y_axis: Axes,
    start: Option<String>,
    #[serde(default)]
    set_period_to_time_range: bool,
    table: Option<Table>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    horizontal: Vec<Threshold>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Axes {
    #[serde(default)]
    left: Axis,
    #[serde(default)]
    right: Axis,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Table {
    summary_columns: Vec<Column>,
    show_time_series_data: bool,
}

fn metrics(of: MetricProperties) -> Result<Metrics, String> {
    let title = of.title;
    let rows =
        row::read(of.metrics, of.stat.as_deref(), of.period).map_err(|why| format!("{title:?}: {why}"))?;
    let columns = match (of.view, of.table) {
        (View::Table, Some(Table { summary_columns, show_time_series_data: false })) => summary_columns,
        (View::Table, _) => return Err(format!("{title:?}: a table says its summaryColumns, and no series")),
        (_, None) => Vec::new(),
        (_, Some(_)) => return Err(format!("{title:?}: only a table has columns")),
    };
    Ok(Metrics {
        view: of.view,
        stacked: of.stacked,
        rows,
        thresholds: of.annotations.horizontal,
        left: of.y_axis.left,
        right: of.y_axis.right,
        span: of.start.as_deref().map(span).transpose()?,
        whole_span: of.set_period_to_time_range,
        columns,
        title,
    })
}

/// Seconds of a time before now, as `-PT3H` or `-P8D`. (With an end it would have to be an absolute time.)
fn span(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no time before now, as -PT3H or -P8D");
    let of: Span = text.strip_prefix('-').ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
    let seconds = of.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).map_err(|_| wrong())?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in the range of u32")]
    (1.0..f64::from(u32::MAX)).contains(&seconds).then_some(seconds as u32).ok_or_else(wrong)
}

fn read<T: for<'de> Deserialize<'de>>(json: Value) -> Result<T, String> {
    serde_json::from_value(json).map_err(|why| why.to_string())
}
