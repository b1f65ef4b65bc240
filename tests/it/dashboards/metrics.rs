use std::collections::{BTreeMap, BTreeSet};

use kassa::monitor::alarms::Watch;
use kassa::monitor::{MetricId, Query, What};
use kassa_bus::metrics::{Metric, Namespace};

use super::{HERE, alarms, file, widgets};

/// The catalogue's metric that this is, if it is published with these dimensions.
fn catalogued(namespace: &str, name: &str, dimensions: &BTreeSet<&str>) -> Option<Metric> {
    let all = Metric::ALL.iter().copied();
    let mut named = all.filter(|metric| match metric.namespace() {
        Namespace::Kassa => namespace == HERE.stack,
        Namespace::Aws(aws) => namespace == aws,
    });
    let metric = named.find(|metric| metric.name() == name)?;
    let with = metric
        .dimensions()
        .iter()
        .any(|set| set.iter().map(|d| d.name()).collect::<BTreeSet<_>>() == *dimensions);
    with.then_some(metric)
}

#[track_caller]
fn of(metric: &MetricId) -> Metric {
    let dimensions = metric.dimensions.keys().map(String::as_str).collect();
    catalogued(&metric.namespace, &metric.name, &dimensions)
        .unwrap_or_else(|| panic!("the catalogue does not have {metric:?}"))
}

/// The metrics that an expression searches for.
#[track_caller]
fn searched(expression: &str) -> Vec<Metric> {
    let read = |search: &str| {
        let (schema, rest) = search.split_once('}').unwrap();
        let schema = schema.replace('"', "");
        let (namespace, dimensions) = schema.split_once(',').unwrap();
        let name = rest.strip_prefix(" MetricName=\"").unwrap().split_once('"').unwrap().0;
        catalogued(namespace, name, &dimensions.split(',').collect())
            .unwrap_or_else(|| panic!("the catalogue does not have {search}"))
    };
    expression.split("SEARCH('{").skip(1).map(read).collect()
}

#[track_caller]
fn shown(queries: &[&Query]) -> Vec<Metric> {
    let read = |query: &&Query| match &query.what {
        What::Metric(metric, _) => vec![of(metric)],
        What::Expression(expression) => searched(expression),
    };
    queries.iter().flat_map(read).collect()
}

/// The ids that an expression calls, and the parts of ids.
fn called(expression: &str) -> (BTreeSet<String>, Vec<String>) {
    let mut parts = Vec::new();
    let mut ids = BTreeSet::new();
    let mut word = String::new();
    // Quoted pieces are every other one.
    for (n, piece) in expression.split('"').enumerate() {
        if n % 2 == 1 {
            parts.push(piece.to_owned());
            continue;
        }
        for c in piece.chars().chain([' ']) {
            if c.is_ascii_alphanumeric() || c == '_' {
                word.push(c);
            } else {
                let id = std::mem::take(&mut word);
                if id.starts_with(|c: char| c.is_ascii_lowercase()) {
                    ids.insert(id);
                }
            }
        }
    }
    (ids, parts)
}

/// Everything that an expression calls must be there, and everything that is there and not shown must be called.
#[track_caller]
fn calls_what_is_there(what: &str, queries: &[&Query]) {
    let expressions: Vec<_> = queries
        .iter()
        .filter_map(|query| match &query.what {
            What::Expression(expression) if !expression.contains("SEARCH(") => Some(called(expression)),
            _ => None,
        })
        .collect();
    let ids: BTreeSet<&str> = queries.iter().map(|query| query.id.as_str()).collect();
    for (called, parts) in &expressions {
        for id in called {
            assert!(ids.contains(id.as_str()), "{what} calls {id}, which is not there");
        }
        for part in parts {
            assert!(ids.iter().any(|id| id.contains(part.as_str())), "{what}: no id contains {part}");
        }
    }
    for query in queries.iter().filter(|query| !query.shown) {
        let called = expressions.iter().any(|(ids, parts)| {
            ids.contains(&query.id) || parts.iter().any(|part| query.id.contains(part.as_str()))
        });
        assert!(called, "{what}: nothing calls {}", query.id);
    }
}

