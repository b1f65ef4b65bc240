//! Whether the shop is all right, on one screen: what is told, and how it looks.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use async_trait::async_trait;
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use kassa::monitor::alarms::Severity;
use kassa::monitor::{AlarmStatus, Line, Monitor, MonitorError, Query, Stat, State, What};
use kassa::status::{
    Alarm, Cost, Day, Health, Hop, OpenIncident, Paper, Queue, Standing, Status, View, headline, line, look,
    render,
};
use serde_json::Value;

use crate::common::process::{Up, command, json, kassa};
use crate::common::world::{NOON, World, uuid};

const NOW: &str = "2026-11-22T14:03:12Z";

fn ago(seconds: i64) -> Timestamp {
    NOW.parse::<Timestamp>().unwrap() - SignedDuration::from_secs(seconds)
}

fn hop(name: &str, per_minute: f64, p50: f64, waiting: Option<f64>) -> Hop {
    let queue = Queue { waiting, oldest_seconds: Some(1.4), dead_letters: Some(0.0) };
    let queue = (name != "accept").then_some(queue);
    Hop { name: name.into(), per_minute, failed: 0.0, p50: Some(p50), p99: Some(p50 * 4.1), queue }
}

fn alarm(name: &str, severity: Severity, state: State) -> Alarm {
    Alarm {
        name: name.into(),
        severity,
        title: format!("The title of {name}"),
        state,
        since: ago(780),
        why: "Measured in the last 5 minutes: nothing, nothing, nothing, 3, 3. It goes off at 1 or more, 2 times of these.".into(),
        meaning: format!("What {name} means: something that somebody has to look at, and why it matters to the shop."),
        run: (severity == Severity::Warning).then(|| format!("kassa check --about {name}")),
        runbook: format!("docs/runbook.md#{name}"),
    }
}

fn shop(n: u64) -> Standing {
    let day = |sales: u64| Day { sales, turnover: (sales.cast_signed() * 13).into() };
    Standing {
        shop_id: format!("AMIS{n}").parse().unwrap(),
        name: format!("Shop {n}"),
        time_zone: "Europe/Amsterdam".into(),
        last_sale: Some(ago(7 + n.cast_signed() * 41)),
        today: day(1_204 + n * 300),
        last_week: Some(day(2_310)),
        sales_this_month: 30_000,
    }
}

/// A shop that sells, with so many branches.
fn well(shops: u64) -> Status {
    Status {
        unreadable: Vec::new(),
        place: "kassa-prod, eu-west-1".into(),
        reach: String::new(),
        at: ago(0),
        open: true,
        health: Some(Health {
            hops: vec![
                hop("accept", 120.2, 12.0, None),
                hop("decrypt", 118.0, 812.0, Some(3.0)),
                hop("process", 118.0, 640.0, Some(0.0)),
                hop("project", 118.2, 4_100.0, None),
            ],
            subscribers: vec![
                hop("bad-key-auditor", 0.2, 900.0, Some(0.0)),
                hop("warehouse-webhook", 118.0, 21_000.0, Some(61.0)),
            ],
            pending: Some(3.0),
            pending_seconds: Some(12.0),
            recorded: (0..60_u32).map(|n| f64::from(n % 17) * 9.0).collect(),
            alarms: vec![
                alarm("dead-letters", Severity::Critical, State::Ok),
                alarm("latency", Severity::Warning, State::Ok),
            ],
            not_deployed: Vec::new(),
        }),
        shops: (1..=shops).map(shop).collect(),
        attention: Vec::new(),
        incidents: Vec::new(),
        cost: Cost { today: "0.41".parse().unwrap(), this_month: "7.9".parse().unwrap(), counted: true },
    }
}

