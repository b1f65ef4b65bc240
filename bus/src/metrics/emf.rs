use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Dimension, Metric, Namespace, Series, Values};

/// Values of one metric in one line, at most, and metrics of one directive
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
const MOST: usize = 100;

/// What was taken, as JSON lines in the embedded metric format: `CloudWatch` makes metrics of them when they are in a
/// log, so that publishing costs no request. The first line says `about` as well, and is there even where nothing was
/// taken, if there is something to say.
///
/// Series that do not contradict each other share a line. AWS's own metrics are left to AWS.
#[must_use]
pub fn lines(
    namespace: &str,
    at: Timestamp,
    mut taken: Vec<Series>,
    about: &Map<String, Value>,
) -> Vec<String> {
    taken.retain(|series| series.metric.namespace() == Namespace::Kassa);
    taken.sort_by(|a, b| (a.metric, &a.labels).cmp(&(b.metric, &b.labels)));
    let mut documents: Vec<Document> = Vec::new();
    for series in &taken {
        for number in numbers(&series.values) {
            let place = documents.iter().position(|document| document.takes(series));
            let place = place.unwrap_or_else(|| {
                documents.push(Document::default());
                documents.len() - 1
            });
            documents[place].put(series, number);
        }
    }
    if documents.is_empty() && !about.is_empty() {
        documents.push(Document::default());
    }
    let nothing = Map::new();
    let about = std::iter::once(about).chain(std::iter::repeat(&nothing));
    documents.iter().zip(about).map(|(document, about)| document.line(namespace, at, about)).collect()
}

#[derive(Default)]
struct Document<'a> {
    labels: Vec<(Dimension, &'a str)>,
    metrics: Vec<(Metric, String)>,
}

impl<'a> Document<'a> {
    fn takes(&self, series: &Series) -> bool {
        let other = |(dimension, value): &(Dimension, String)| {
            self.labels.iter().any(|(there, said)| there == dimension && said != value)
        };
        self.metrics.len() < MOST
            && !self.metrics.iter().any(|(metric, _)| *metric == series.metric)
            && !series.labels.iter().any(other)
    }

    fn put(&mut self, series: &'a Series, number: String) {
        for (dimension, value) in &series.labels {
            if !self.labels.iter().any(|(there, _)| there == dimension) {
                self.labels.push((*dimension, value));
            }
        }
        self.metrics.push((series.metric, number));
    }

