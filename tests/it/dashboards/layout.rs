use std::collections::BTreeSet;

use kassa::monitor::What;
use kassa::monitor::dashboard::{Content, Dashboard, View, Widget};
use serde_json::{Value, json};

use super::{HERE, dashboards, kassa};

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