/// One of which everything is broken.
fn ill() -> Status {
    let mut status = well(2);
    let health = status.health.as_mut().unwrap();
    for hop in health.hops.iter_mut().chain(&mut health.subscribers) {
        (hop.failed, hop.p50, hop.p99) = (31.0, Some(61_000.0), Some(412_000.0));
        hop.queue = hop.queue.as_ref().map(|_| Queue {
            waiting: Some(18_204.0),
            oldest_seconds: Some(4_000.0),
            dead_letters: Some(117.0),
        });
    }
    (health.pending, health.pending_seconds) = (Some(18_230.0), Some(4_100.0));
    health.alarms = vec![
        alarm("latency", Severity::Warning, State::Alarm),
        alarm("shop-down", Severity::Critical, State::Alarm),
        alarm("dead-letters", Severity::Critical, State::Alarm),
        alarm("errors", Severity::Critical, State::InsufficientData),
    ];
    health.not_deployed = vec!["kms-quota".into()];
    status.incidents.push(OpenIncident {
        shop_id: "AMIS2".parse().unwrap(),
        reason: "wrong-key".into(),
        since: ago(9_000),
        sales: 1_203,
    });
    status
}

const PAPER: Paper = Paper { width: 100, colour: false };

/// What is on paper without its colours.
fn bare(text: &str) -> String {
    console::strip_ansi_codes(text).into_owned()
}

#[test]
fn all_is_well_where_nothing_has_gone_off() {
    let status = well(2);
    assert!(status.is_well());
    let text = render(&status, PAPER);
    for said in
        ["● All is well. 2 alarms watch, none has gone off.", "till ────────▶ accept", "AMIS2", "$7.90"]
    {
        assert!(text.contains(said), "{said} in\n{text}");
    }
    // A shop's row is its today against a week ago: 1,804 sales of 2,310 are nine parts of twelve.
    assert!(text.contains("█████████▎··  1,804  23,452.00       2,310"), "{text}");
    assert!(line(&status).starts_with("2026-11-22T14:03:12Z All is well."));
}

#[test]
fn what_is_wrong_comes_first_with_since_when_and_what_mends_it() {
    let status = ill().reached_by(" --stage prod");
    assert!(!status.is_well());
    let text = render(&status, PAPER);
    let told: Vec<&str> = text.lines().collect();
    // The worst is the headline; of those that are as bad, the one that stands first.
    assert_eq!(told[2], "  ✖ The title of shop-down, and 2 more alarms since 13:50 UTC (13 min)");
    let place = |said: &str| text.find(said).unwrap_or_else(|| panic!("{said} in\n{text}"));
    assert!(place("✖ shop-down") < place("✖ dead-letters") && place("✖ dead-letters") < place("▲ latency"));
    assert!(place("▲ latency") < place("till ─"));
    // Where this very status is what to run, the runbook goes on.
    for said in [
        "see: docs/runbook.md#shop-down",
        "run: kassa check --about latency --stage prod",
        "kms-quota",
        "wrong-key",
    ] {
        place(said);
    }
    assert!(!text.contains("✖ errors"), "it has not gone off:\n{text}");
    assert!(
        line(&status).contains("shop-down, and 2 more alarms since 2026-11-22T13:50:12Z"),
        "{}",
        line(&status)
    );
}

#[test]
fn many_alarms_take_a_line_each() {
    let mut status = ill();
    let names: Vec<String> = (0..20).map(|n| format!("alarm-{n}")).collect();
    let alarms = names.iter().map(|name| alarm(name, Severity::Warning, State::Alarm)).collect();
    status.health.as_mut().unwrap().alarms = alarms;
    let text = render(&status, PAPER);
    for name in names {
        assert!(
            text.contains(&format!("▲ {name}  since 13:50 UTC (13 min)  run: kassa check --about {name}\n")),
            "{text}"
        );
    }
}

#[test]
fn without_alarms_to_watch_it_nobody_says_that_all_is_well() {
    let mut status = well(2);
    status.health.as_mut().unwrap().alarms.clear();
    assert!(!status.is_well());
    assert!(render(&status, PAPER).contains("Nobody watches the shop"));
    let mut status = well(2);
    for alarm in &mut status.health.as_mut().unwrap().alarms {
        alarm.state = State::InsufficientData;
    }
    assert!(status.is_well());
    assert!(render(&status, PAPER).contains("Its alarms have seen nothing yet."));
}

#[test]
fn a_closed_shop_is_not_well_and_has_its_books() {
    let status = Status { open: false, health: None, ..well(2) }.reached_by(" --data /srv/shop");
    assert!(!status.is_well());
    let text = render(&status, PAPER);
    for said in
        ["✖ The shop is closed: it takes no sales.", "run: kassa up --data /srv/shop", "AMIS1", "1,504"]
    {
        assert!(text.contains(said), "{said} in\n{text}");
    }
    assert!(!text.contains("till ─"), "{text}");
}

