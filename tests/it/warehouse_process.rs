//! `kassa warehouse` as a process: killed, stopped, and with TLS to its database.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kassa_bus::webhook::WarehouseSale;

use crate::common::postgres::Postgres;
use crate::common::warehouse::{self, SECRET, holds, sales};

struct Process {
    child: Child,
    url: String,
    // Kept open: it must not die of a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(database: &str) -> Self {
        Self::spawn(Self::command(database).env("WAREHOUSE_SECRET", SECRET))
    }

    fn command(database: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kassa"));
        command.args(["warehouse", "--listen", "127.0.0.1:0", "--database", database]);
        command.env_remove("WAREHOUSE_SECRET").env_remove("RUST_LOG");
        command
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("The warehouse takes sales at ").expect("it opens").to_owned();
        Self { child, url, _stdout: stdout }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Delivers; `None` if there was no answer.
async fn deliver(url: &str, sales: &[WarehouseSale]) -> Option<u16> {
    let request = warehouse::delivery(&reqwest::Client::new(), url, sales, Timestamp::now());
    request.send().await.ok().map(|answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_has_what_it_said_and_nothing_twice() {
    let postgres = Postgres::start();
    let client = postgres.client().await;
    for round in 0..6i64 {
        let process = Process::start(&postgres.url());
        let url = Arc::new(process.url.clone());
        let killed = Arc::new(AtomicBool::new(false));
        let loaded = Arc::new(AtomicBool::new(false));
        // given eight senders in the middle of delivering
        let sender = |n: i64| {
            let (url, killed, loaded) = (Arc::clone(&url), Arc::clone(&killed), Arc::clone(&loaded));
            tokio::spawn(async move {
                let mut said = Vec::new();
                for delivery in 0.. {
                    let from = ((round * 8 + n) * 1000 + delivery) * 100;
                    if killed.load(Ordering::SeqCst) {
                        break;
                    }
                    if deliver(&url, &sales(from..from + 100)).await == Some(204) {
                        said.push(from);
                        loaded.store(true, Ordering::SeqCst);
                    }
                }
                said
            })
        };
        let senders: Vec<_> = (0..8).map(sender).collect();
        // when it is killed, once the first is loaded
        let begun = Instant::now();
        while !loaded.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < Duration::from_mins(1), "nothing is loaded");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(130 * u64::try_from(round).unwrap())).await;
        killed.store(true, Ordering::SeqCst);
        process.kill();
        // then what it said is there, once
        for sender in senders {
            for from in sender.await.unwrap() {
                let question = "select count(*), count(distinct sale_id) from fact_sale_line
                    where seq >= $1::bigint and seq < $1::bigint + 100";
                let row = client.query_one(question, &[&from]).await.unwrap();
                let lines: usize = sales(from..from + 100).iter().map(|sale| sale.lines.len()).sum();
                assert_eq!(
                    (row.get::<_, i64>(0), row.get::<_, i64>(1)),
                    (i64::try_from(lines).unwrap(), 100)
                );
            }
        }
    }
    // and repeating everything that was begun leaves each once: half a delivery is never there
    let deliveries = "select distinct div(seq, 100)::bigint from fact_sale_line order by 1";
    let begun: Vec<i64> = client.query(deliveries, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(begun.len() > 6, "only {} deliveries", begun.len());
    let all: Vec<WarehouseSale> = begun.iter().flat_map(|n| sales(n * 100..n * 100 + 100)).collect();
    holds(&client, &all).await;
    let process = Process::start(&postgres.url());
    for sales in all.chunks(100) {
        assert_eq!(deliver(&process.url, sales).await, Some(204));
    }
    holds(&client, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_ends_what_was_begun() {
    let postgres = Postgres::start();
    let mut process = Process::start(&postgres.url());
    assert_eq!(deliver(&process.url, &sales(0..1)).await, Some(204));
    // given a delivery that waits for the database
    let client = postgres.client().await;
    client.batch_execute("begin; lock table fact_sale_line").await.unwrap();
    let url = process.url.clone();
    let waiting = tokio::spawn(async move { deliver(&url, &sales(1..3)).await });
    let question = "select exists (select from pg_locks where not granted)";
    while !client.query_one(question, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // when
    Command::new("kill").arg(process.child.id().to_string()).status().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(deliver(&process.url, &sales(3..4)).await, None, "it takes no more");
    client.batch_execute("commit").await.unwrap();
    // then
    assert_eq!(waiting.await.unwrap(), Some(204));
    assert!(process.child.wait().unwrap().success());
    holds(&client, &sales(0..3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_certificate_is_checked() {
    // given a Postgres with a certificate for localhost
    let postgres = Postgres::start_with(|folder| {
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        certificate(folder, "server");
        certificate(folder, "other");
        let (key, certificate) = (file("server.key"), file("server.pem"));
        vec!["ssl=on".into(), format!("ssl_key_file={key}"), format!("ssl_cert_file={certificate}")]
    });
    let url = format!("{}?sslmode=require", postgres.url());
    let trusts = |name: &str| {
        let mut command = Process::command(&url);
        command.env("WAREHOUSE_SECRET", SECRET).env("SSL_CERT_FILE", postgres.folder().join(name));
        command
    };
    let trusting = Process::spawn(&mut trusts("server.pem"));
    assert_eq!(deliver(&trusting.url, &sales(0..1)).await, Some(204));
    let encrypted = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid)
        where application_name = 'kassa warehouse'";
    assert!(postgres.client().await.query_one(encrypted, &[]).await.unwrap().get::<_, bool>(0));
    // then one that nobody vouches for is not spoken to
    let told = says(&mut trusts("other.pem"));
    assert!(told.contains("postgres at localhost:") && told.contains("certificate"), "{told}");
}

/// Made by OpenSSL, for localhost.
fn certificate(folder: &Path, name: &str) {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_sale_and_no_secret_is_in_the_log() {
    let postgres = Postgres::start();
    let log = postgres.folder().join("kassa.log");
    let mut command = Process::command(&postgres.url());
    command.env("WAREHOUSE_SECRET", SECRET).env("RUST_LOG", "trace").stderr(File::create(&log).unwrap());
    let process = Process::spawn(&mut command);
    // given a sale that is loaded, and one that a rule of the database refuses
    let mut marked = sales(0..1);
    marked[0].till = Some("marked-till".into());
    marked[0].lines[0].gross_turnover = warehouse::amount("7654321.25");
    assert_eq!(deliver(&process.url, &marked).await, Some(204));
    let rule = "alter table fact_sale_line add constraint no_seven check (seq <> 7)";
    postgres.client().await.batch_execute(rule).await.unwrap();
    marked[0].sale_id = "7-20261122".parse().unwrap();
    marked[0].seq = Some(7);
    assert_eq!(deliver(&process.url, &marked).await, Some(400));
    process.kill();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("brought up to date"), "{log}");
    for secret in ["marked-till", "7654321", "whsec_", &SECRET[6..]] {
        assert!(!log.contains(secret), "the log has {secret}");
    }
}

/// What it ends with at once.
fn says(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.code() == Some(1) || output.status.code() == Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_it_needs_is_told_at_the_start() {
    let url = "postgres://kassa@localhost/warehouse";
    assert!(says(&mut Process::command(url)).contains("WAREHOUSE_SECRET, --secret-file or --topic"));
    let short = says(Process::command(url).env("WAREHOUSE_SECRET", "whsec_c2hvcnQ="));
    assert!(short.contains("24 to 64 bytes") && !short.contains("c2hvcnQ"), "{short}");
    assert!(says(Process::command("mysql://x").env("WAREHOUSE_SECRET", SECRET)).contains("postgres://"));
    assert!(says(Process::command(url).args(["--topic", "arn:aws:s3:::bucket"])).contains("arn:aws:sns"));
    assert!(says(Process::command(url).args(["--secret-file", "/nowhere"])).contains("cannot read the file"));
    // A database that is not there: where it would be, why it cannot be had, and what to do, before the first sale.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = format!("postgres://kassa:hunter2@127.0.0.1:{free}/sold?sslmode=disable");
    let told = says(Process::command(&away).env("WAREHOUSE_SECRET", SECRET));
    assert!(
        told.starts_with(&format!(
            "kassa: the warehouse's database, sold at 127.0.0.1:{free}, does not take sales"
        )),
        "{told}"
    );
    assert!(told.contains("refused") && told.contains("--database") && !told.contains("hunter2"), "{told}");
}
