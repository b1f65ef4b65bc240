use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Metrics by their names, a value a minute from time 0; `-` is none.
struct Metrics(BTreeMap<&'static str, &'static str>);

impl Data for Metrics {
    fn points(&self, metric: &MetricId, _: Stat, range: Range) -> Points {
        let values = self.0.get(metric.name.as_str()).copied().unwrap_or_default().split_whitespace();
        let points =
            values.zip(0i64..).filter_map(|(value, minute)| Some((minute * 60, value.parse().ok()?)));
        points.filter(|(at, _)| (range.from..range.to).contains(at)).collect()
    }

    fn search(&self, search: &Search) -> Vec<MetricId> {
        self.0.keys().map(|name| metric(name)).filter(|metric| search.finds(metric)).collect()
    }
}

fn metric(name: &str) -> MetricId {
    let dimensions = BTreeMap::from([("shop_id".to_owned(), name.to_uppercase())]);
    MetricId { namespace: "kassa-local".into(), name: name.into(), dimensions }
}

fn query(id: &str, what: What) -> Query {
    let shown = matches!(what, What::Expression(_));
    Query { id: id.into(), what, label: None, period: 60, shown }
}

/// What an expression comes to over five minutes, given metrics `a`, `b`, … with such values.
fn comes_to(given: &[(&'static str, &'static str)], expression: &str) -> Result<Vec<String>, String> {
    let mut queries: Vec<Query> =
        given.iter().map(|(name, _)| query(name, What::Metric(metric(name), Stat::Sum))).collect();
    queries.push(query("e", What::Expression(expression.into())));
    answers(given, &queries)
}

fn answers(given: &[(&'static str, &'static str)], queries: &[Query]) -> Result<Vec<String>, String> {
    let time = |at| Timestamp::from_second(at).unwrap();
    let ask = Ask { queries, from: time(0), to: time(300), rounded: true };
    let lines = answer(ask, &Metrics(given.iter().copied().collect())).map_err(|error| error.to_string())?;
    let value = |line: &Line, at| line.points.iter().find(|(t, _)| *t == time(at)).map(|(_, value)| *value);
    let shown = |line: &Line| {
        let values = (0..5).map(|minute| value(line, minute * 60).map_or("-".into(), |v| v.to_string()));
        values.collect::<Vec<_>>().join(" ")
    };
    Ok(lines.iter().map(shown).collect())
}

#[track_caller]
fn is(given: &[(&'static str, &'static str)], expression: &str, expected: &[&str]) {
    assert_eq!(comes_to(given, expression).unwrap(), expected, "{expression}");
}

#[track_caller]
fn fails(expression: &str, why: &str) {
    let told = comes_to(&[("a", "1 2"), ("b", "3 4")], expression).unwrap_err();
    assert!(told.contains(why), "{expression}: {told}");
}

#[test]
fn between_series_what_only_one_has_meets_a_zero_and_nothing_is_divided_by_zero() {
    let given = [("a", "1 2 - 4 -"), ("b", "10 - 30 0 -")];
    is(&given, "a + b", &["11 2 30 4 -"]);
    is(&given, "a - b", &["-9 2 -30 4 -"]);
    is(&given, "b / a", &["10 0 - 0 -"]);
    is(&given, "100 * a / 4 - 1", &["24 49 - 99 -"]);
    is(&given, "-a ^ 2", &["-1 -4 - -16 -"]);
}

#[test]
fn the_documentations_table_of_comparisons() {
    let given = [("a", "30 20 0 0"), ("b", "20 - 20 -")];
    is(&given, "a < b", &["0 0 1 0 -"]);
    is(&given, "a >= 30", &["1 0 0 0 -"]);
    is(&given, "a > 15 AND b > 15", &["1 0 0 0 -"]);
    is(&given, "a == 0 || b == 20", &["1 0 1 1 -"]);
}

#[test]
fn the_documentations_tables_of_if() {
    let given = [("a", "1 1 0 0 -"), ("b", "30 - 0 0 30"), ("c", "0 0 20 - 20")];
    is(&given, "IF(a, b, c)", &["30 0 20 - -"]);
    is(&given, "IF(a, 5, c)", &["5 5 20 - -"]);
    is(&given, "IF(a, b, 5)", &["30 0 5 5 -"]);
    is(&given, "IF(a, b)", &["30 0 - - -"]);
    is(&given, "IF(1, b, c)", &["30 - 0 0 30"]);
    is(&given, "IF(0, b, c)", &["0 0 20 - 20"]);
    is(&given, "IF(0, b)", &["- - - - -"]);
}