#[test]
fn an_open_incident_is_told_though_no_alarm_has_gone_off() {
    let mut status = well(2);
    status.incidents = ill().incidents;
    assert!(!status.is_well(), "the exit code is that of the first line's mark");
    let text = render(&status.reached_by(" --stage prod"), PAPER);
    for said in [
        "▲ Sales of AMIS2 are rejected (wrong-key) since 12:33 CET (2 h)",
        "run: kassa audit keys --shop AMIS2 --stage prod",
    ] {
        assert!(text.contains(said), "{said} in\n{text}");
    }
}

#[test]
fn every_command_that_is_told_is_one() {
    let mut rejected = well(2);
    rejected.incidents = ill().incidents;
    rejected.incidents[0].reason = "malformed".into();
    let mut wrong_key = well(2);
    wrong_key.incidents = ill().incidents;
    let closed = Status { open: false, health: None, ..well(2) };
    for (status, reach) in
        [(rejected, " --stage prod"), (wrong_key, " --stage prod"), (closed, " --data /srv/shop")]
    {
        let run = headline(&status.reached_by(reach)).run.unwrap();
        let words = run.split('|').next().unwrap().split_whitespace();
        assert!(kassa::args::Cli::try_parse_from(words).is_ok(), "{run}");
    }
}

#[test]
fn it_fits_the_paper_however_wide_and_colours_change_nothing_else() {
    for status in [well(0), well(2), well(40), ill()] {
        for width in [40, 60, 80, 100, 200] {
            let plain = render(&status, Paper { width, colour: false });
            assert!(plain.lines().all(|line| console::measure_text_width(line) <= width), "{width}\n{plain}");
            assert!(!plain.contains('\u{1b}'));
            let coloured = render(&status, Paper { width, colour: true });
            assert!(coloured.contains('\u{1b}'));
            assert_eq!(bare(&coloured), plain);
        }
    }
}

#[test]
fn a_narrow_terminal_has_every_step_and_whole_commands() {
    let mut status = ill();
    status.incidents.clear();
    let text = render(&status.reached_by(" --stage prod"), Paper { width: 60, colour: false });
    let way = text.lines().find(|line| line.contains("till ─")).unwrap();
    assert!(way.ends_with("▶ project"), "{text}");
    let said: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for whole in [
        "run: kassa check --about latency --stage prod",
        "Measured in the last 5 minutes: nothing, nothing, nothing, 3, 3. It goes off at 1 or more, 2 times of these.",
    ] {
        assert!(said.contains(whole), "{whole} in\n{text}");
    }
}

#[test]
fn forty_shops_are_on_one_screen_each_with_its_last_sale() {
    let text = render(&well(40), PAPER);
    for n in 1..=40 {
        assert!(text.contains(&format!("AMIS{n} ")), "AMIS{n} in\n{text}");
    }
    assert!(text.lines().count() <= 40, "{text}");
    assert!(
        text.contains("40 shops: when each sold last, and its sales today (294,160 in all, 3,824,080.00)"),
        "{text}"
    );
}

