//! The dashboards, the alarms and their runbook: that they say what there is, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::Parser;
use kassa::args::Cli;
use kassa::monitor::alarms::{Alarms, Watch};
use kassa::monitor::dashboard::{BODIES, Content, Dashboard, Metrics, View, Widget};
use kassa::monitor::placeholders::Placeholders;
use kassa::monitor::{MetricId, Query, What};
use kassa_bus::metrics::{Metric, Namespace};
use serde_json::{Value, json};

const HERE: Placeholders<'_> =
    Placeholders { stack: "kassa-dev", region: "eu-west-1", account: "123456789012", api: "a1b2c3" };

fn dashboards() -> impl Iterator<Item = (&'static str, Dashboard)> {
    BODIES.iter().map(|(name, _)| (*name, Dashboard::named(name, &HERE).unwrap().unwrap()))
}

fn widgets() -> impl Iterator<Item = (&'static str, Metrics)> {
    dashboards().flat_map(|(name, dashboard)| {
        dashboard.widgets.into_iter().filter_map(move |widget| match widget.content {
            Content::Metrics(metrics) => Some((name, *metrics)),
            _ => None,
        })
    })
}

fn alarms() -> Alarms {
    Alarms::of(&HERE).unwrap()
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

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
fn widgets_stand_on_the_grid_and_not_on_each_other() {
    let covers = |a: &Widget, b: &Widget| {
        a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
    };
    for (name, Dashboard { widgets, .. }) in dashboards() {
        for (n, widget) in widgets.iter().enumerate() {
            if let Some(other) = widgets[..n].iter().find(|other| covers(widget, other)) {
                panic!("{name}: {widget:?} stands on {other:?}");
            }
        }
        // Rows that are full leave no holes.
        let area: u32 = widgets.iter().map(|widget| widget.width * widget.height).sum();
        let height = widgets.iter().map(|widget| widget.y + widget.height).max().unwrap();
        assert_eq!(area, 24 * height, "{name} has holes");
    }
}

#[test]
fn a_dashboard_is_within_the_documented_limits() {
    for (name, Dashboard { widgets, .. }) in dashboards() {
        assert!(widgets.len() <= 500, "{name}");
        let rows = |widget: &Widget| match &widget.content {
            Content::Metrics(metrics) => metrics.rows.len(),
            Content::Alarms { alarms, .. } => {
                assert!((1..=100).contains(&alarms.len()), "{name}");
                0
            }
            Content::Text { .. } => 0,
        };
        assert!(widgets.iter().map(rows).max().unwrap() <= 500, "{name}");
        assert!(widgets.iter().map(rows).sum::<usize>() <= 500, "{name}");
        for widget in &widgets {
            let Content::Metrics(metrics) = &widget.content else { continue };
            for query in metrics.rows.iter().map(|row| &row.query) {
                // CloudWatch keeps minutes; a search's own text has at most 1,024 characters.
                assert_eq!(query.period % 60, 0, "{}", metrics.title);
                assert!(query.id.starts_with(|c: char| c.is_ascii_lowercase()), "{}", query.id);
                assert!(!matches!(&query.what, What::Expression(e) if e.len() > 1_024), "{}", metrics.title);
            }
            // A number or table of a minute's metric over more points than a response has would be cut off.
            assert!(metrics.view != View::Table || metrics.span.is_some(), "{}", metrics.title);
        }
    }
}

#[test]
fn every_widget_asks_a_question_and_every_dashboard_says_what_to_run() {
    for (name, Dashboard { widgets, .. }) in dashboards() {
        let mut titles = BTreeSet::new();
        let mut commands = 0;
        for widget in widgets {
            let title = match widget.content {
                Content::Metrics(metrics) => metrics.title,
                Content::Alarms { title, .. } => title,
                Content::Text { markdown } => {
                    commands += kassa(&markdown).len();
                    continue;
                }
            };
            assert!(title.ends_with('?'), "{name}: {title}");
            assert!(titles.insert(title.clone()), "{name}: {title} is asked twice");
        }
        assert!(commands >= 2, "{name} says no commands");
    }
}

#[test]
fn alarms_on_dashboards_are_alarms_and_ict_sees_them_all() {
    let alarms = alarms();
    let all: BTreeSet<_> =
        alarms.alarms.iter().map(|a| &a.name).chain(alarms.composites.iter().map(|c| &c.name)).collect();
    for (name, Dashboard { widgets, .. }) in dashboards() {
        for widget in widgets {
            let Content::Alarms { alarms, .. } = widget.content else { continue };
            let shown: BTreeSet<_> = alarms.iter().collect();
            assert!(shown.is_subset(&all), "{name}: {shown:?}");
            assert!(name != "operations" || shown == all, "{:?}", all.difference(&shown));
        }
    }
}

#[test]
fn an_alarm_tells_people_by_itself_or_by_one_composite() {
    let Alarms { alarms, composites } = alarms();
    for alarm in &alarms {
        let spoken_for = composites.iter().filter(|c| c.any.contains(&alarm.name)).count();
        assert_eq!(spoken_for, usize::from(!alarm.actions), "{}", alarm.name);
        assert!(!alarm.why_missing.is_empty(), "{}", alarm.name);
        // CloudWatch evaluates a day at most.
        assert!(alarm.period * alarm.evaluation_periods <= 86_400, "{}", alarm.name);
    }
    for composite in &composites {
        assert_eq!(composite.suppressed_by.is_some(), composite.name != "shop-is-down", "{}", composite.name);
        assert!(!composite.any.is_empty());
    }
}

#[test]
fn what_an_alarm_says_is_short_enough_and_its_command_is_one() {
    let Alarms { alarms, composites } = alarms();
    let alarms = alarms.iter().map(|a| (&a.name, &a.run, a.description()));
    for (name, run, description) in
        alarms.chain(composites.iter().map(|c| (&c.name, &c.run, c.description())))
    {
        // What CloudWatch takes; the address of the runbook may be longer than its place here.
        assert!(description.chars().count() <= 1_024 - 200, "{name}");
        runs(run);
    }
}

#[test]
fn the_runbook_has_a_section_for_each_alarm_that_begins_with_its_command() {
    let runbook = file("docs/runbook.md");
    let sections: BTreeMap<&str, &str> =
        runbook.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let Alarms { alarms, composites } = alarms();
    let named: BTreeMap<&str, &str> = alarms
        .iter()
        .map(|a| (a.name.as_str(), a.run.as_str()))
        .chain(composites.iter().map(|c| (c.name.as_str(), c.run.as_str())))
        .collect();
    for (name, run) in &named {
        let section = sections.get(name).unwrap_or_else(|| panic!("the runbook has no section {name}"));
        let first = section.split("```\n").nth(1).unwrap_or_else(|| panic!("{name}: no command"));
        assert_eq!(first.trim(), *run, "{name}");
    }
    let others: Vec<_> = sections.keys().filter(|name| !named.contains_key(*name)).collect();
    assert_eq!(others, [&"Which message comes when"]);
    for link in runbook.split("](#").skip(1) {
        let to = link.split_once(')').unwrap().0;
        assert!(named.contains_key(to), "the runbook links to {to}");
    }
}

#[test]
fn the_commands_in_runbook_and_dashboards_are_ones_that_kassa_takes() {
    let mut found = kassa(&file("docs/runbook.md"));
    assert!(found.len() > 20);
    for (_, Dashboard { widgets, .. }) in dashboards() {
        for widget in widgets {
            if let Content::Text { markdown } = widget.content {
                found.extend(kassa(&markdown));
            }
        }
    }
    for command in found {
        runs(&command);
    }
}

/// The commands of ours in a text: whatever is marked as code and begins with `kassa`.
fn kassa(text: &str) -> Vec<String> {
    let blocks = text.split("```").enumerate();
    let code = blocks.flat_map(|(n, block)| {
        let code: Vec<&str> = match n % 2 {
            1 => block.lines().collect(),
            _ => block.split('`').skip(1).step_by(2).collect(),
        };
        code
    });
    code.filter(|code| code.starts_with("kassa "))
        .map(|code| code.replace("<sale_id>", "1-20261122"))
        .collect()
}

#[track_caller]
fn runs(command: &str) {
    if let Err(why) = Cli::try_parse_from(command.split_whitespace()) {
        panic!("{command}: {why}");
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

fn body(change: impl FnOnce(&mut Value)) -> Result<Dashboard, String> {
    let mut body = json!({"start": "-PT3H", "periodOverride": "inherit", "widgets": [{
        "type": "metric", "x": 0, "y": 0, "width": 24, "height": 6,
        "properties": {"title": "?", "view": "timeSeries", "region": "${region}", "stat": "Sum", "period": 60,
            "metrics": [
                ["AWS/Lambda", "Errors", "FunctionName", "${stack}-accept", {"id": "a"}],
                [".", "Throttles", ".", ".", {"stat": "Maximum", "yAxis": "right"}],
                [{"expression": "a + 1", "label": "more"}],
            ]},
    }]});
    change(&mut body);
    Dashboard::read(&body.to_string(), &HERE)
}

#[test]
fn rows_are_written_out_with_their_widgets_defaults() {
    let dashboard = body(|_| ()).unwrap();
    assert_eq!(dashboard.span, 3 * 3_600);
    let Content::Metrics(metrics) = &dashboard.widgets[0].content else { panic!("metrics") };
    let told: Vec<_> = metrics.rows.iter().map(|row| (row.query.id.as_str(), &row.query.what)).collect();
    let [
        ("a", What::Metric(errors, _)),
        ("row1", What::Metric(throttles, stat)),
        ("row2", What::Expression(more)),
    ] = told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(errors.dimensions["FunctionName"], "kassa-dev-accept");
    assert_eq!((throttles.name.as_str(), &throttles.dimensions), ("Throttles", &errors.dimensions));
    assert_eq!((String::from(*stat).as_str(), more.as_str()), ("Maximum", "a + 1"));
}

#[test]
fn what_is_not_drawn_here_is_refused_and_named() {
    let refused = |change: fn(&mut Value), why: &str| {
        let told = body(change).unwrap_err();
        assert!(told.contains(why), "{told}");
    };
    refused(|b| b["surprise"] = json!(1), "surprise");
    refused(
        |b| b["widgets"][0]["properties"]["liveData"] = json!(true),
        "widget 0: unknown field `liveData`",
    );
    refused(|b| b["widgets"][0]["properties"]["view"] = json!("pie"), "pie");
    refused(|b| b["widgets"][0]["type"] = json!("explorer"), "explorer");
    refused(|b| b["widgets"][0]["x"] = json!(1), "outside the 24 columns");
    refused(|b| b["widgets"][0]["properties"]["start"] = json!("2026-11-22"), "no time before now");
    refused(|b| b["widgets"][0]["properties"]["metrics"][0] = json!([".", "a"]), "nothing above");
    refused(|b| b["widgets"][0]["properties"]["metrics"][1] = json!(["...", "b"]), "three dots");
    refused(|b| b["widgets"][0]["properties"]["metrics"][1][4]["id"] = json!("a"), "one id");
    refused(|b| b["widgets"][0]["properties"]["title"] = json!("${shop}"), "no placeholder");
    refused(|b| b["widgets"][0]["properties"]["stat"] = json!("Mode"), "no statistic");
}