#[test]
fn every_metric_of_a_widget_is_catalogued_with_these_dimensions_and_every_one_catalogued_is_on_a_widget() {
    let mut all = BTreeSet::new();
    for (dashboard, widget) in widgets() {
        let queries: Vec<_> = widget.rows.iter().map(|row| &row.query).collect();
        all.extend(shown(&queries));
        calls_what_is_there(&format!("{dashboard}: {}", widget.title), &queries);
    }
    let lacking: Vec<_> = Metric::ALL.iter().filter(|metric| !all.contains(metric)).collect();
    assert!(lacking.is_empty(), "on no dashboard: {lacking:?}");
}

#[test]
fn every_metric_of_an_alarm_is_catalogued_with_these_dimensions() {
    for alarm in alarms().alarms {
        match &alarm.what {
            Watch::Metric(metric, _) => drop(of(metric)),
            Watch::Math { metrics, expression } => {
                // CloudWatch takes ten, and no search.
                assert!(metrics.len() <= 10 && !expression.contains("SEARCH"), "{}", alarm.name);
                let watched = Query {
                    id: "watched".into(),
                    what: What::Expression(expression.clone()),
                    label: None,
                    period: alarm.period,
                    shown: true,
                };
                let queries: Vec<_> = metrics.iter().chain([&watched]).collect();
                shown(&queries);
                calls_what_is_there(&alarm.name, &queries);
            }
        }
    }
}

#[test]
fn the_dashboards_prices_are_those_of_kassa_cost() {
    let cost: toml::Table = file("src/cost/cost.toml").parse().unwrap();
    let price = |of: &str| {
        let price = &cost["prices"][of];
        format!("{} / {}", price["dollars"].as_str().unwrap(), price["per"].as_integer().unwrap())
    };
    let dollars = |of: &str| cost["prices"][of]["dollars"].as_str().unwrap();
    let each = |of: &str| cost["measured"]["sealed"][of].as_str().unwrap();
    let lambda = format!(
        "FILL(SUM(METRICS(\"calls_\")), 0) * {} + (FILL(SUM(METRICS(\"mb128_\")), 0) * 128 \
         + FILL(SUM(METRICS(\"mb256_\")), 0) * 256) / 1024 / 1000 * {}",
        price("lambda_invocations"),
        dollars("lambda_gb_seconds")
    );
    let tables = format!(
        "FILL(SUM(METRICS(\"writes_\")), 0) * {} + FILL(SUM(METRICS(\"reads_\")), 0) * {}",
        price("dynamodb_wru"),
        price("dynamodb_rru")
    );
    // These are not metered by metrics: what was measured of a sale stands for them.
    let messages = format!(
        "FILL(accepted, 0) * ({} * {} + {} * {}) / 1000000",
        each("sns_publishes"),
        dollars("sns_publishes"),
        each("sqs_requests"),
        dollars("sqs_requests")
    );
    let expected = BTreeMap::from([
        ("dollars_api", format!("FILL(requests, 0) * {}", price("api_requests"))),
        ("dollars_lambda", lambda),
        ("dollars_tables", tables),
        ("dollars_messages", messages),
        ("dollars_kms", format!("FILL(unwraps, 0) * {}", price("kms_requests"))),
        ("dollars_logs", format!("FILL(accepted, 0) * {} * {}", each("log_bytes"), price("log_bytes"))),
    ]);
    let costs =
        widgets().filter(|(_, widget)| widget.title.contains("cost") && widget.title.contains("in dollars"));
    let mut found = 0;
    for (_, widget) in costs {
        let said: BTreeMap<_, _> = widget
            .rows
            .iter()
            .filter_map(|row| match &row.query.what {
                What::Expression(e) if row.query.id.starts_with("dollars_") => {
                    Some((row.query.id.as_str(), e.clone()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(said, expected, "{}", widget.title);
        found += 1;
    }
    assert_eq!(found, 2);
}