#[test]
fn nothing_from_outside_steers_the_terminal() {
    let mut status = ill();
    status.place = "\u{1b}]0;owned\u{7}".into();
    let alarm = &mut status.health.as_mut().unwrap().alarms[0];
    (alarm.why, alarm.meaning) = ("\u{1b}[2J".into(), "\u{9b}2J\rgone".into());
    let text = render(&status, PAPER) + &line(&status);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn json_says_all_of_it() {
    let status = ill();
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
}

/// A metric by its name, label and statistic, and its values so many minutes ago.
type Says = (&'static str, &'static str, Stat, Vec<(i64, f64)>);

/// A monitor that was told what to say: of metrics, and which alarm has gone off.
struct Told {
    says: Vec<Says>,
    alarm: &'static str,
    now: Timestamp,
}

#[async_trait]
impl Monitor for Told {
    fn stack(&self) -> &'static str {
        "kassa-x"
    }

    fn api(&self) -> &'static str {
        "api-x"
    }

    async fn data(
        &self,
        queries: &[Query],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Line>, MonitorError> {
        let mut lines = Vec::new();
        for query in queries {
            let What::Metric(id, stat) = &query.what else { panic!("{query:?}") };
            let of = |(name, label, wanted, _): &&(&str, &str, Stat, _)| {
                id.name == *name && wanted == stat && id.dimensions.values().eq(label.split_whitespace())
            };
            let Some((.., minutes)) = self.says.iter().find(of) else { continue };
            let points =
                minutes.iter().map(|(ago, value)| (self.now - SignedDuration::from_mins(*ago), *value));
            let points = points.filter(|(at, _)| (from..to).contains(at)).collect();
            lines.push(Line { id: query.id.clone(), label: String::new(), points });
        }
        Ok(lines)
    }

    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError> {
        let status = |name: &str, state| AlarmStatus {
            name: name.into(),
            state,
            since: self.now,
            why: "so".into(),
            description: String::new(),
        };
        Ok(vec![
            status("sales-stuck", State::Ok),
            status(self.alarm, State::Alarm),
            status("nobodys", State::Alarm),
        ])
    }
}

#[tokio::test]
async fn what_is_told_is_what_the_metrics_the_alarms_and_the_books_say() {
    let world = World::open().await;
    for n in 1..=3 {
        world.posts(world.sealed(&uuid(n), &[("12345", "1", "2.49")]).await).await;
    }
    world.settle().await;
    world.passes(SignedDuration::from_secs(30));
    let now = *world.now.lock().unwrap();
    // A minute that is not over is half a minute long, and what is six minutes old is history.
    let minute = now - SignedDuration::from_secs(30);
    let monitor = Told {
        says: vec![
            ("Count", "api-x", Stat::Sum, vec![(6, 5_000.0), (4, 30.0), (0, 15.0)]),
            ("hop_latency", "decrypt", Stat::SampleCount, vec![(1, 9.0)]),
            ("hop_latency", "decrypt", Stat::Percentile(50.0), vec![(3, 900.0), (2, 100.0), (1, 120.0)]),
            ("hop_latency", "decrypt", Stat::Percentile(99.0), vec![(3, 901.0), (2, 4_000.0), (1, 130.0)]),
            ("failed", "decrypt", Stat::Sum, vec![(2, 3.0)]),
            ("Errors", "kassa-x-decrypt", Stat::Sum, vec![(2, 1.0)]),
            (
                "ApproximateNumberOfMessagesVisible",
                "kassa-x-decrypt-dead-letters",
                Stat::Maximum,
                vec![(9, 4.0)],
            ),
            ("ApproximateNumberOfMessagesVisible", "kassa-x-decrypt", Stat::Maximum, vec![(20, 4.0)]),
            ("IteratorAge", "kassa-x-project", Stat::Maximum, vec![(1, 2_500.0)]),
            ("recorded", "", Stat::Sum, vec![(59, 1.0), (1, 2.0), (0, 4.0)]),
        ],
        alarm: "dead-letters",
        now: minute,
    };
    let view =
        View { place: "here".into(), questions: &world.questions, monitor: Some(&monitor), deployed: false };
    let status = look(&view, now).await.unwrap();

    let health = status.health.as_ref().unwrap();
    let [accept, decrypt, _, project] = &health.hops[..] else { panic!("{:?}", health.hops) };
    assert_eq!((accept.name.as_str(), accept.per_minute), ("accept", 10.0));
    assert_eq!((decrypt.per_minute, decrypt.failed), (2.0, 4.0));
    assert_eq!((decrypt.p50, decrypt.p99), (Some(120.0), Some(4_000.0)));
    let queue = decrypt.queue.as_ref().unwrap();
    assert_eq!(
        (queue.waiting, queue.dead_letters),
        (None, Some(4.0)),
        "what is older than a quarter is not current"
    );
    assert_eq!(project.queue.as_ref().unwrap().oldest_seconds, Some(2.5));
    assert_eq!(
        (health.recorded.len(), health.recorded[0], health.recorded[58], health.recorded[59]),
        (60, 1.0, 2.0, 4.0)
    );
    assert_eq!(health.pending, None);

    // Alarms are told as the file has them; what is not in it is nobody's, and what is not there is said.
    let alarms: Vec<_> = health.alarms.iter().map(|alarm| (alarm.name.as_str(), alarm.state)).collect();
    assert_eq!(alarms, [("sales-stuck", State::Ok), ("dead-letters", State::Alarm)]);
    assert!(health.not_deployed.contains(&"shop-is-down".to_owned()));
    assert!(!status.is_well());

    let amis1 = &status.shops[0];
    assert_eq!((amis1.shop_id.as_str(), amis1.today.sales), ("AMIS1", 3));
    assert_eq!(amis1.today.turnover, "7.47".parse().unwrap());
    assert_eq!(amis1.last_sale, Some(NOON.parse().unwrap()));
    assert_eq!((status.shops[1].today.sales, status.shops[1].last_sale), (0, None));
    assert!(!status.cost.counted);
}

