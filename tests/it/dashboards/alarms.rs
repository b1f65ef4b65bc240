use std::collections::{BTreeMap, BTreeSet};

use kassa::monitor::What;
use kassa::monitor::alarms::{Alarm, Alarms, Watch};
use kassa::monitor::dashboard::{Content, Dashboard};

use super::{HERE, alarms, dashboards, file, kassa, runs, widgets};

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
        // CloudWatch keeps our metrics by the minute, and evaluates a day at most; a week, of periods of an hour or more.
        let most = if alarm.period < 3_600 { 86_400 } else { 604_800 };
        assert!(
            alarm.period.is_multiple_of(60) && alarm.period * alarm.evaluation_periods <= most,
            "{}",
            alarm.name
        );
    }
    for composite in &composites {
        assert_eq!(composite.suppressed_by.is_some(), composite.name != "shop-is-down", "{}", composite.name);
        // What a rule takes: so many alarms, and so many characters.
        let rule: usize =
            composite.any.iter().map(|name| format!("ALARM(\"{}-{name}\") OR ", HERE.stack).len()).sum();
        assert!((1..=100).contains(&composite.any.len()) && rule <= 10_240, "{}", composite.name);
        let suppressed = composite.suppressed_by.is_some();
        assert!(!suppressed || (composite.wait > 0 && composite.extension > 0), "{}", composite.name);
    }
}

/// The names of the metrics that an alarm watches, and its expression.
fn watched(alarm: &Alarm) -> (Vec<&str>, Option<&str>) {
    match &alarm.what {
        Watch::Metric(metric, _) => (vec![&metric.name], None),
        Watch::Math { metrics, expression } => {
            let names = metrics.iter().filter_map(|query| match &query.what {
                What::Metric(metric, _) => Some(metric.name.as_str()),
                What::Expression(_) => None,
            });
            (names.collect(), Some(expression))
        }
    }
}

#[test]
fn a_line_across_a_widget_is_where_an_alarm_goes_off() {
    let Alarms { alarms, .. } = alarms();
    let mut lines = 0;
    for (_, widget) in widgets() {
        // All that the widget says: names within searches, too.
        let said: Vec<String> = widget.rows.iter().map(|row| format!("{:?}", row.query.what)).collect();
        let shows = |name: &str| said.iter().any(|what| what.contains(name));
        for threshold in &widget.thresholds {
            let alarm = |alarm: &&Alarm| {
                #[expect(
                    clippy::float_cmp,
                    reason = "both are read from a file and neither is reckoned with"
                )]
                let same = alarm.threshold == threshold.value;
                same && watched(alarm).0.into_iter().all(shows)
            };
            assert!(alarms.iter().any(|a| alarm(&a)), "{}: {}", widget.title, threshold.value);
            lines += 1;
        }
    }
    assert!(lines >= 4);
}

#[test]
fn how_near_kms_is_to_its_quota_is_reckoned_as_its_alarm_does() {
    let Alarms { alarms, .. } = alarms();
    let alarm = alarms.iter().find(|alarm| alarm.name == "kms-quota").unwrap();
    let (_, expression) = watched(alarm);
    let said = What::Expression(expression.unwrap().to_owned());
    assert!(widgets().any(|(_, widget)| widget.rows.iter().any(|row| row.query.what == said)));
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
    assert_eq!(
        others,
        [
            &"Hearing more from a function",
            &"Put back what is gone",
            &"Rehearse it",
            &"Something was lost or damaged",
            &"Something was stolen",
            &"Which message comes when",
            &"Who may restore"
        ]
    );
    for link in runbook.split("](#").skip(1) {
        let to = link.split_once(')').unwrap().0;
        let section = |name: &&&str| name.to_lowercase().replace(' ', "-") == to;
        let known = named.contains_key(to) || others.iter().any(section);
        assert!(known, "the runbook links to {to}");
    }
}

#[test]
fn many_rejected_sales_want_what_their_reason_wants() {
    let runbook = file("docs/runbook.md");
    let section = runbook.split("\n## rejected-share\n").nth(1).unwrap().split("\n## ").next().unwrap();
    for reason in kassa_bus::message::Reason::ALL {
        assert!(section.contains(&format!("`{reason}`")), "nothing is said of {reason}");
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