    fn line(&self, namespace: &str, at: Timestamp, about: &Map<String, Value>) -> String {
        let mut line = String::from("{");
        if !self.metrics.is_empty() {
            let _ = write!(line, r#""_aws":{{"Timestamp":{},"CloudWatchMetrics":["#, at.as_millisecond());
            for (n, directive) in self.directives().iter().enumerate() {
                line.push_str(if n > 0 { "," } else { "" });
                push_directive(&mut line, namespace, directive);
            }
            line.push_str("]}");
        }
        let mut member = |name: &str, value: &dyn std::fmt::Display| {
            let comma = if line.len() > 1 { "," } else { "" };
            let _ = write!(line, r#"{comma}"{name}":{value}"#);
        };
        for (dimension, value) in &self.labels {
            member(dimension.name(), &Value::from(*value));
        }
        for (name, value) in about {
            if !self.labels.iter().any(|(dimension, _)| dimension.name() == name) {
                member(name, value);
            }
        }
        for (metric, number) in &self.metrics {
            member(metric.name(), number);
        }
        line.push('}');
        line
    }

    /// Metrics with the same sets of dimensions share a directive.
    fn directives(&self) -> Vec<Vec<Metric>> {
        let mut directives: Vec<Vec<Metric>> = Vec::new();
        for (metric, _) in &self.metrics {
            match directives.iter_mut().find(|there| there[0].dimensions() == metric.dimensions()) {
                Some(directive) => directive.push(*metric),
                None => directives.push(vec![*metric]),
            }
        }
        directives
    }
}

fn push_directive(line: &mut String, namespace: &str, metrics: &[Metric]) {
    let sets: Vec<Vec<&str>> = metrics[0]
        .dimensions()
        .iter()
        .map(|set| set.iter().map(|dimension| dimension.name()).collect())
        .collect();
    let namespace = Value::from(namespace);
    let _ = write!(line, r#"{{"Namespace":{namespace},"Dimensions":{},"Metrics":["#, Value::from(sets));
    // No units: they are in the catalogue and on the dashboards' axes, and here each byte is paid for with each sale.
    for (n, metric) in metrics.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(line, r#"{comma}{{"Name":"{}"}}"#, metric.name());
    }
    line.push_str("]}");
}

/// What stands for the values: a number, or up to a hundred.
fn numbers(values: &Values) -> Vec<String> {
    match values {
        Values::Sum(sum) => vec![sum.to_string()],
        Values::Each(values) => {
            let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
            finite.chunks(MOST).map(array).collect()
        }
    }
}

/// To a tenth where it is small, and else to the whole: nobody asks for more, and each digit is stored and paid for.
fn array(values: &[f64]) -> String {
    let round = |value: &f64| if value.abs() < 10.0 { (value * 10.0).round() / 10.0 } else { value.round() };
    let rounded = values.iter().map(|value| round(value).to_string());
    match values {
        [_] => rounded.collect(),
        _ => format!("[{}]", rounded.collect::<Vec<_>>().join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Kind, Labels, Metrics};
    use serde_json::json;

    fn emitted(metrics: &Metrics, about: &Value) -> Vec<Value> {
        let at = "2026-11-22T10:00:00Z".parse().unwrap();
        let about = about.as_object().unwrap();
        lines("kassa-dev", at, metrics.take(), about)
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn one_shop_is_one_line_with_what_the_batch_says() {
        let metrics = Metrics::default();
        let shop: Labels<'_> = &[(Dimension::Shop, "AMIS1")];
        metrics.count_of(Metric::Recorded, shop, 3);
        metrics.count_of(Metric::Lines, shop, 7);
        metrics.observe(Metric::Latency, &[], 12.34);
        metrics.observe(Metric::Latency, &[], 7.07);
        let emitted = emitted(&metrics, &json!({"function": "process", "messages": 3}));
        assert_eq!(
            emitted,
            [json!({
                "_aws": {"Timestamp": 1_795_341_600_000_u64, "CloudWatchMetrics": [
                    {"Namespace": "kassa-dev", "Dimensions": [[], ["shop_id"]],
                     "Metrics": [{"Name": "recorded"}, {"Name": "lines"}]},
                    {"Namespace": "kassa-dev", "Dimensions": [[]],
                     "Metrics": [{"Name": "latency"}]},
                ]},
                "shop_id": "AMIS1", "function": "process", "messages": 3,
                "recorded": 3, "lines": 7, "latency": [12, 7.1],
            })]
        );
    }

    #[test]
    fn shops_are_lines_of_their_own_and_more_than_a_hundred_values_are_more_lines() {
        let metrics = Metrics::default();
        for n in 0..250u8 {
            metrics.count_of(Metric::Accepted, &[(Dimension::Shop, ["A", "B"][usize::from(n % 2)])], 1);
            metrics.observe(Metric::Latency, &[], n.into());
        }
        let emitted = emitted(&metrics, &json!({"function": "accept"}));
        assert_eq!(emitted.len(), 3);
        let values: Vec<usize> =
            emitted.iter().map(|line| line["latency"].as_array().unwrap().len()).collect();
        assert_eq!(values, [100, 100, 50]);
        let said =
            |name: &str| emitted.iter().map(|line| line[name].as_str().unwrap_or("-")).collect::<Vec<_>>();
        assert_eq!(said("shop_id"), ["A", "B", "-"]);
        assert_eq!(said("function"), ["accept", "-", "-"]);
    }

    /// By the specification: what a line must be for `CloudWatch` to make metrics of it.
    fn is_valid(line: &Value) {
        assert!(line.to_string().len() < 256 << 10);
        assert!(line["_aws"]["Timestamp"].as_u64().unwrap() > 1_700_000_000_000);
        for directive in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
            assert_eq!(directive["Namespace"], "kassa-dev");
            for set in directive["Dimensions"].as_array().unwrap() {
                let set = set.as_array().unwrap();
                let told = |name: &Value| line[name.as_str().unwrap()].as_str().unwrap().len();
                assert!(set.len() <= 30 && set.iter().all(|name| (1..=1_024).contains(&told(name))));
            }
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!((1..=100).contains(&metrics.len()));
            for metric in metrics {
                match &line[metric["Name"].as_str().unwrap()] {
                    Value::Array(values) => assert!((2..=100).contains(&values.len())),
                    value => assert!(value.is_number(), "{metric}: {value}"),
                }
            }
        }
    }

    #[test]
    fn everything_in_the_catalogue_of_two_thousand_sales_is_valid_lines_that_lose_nothing() {
        // given everything there is to say of each of 2,000 sales in one invocation
        let metrics = Metrics::default();
        for n in 0..2_000 {
            for metric in Metric::ours() {
                let dimensions = metric.dimensions().iter().copied().flatten();
                let labels: Vec<_> = dimensions.map(|of| (*of, ["A", "B", "C"][n % 3])).collect();
                match metric.kind() {
                    Kind::Sum => metrics.count_of(metric, &labels, 1),
                    Kind::Value => metrics.observe(metric, &labels, 1.0),
                }
            }
        }
        // when it is written
        let emitted = emitted(&metrics, &json!({"function": "process"}));
        // then CloudWatch can read each line, and all of them together say all
        emitted.iter().for_each(is_valid);
        for metric in Metric::ours() {
            let said = |line: &Value| match &line[metric.name()] {
                Value::Array(values) => values.iter().map(|value| value.as_f64().unwrap()).sum(),
                value => value.as_f64().unwrap_or_default(),
            };
            let whole: f64 = emitted.iter().map(said).sum();
            assert!((whole - 2_000.0).abs() < 1e-9, "{metric:?}: {whole}");
        }
    }

    #[test]
    fn aws_metrics_are_left_to_aws_and_nothing_to_say_is_no_line() {
        let metrics = Metrics::default();
        metrics.count_of(Metric::Invocations, &[(Dimension::FunctionName, "kassa-dev-accept")], 1);
        assert_eq!(emitted(&metrics, &json!({})), [] as [Value; 0]);
        assert_eq!(emitted(&metrics, &json!({"messages": 0})), [json!({"messages": 0})]);
    }
}
