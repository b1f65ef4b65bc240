use super::*;

fn series(values: &[f64]) -> Series {
    let at = |n: i64| Timestamp::from_second(1_800_000_000 + n * 60).unwrap();
    let points = (0..).zip(values).map(|(n, value)| (at(n), *value)).collect();
    Series { label: "a<b".into(), points, period: 60, right: false, ink: Ink::Palette(0) }
}

fn chart(series: &[Series], stacked: bool) -> String {
    let (from, to) = (1_800_000_000, 1_800_003_600);
    let chart = Chart {
        title: "Is it \"well\"?",
        series,
        thresholds: &[Threshold {
            value: 5.0,
            right: true,
            above: Some(true),
            ink: Ink::Given("#d13212".into()),
        }],
        from: Timestamp::from_second(from).unwrap(),
        to: Timestamp::from_second(to).unwrap(),
        left: Bounds::default(),
        right: Bounds::default(),
        stacked,
    };
    chart.draw(300, 200, "wide").into_string()
}

#[test]
fn a_chart_is_escaped_svg_without_styles_that_says_in_words_what_it_shows() {
    let svg = chart(&[series(&[1.0, 4.0, 2.0])], false);
    assert!(
        svg.contains("aria-label=\"Is it &quot;well&quot;?. a&lt;b: 2 at the end, between 1 and 4.\""),
        "{svg}"
    );
    assert!(!svg.contains("style=") && svg.matches("<svg").count() == 1 && svg.ends_with("</svg>"), "{svg}");
    assert!(svg.contains("stroke=\"#010000\"") && svg.contains("stroke=\"#D13212\""), "{svg}");
}

#[test]
fn charts_of_nothing_one_point_and_odd_values_can_be_drawn() {
    for values in [&[][..], &[3.0], &[0.0, 0.0], &[-4.0, 4.0], &[f64::NAN, 1.0, f64::INFINITY], &[1e300, 1.0]]
    {
        for stacked in [false, true] {
            assert!(chart(&[series(values), series(&[1.0])], stacked).contains("<text"), "{values:?}");
        }
    }
}

#[test]
fn one_point_alone_is_seen() {
    for stacked in [false, true] {
        assert!(chart(&[series(&[3.0])], stacked).contains("<circle"), "stacked: {stacked}");
    }
}