#[test]
fn what_is_missing_can_be_filled() {
    let given = [("a", "- 1 - - 4"), ("b", "")];
    is(&given, "FILL(a, 7)", &["7 1 7 7 4"]);
    is(&given, "FILL(a, REPEAT)", &["- 1 1 1 4"]);
    is(&given, "FILL(b, 0)", &["0 0 0 0 0"]);
    is(&given, "FILL(METRICS(), 0)", &["0 1 0 0 4", "0 0 0 0 0"]);
    is(&given, "FILL(a, MAX(a))", &["4 1 4 4 4"]);
}

#[test]
fn a_list_is_reduced_at_each_time_and_a_series_to_a_number() {
    let given = [("a", "1 2 - 4 -"), ("b", "10 - 30 0 -")];
    is(&given, "SUM([a, b])", &["11 2 30 4 -"]);
    is(&given, "MAX(METRICS())", &["10 2 30 4 -"]);
    is(&given, "MIN([a, b])", &["1 2 30 0 -"]);
    is(&given, "AVG([a, b])", &["5.5 1 15 2 -"]);
    is(&given, "a / SUM(a)", &[&format!("{} {} - {} -", 1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0)]);
    is(&given, "TIME_SERIES(MIN(b))", &["0 0 0 0 0"]);
    is(&given, "SUM(METRICS(\"b\")) * METRIC_COUNT(METRICS())", &["20 - 60 0 -"]);
    is(&given, "METRICS(\"none\")", &[]);
    is(&[("a", "")], "a / MAX(a)", &["- - - - -"]);
}

#[test]
fn there_are_rates_running_sums_and_orders() {
    let given = [("a", "60 120 - 0"), ("b", "1 1 1 1 1"), ("c", "")];
    is(&given, "RATE(a)", &["- 1 - -1 -"]);
    is(&given, "DIFF(a)", &["- 60 - -120 -"]);
    is(&given, "RUNNING_SUM(b)", &["1 2 3 4 5"]);
    is(&given, "b * PERIOD(b)", &["60 60 60 60 60"]);
    is(&given, "REMOVE_EMPTY(SORT(METRICS(), SUM, ASC))", &["1 1 1 1 1", "60 120 - 0 -"]);
    is(&given, "SORT(METRICS(), MAX, DESC, 1)", &["60 120 - 0 -"]);
    is(&given, "CEIL(ABS(-b / 2))", &["1 1 1 1 1"]);
}

#[test]
fn a_search_finds_what_there_is_and_nothing_has_a_quota() {
    let given = [("a", "1"), ("b", "2")];
    is(&given, r#"SEARCH('{"kassa-local","shop_id"} MetricName="b"', 'Sum', 60)"#, &["2 - - - -"]);
    is(&given, r#"SUM(SEARCH('{"kassa-local","shop_id"}', 'Sum'))"#, &["3 - - - -"]);
    is(&given, "100 * a / SERVICE_QUOTA(a)", &["- - - - -"]);
}

#[test]
fn expressions_are_made_of_expressions() {
    let queries = [
        query("a", What::Metric(metric("a"), Stat::Sum)),
        query("share", What::Expression("100 * part / a".into())),
        Query { shown: false, ..query("part", What::Expression("a / 2".into())) },
    ];
    assert_eq!(answers(&[("a", "1 2")], &queries).unwrap(), ["50 50 - - -"]);
}

#[test]
fn what_is_wrong_is_told() {
    fails("a +", "e: \"a +\" at character 4");
    fails("nobody", "there is no nobody");
    fails("e + 1", "e needs itself");
    fails("SUM(a)", "TIME_SERIES");
    fails("SUM(1)", "SUM: a series is needed");
    fails("FILL(a, b)", "FILL: a number is needed");
    fails("FILL(a)", "FILL: these are not its arguments");
    fails("TURNOVER(a)", "no such function here");
    fails("[a] + [b]", "two lists");
    fails("SEARCH('', 'Sum', 60)", "searches for nothing");
    fails("SEARCH('a', 'Mean', 60)", "no statistic");
    fails("SEARCH('a', 'Sum', 61)", "no number of minutes");
    fails("'a'", "has no value");
}

proptest! {
    #[test]
    fn nothing_that_can_be_read_makes_it_panic(
        text in r"(([-+*/<]|==|,|AND|)(a|b|0|2\.5|SUM\([ab]\)|FILL\([ab],(0|REPEAT)\)|\[a,b\]|IF\([ab],[ab],1\)|MAX\(METRICS\(\)\))){1,8}"
    ) {
        let _ = comes_to(&[("a", "0 -1 - 1e300"), ("b", "")], &text);
    }
}
