//! Whatever answers in the shop's place: a proxy, a network's log-in page, another service. No till believes it, and no sale is
//! lost by it.

use std::net::SocketAddr;
use std::process::Output;
use std::time::{Duration, Instant};

use kassa::till::{Format, Till, TillError};
use kassa_bus::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::chaos::line::{IMPOSTORS, Is, Line};
use crate::common::process::{Up, json, kassa};

/// A till of its own, whose shop is at the end of a line.
struct Behind<'a> {
    line: &'a Line,
    tills: &'a str,
    till: String,
}

impl Behind<'_> {
    fn runs(&self, args: &[&str]) -> Output {
        let whose =
            ["--shop", "AMIS1", "--till", &self.till, "--folder", self.tills, "--url", &self.line.url];
        tokio::task::block_in_place(|| kassa(&[args, &whose[..]].concat()))
    }

    fn drains(&self) -> String {
        String::from_utf8(self.runs(&["till", "drain", "--patience", "0"]).stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_till_believes_whatever_answers_in_the_shops_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data, tills) = (path("shop"), path("tills"));
    let up = Up::start(&folder.path().join("shop"));
    let line = Line::lay().await;
    line.leads_to(up.url.strip_prefix("http://").unwrap().parse::<SocketAddr>().unwrap());
    let mut sales = 0;
    for (n, (status, ..)) in IMPOSTORS.iter().enumerate() {
        // A classic sale's yes is another, and is not sent in batches.
        let formats =
            if n % 4 == 0 || status.starts_with('2') { &["sealed", "classic"][..] } else { &["sealed"] };
        for format in formats {
            sales += 4;
            let behind = Behind { line: &line, tills: &tills, till: format!("{format}-{n}") };
            // given a till that has its key
            line.becomes(Is::Open);
            assert!(behind.runs(&["sell", "--format", format]).status.success());
            // when something else answers, to a sale and to a batch of them
            line.becomes(Is::Impostor(n));
            let sold =
                behind.runs(&["sell", "--count", "3", "--format", format, "--patience", "0", "--json"]);
            assert_eq!(sold.status.code(), Some(1), "{status}: {sold:?}");
            let told: Value = serde_json::from_slice(&sold.stdout).unwrap();
            let three = (&json!(0), &json!(0), &json!(3));
            assert_eq!((&told["accepted"], &told["failed"], &told["waiting"]), three, "{status}");
            // then that is said, and the sales wait
            let said = String::from_utf8(sold.stderr).unwrap();
            let why = if status.starts_with('5') { "503" } else { "is not the shop" };
            assert!(said.contains(why) && said.contains(&line.url), "{status}: {said}");
            assert_eq!(behind.drains(), "0 accepted, 0 refused, 3 still wait\n", "{status}");
            // and are taken once it is gone
            line.becomes(Is::Open);
            assert_eq!(behind.drains(), "3 accepted, 0 refused, 0 still wait\n", "{status}");
        }
    }
    up.settled();
    let check = json(&["check", "--json", "--data", &data]);
    assert_eq!((&check["recorded"], &check["mismatches"]), (&json!(sales), &json!([])));
}

#[tokio::test]
async fn an_answer_without_end_is_read_to_where_none_of_the_shop_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            });
        }
    });
    let mut till =
        Till::new(&url, "AMIS1".parse().unwrap(), "till-1", Format::Sealed, Clock::system()).unwrap();
    till.patience = Duration::from_secs(1);
    let begun = Instant::now();
    let no_key = till.ready().await.unwrap_err();
    assert!(
        matches!(no_key, TillError::NoKey { .. }) && no_key.to_string().contains("is not the shop"),
        "{no_key}"
    );
    // its time-out for one answer is half a minute
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_that_was_told_to_wait_for_a_day_sells_within_its_patience() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = "HTTP/1.1 503 No\r\nretry-after: 18446744073709551616\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let tills = folder.path().display().to_string();
    let sell =
        ["sell", "--shop", "AMIS1", "--url", &url, "--folder", &tills, "--count", "20", "--patience", "2"];
    let begun = Instant::now();
    let output = tokio::task::block_in_place(|| kassa(&sell));
    assert!(begun.elapsed() < Duration::from_secs(20), "patience is for the run: {:?}", begun.elapsed());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("503") && said.contains("nothing was rung up"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_says_nothing_is_told_at_once_and_waited_for_no_longer_than_patience() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut silent = Vec::new();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            silent.push(stream);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let tills = folder.path().display().to_string();
    let sell = ["sell", "--shop", "AMIS1", "--url", &url, "--folder", &tills, "--patience", "3"];
    let begun = Instant::now();
    let said = String::from_utf8(tokio::task::block_in_place(|| kassa(&sell)).stderr).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert!(said.contains("does not answer") && said.contains("nothing was rung up"), "{said}");
}