#[test]
fn a_shop_that_is_closed_says_so_and_what_its_books_say() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let sold = kassa(&["sell", "--shop", "AMIS2", "--count", "5", "--url", &up.url]);
    assert!(sold.status.success());
    up.settled();
    assert!(up.terminate().success());

    let asked = kassa(&["status", "--data", data]);
    let text = String::from_utf8(asked.stdout).unwrap();
    assert_eq!(asked.status.code(), Some(1), "{text}");
    for said in ["The shop is closed", &format!("run: kassa up --data {data}"), "AMIS2"] {
        assert!(text.contains(said), "{said} in\n{text}");
    }
    let asked = kassa(&["status", "--data", data, "--json"]);
    let told: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!((&told["open"], &told["health"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(told["shops"][1]["today"]["sales"], 5);
    assert!(told["shops"][1]["last_sale"].is_string());
    // A watch ends with the shop's closing, and what is closed is not watched at all.
    let watched = kassa(&["status", "--data", data, "--watch"]);
    assert_eq!(watched.status.code(), Some(1));
    let text = String::from_utf8(watched.stdout).unwrap();
    assert!(text.contains("The shop is closed") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_shop_that_was_opened_again_still_knows_its_last_hour() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    assert!(kassa(&["sell", "--shop", "AMIS1", "--count", "20", "--url", &up.url]).status.success());
    up.settled();
    assert!(up.terminate().success());
    let _up = Up::start(folder.path());
    let told = json(&["status", "--data", data, "--json"]);
    let recorded: f64 = told["health"]["recorded"].as_array().unwrap().iter().filter_map(Value::as_f64).sum();
    assert!((recorded - 20.0).abs() < 0.1, "{recorded}");
}

#[test]
fn an_open_shop_is_asked_while_it_sells_and_watched_line_by_line_where_there_is_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let sold = kassa(&["sell", "--shop", "AMIS1", "--count", "20", "--url", &up.url]);
    assert!(sold.status.success());
    up.settled();
    // While one minute becomes the next, what was counted in it is just being kept.
    let mut told = json(&["status", "--data", data, "--json"]);
    for _ in 0..50 {
        if told["health"]["hops"][0]["p99"].is_number() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        told = json(&["status", "--data", data, "--json"]);
    }
    assert_eq!((&told["open"], told["shops"][0]["today"]["sales"].as_u64()), (&Value::Bool(true), Some(20)));
    let hops = told["health"]["hops"].as_array().unwrap();
    let names: Vec<_> = hops.iter().map(|hop| hop["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["accept", "decrypt", "process", "project"]);
    for hop in hops {
        assert!(hop["per_minute"].as_f64().unwrap() > 3.0 && hop["p99"].as_f64().unwrap() > 0.0, "{hop}");
    }
    let recorded: f64 = told["health"]["recorded"].as_array().unwrap().iter().filter_map(Value::as_f64).sum();
    assert!((recorded - 20.0).abs() < 0.1, "{recorded}");
    assert!(told["place"].as_str().unwrap().contains(&up.url));

    let mut watch = command(&["status", "--data", data, "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    // Who reads stays, or it would end by itself.
    let mut read = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = read.by_ref().take(2).collect();
    assert!(lines.iter().all(|line| line.contains(" sales a minute")), "{lines:?}");
    assert!(lines[0] < lines[1], "the second is later: {lines:?}");
    assert!(Command::new("kill").args(["-INT", &watch.id().to_string()]).status().unwrap().success());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
