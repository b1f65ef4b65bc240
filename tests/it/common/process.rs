//! The real command, run as a user runs it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// `kassa up`, stopped by whoever started it.
pub struct Up {
    child: Child,
    pub url: String,
    pub printed: Vec<String>,
    /// What it wrote to stderr so far.
    pub log: Arc<Mutex<Vec<u8>>>,
    // Kept open: a shop must not die of a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kassa"));
    command.args(args).env_remove("RUST_LOG").current_dir(env!("CARGO_MANIFEST_DIR"));
    if args.first() == Some(&"sell") && !args.contains(&"--folder") {
        // Another test's till may have had the same port, and kept what it sold.
        command.arg("--folder").arg(tills());
    }
    command
}

/// Where the tills of this test keep their journals.
pub fn tills() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tills-{}", std::process::id()))
}

pub fn kassa(args: &[&str]) -> Output {
    command(args).output().expect("kassa runs")
}

/// Runs a command that must succeed, and reads what it printed as JSON.
#[track_caller]
pub fn json(args: &[&str]) -> Value {
    let output = kassa(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What `kassa sell --json` said, of which the shop accepted every sale, whatever became of them then.
#[track_caller]
pub fn accepted(sold: &Output) -> Value {
    let told: Value = serde_json::from_slice(&sold.stdout).unwrap_or_else(|_| panic!("{sold:?}"));
    assert_eq!((&told["failed"], &told["waiting"]), (&json!(0), &json!(0)), "{sold:?}");
    told
}

impl Up {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub fn start_with(data: &Path, more: &[&str]) -> Self {
        let mut args =
            vec!["up", "--listen", "127.0.0.1:0", "--data", data.to_str().expect("a path in UTF-8")];
        args.extend(more);
        Self::spawn(&mut command(&args))
    }

    /// On an address that others may reach.
    pub fn start_on(listen: &str, data: &Path) -> Self {
        let data = data.to_str().expect("a path in UTF-8");
        Self::spawn(&mut command(&["up", "--listen", listen, "--data", data]))
    }

    /// With these variables, beside those of the test.
    pub fn start_told(data: &Path, told: &[(&str, &str)]) -> Self {
        let data = data.to_str().expect("a path in UTF-8");
        let mut command = command(&["up", "--listen", "127.0.0.1:0", "--data", data]);
        Self::spawn(command.envs(told.iter().copied()))
    }

    /// As the command says.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kassa starts");
        // Both pipes are read from the start: a full one would stop the shop.
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut stderr, written) = (child.stderr.take().expect("a pipe"), log.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                written.lock().expect("no panic").extend_from_slice(&buffer[..read]);
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut printed = Vec::new();
        let mut url = None;
        while !printed.last().is_some_and(|line: &String| line.starts_with("Ctrl-C")) {
            let mut line = String::new();
            if stdout.read_line(&mut line).expect("readable") == 0 {
                let _ = child.wait();
                panic!("the shop did not open: {}", String::from_utf8_lossy(&log.lock().expect("no panic")));
            }
            url = url.or_else(|| line.trim().strip_prefix("Kassa is open at ").map(str::to_owned));
            printed.push(line);
        }
        Self { child, url: url.expect("a line with the URL"), printed, log, _stdout: stdout }
    }

    pub fn health(&self) -> Value {
        let output =
            Command::new("curl").args(["-s", &format!("{}/health", self.url)]).output().expect("curl runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Waits until nothing is on its way and every recorded sale is projected.
    pub fn settled(&self) {
        let begun = Instant::now();
        loop {
            let health = self.health();
            let counted = |name: &str| health["counted"][name].as_u64();
            if health["outstanding"] == 0 && counted("projected") >= counted("recorded") {
                return;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "not settled after a minute: {health}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    pub fn terminate(mut self) -> ExitStatus {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        self.child.wait().expect("gone")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
