//! The shop as `serverless deploy` puts it on an emulated AWS: real bootstraps, policies enforced.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aws_sdk_kms::config::Credentials;
use rand::Rng;
use serde_json::Value;
use tempfile::TempDir;

use super::bootstraps::{artifacts, program};
use super::boto::Botos;
pub use super::proxy::Proxy;

/// Ended when it is dropped.
pub struct Cloud {
    /// Between the functions and AWS.
    pub proxy: Proxy,
    pub url: String,
    pub endpoint: String,
    folder: TempDir,
    artifacts: PathBuf,
    botos: Arc<Botos>,
    settings: OnceLock<BTreeMap<String, BTreeMap<String, String>>>,
}

/// What a deployment reads. What it writes is in a folder of its own, so that many can be at work at once.
const READ: [&str; 7] =
    ["shops.toml", "dashboards", "deploy", "pipeline", "subscribers", "node_modules", ".venv"];

/// How long a schedule's minute lasts where a test waits for it.
pub const SOON: &str = "--param=scheduleInterval=2s";

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
pub fn succeeded(what: &str, output: &Output) -> String {
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}:\n{}\n{}", told(&output.stdout), told(&output.stderr));
    told(&output.stdout)
}

impl Cloud {
    /// Starts an AWS and deploys the shop on it.
    pub async fn deployed() -> Self {
        Self::deployed_with(&[]).await
    }

    /// As [`Cloud::deployed`], with arguments of `serverless deploy`.
    pub async fn deployed_with(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        read_in(&folder.path().join("project"));
        let port = free_port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let proxy = Proxy::start(&endpoint).await;
        let (artifacts, botos, settings) = (artifacts(), Arc::default(), OnceLock::new());
        let mut cloud = Self { proxy, url: String::new(), endpoint, folder, artifacts, botos, settings };
        let mut up = cloud.command(&cloud.project().join("deploy/local-cloud.sh"));
        up.arg("up").args(args).env("KASSA_CLOUD_PORT", port.to_string());
        if args.contains(&SOON) {
            up.env("KASSA_CLOUD_MINUTE", "2");
        }
        let told = succeeded("local-cloud.sh up", &cloud.run(up).await);
        let url = told.lines().find_map(|line| line.strip_prefix("The shop is open: "));
        url.expect("the shop's address").clone_into(&mut cloud.url);
        cloud
    }

    fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// A command that sees this AWS and no other.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.project())
            .env("KASSA_CLOUD", self.folder.path().join("cloud"))
            .env("KASSA_ARTIFACTS", &self.artifacts)
            .env("KASSA_LAMBDA_ENDPOINT", &self.proxy.url)
            .env("KASSA", env!("CARGO_BIN_EXE_kassa"))
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_DEFAULT_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("SLS_AWS_MONITORING_FREQUENCY", "200")
            .env("NODE_NO_WARNINGS", "1")
            .env_remove("AWS_PROFILE")
            .env_remove("RUST_LOG");
        command
    }

    /// For clients of our own, with all rights.
    pub async fn sdk_config(&self) -> aws_config::SdkConfig {
        aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12())
            .endpoint_url(&self.endpoint)
            .region("eu-west-1")
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .load()
            .await
    }

    /// Runs a command while the proxy goes on serving.
    pub async fn run(&self, mut command: Command) -> Output {
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    pub async fn serverless(&self, args: &[&str]) -> String {
        let mut command = self.command(&self.project().join("node_modules/.bin/serverless"));
        command.args(args).args(["--stage", "local", "--verbose"]);
        let output = self.run(command).await;
        let told = succeeded(&format!("{args:?}"), &output);
        told + &String::from_utf8_lossy(&output.stderr)
    }

    pub async fn kassa(&self, args: &[&str]) -> Output {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_kassa")));
        command.args(args);
        self.run(command).await
    }

    /// Asks with `--stage local --json`.
    pub async fn ask(&self, args: &[&str]) -> Value {
        let output = self.kassa(&[args, &["--stage", "local", "--json"]].concat()).await;
        serde_json::from_str(&succeeded(&format!("{args:?}"), &output)).unwrap()
    }

    /// The command's answer once it is as wanted, within some minutes.
    pub async fn until(&self, what: &str, args: &[&str], right: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let output = self.kassa(&[args, &["--stage", "local", "--json"]].concat()).await;
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if right(&answer) {
                return answer;
            }
            assert!(
                begun.elapsed() < Duration::from_mins(5),
                "{what}: {answer} {}\n{}",
                String::from_utf8_lossy(&output.stderr),
                self.end_of_log()
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// One of the clients in `tests/clients`, which prints the id of the sale it sold.
    pub async fn client(&self, file: &str, more: &[&str]) -> String {
        let script = root().join("tests/clients").join(file);
        let is_python = script.extension().is_some_and(|ending| ending == "py");
        let mut command = self.command(&if is_python { python() } else { script.clone() });
        if is_python {
            command.arg(script);
        }
        command.arg(&self.url).args(more);
        succeeded(file, &self.run(command).await).trim().to_owned()
    }

    /// Runs Python with boto3, `aws(service)` for a client, and reads the JSON it prints.
    pub async fn boto(&self, code: &str) -> Value {
        let (botos, code) = (self.botos.clone(), code.to_owned());
        let environment = self.command(&python());
        tokio::task::spawn_blocking(move || botos.run(environment, &code)).await.unwrap()
    }

    /// A room's bootstrap, as it was deployed.
    pub fn bootstrap(&self, room: &str) -> PathBuf {
        program(room, self.folder.path())
    }

    /// The environment that the deployment gave a function.
    pub fn function_settings(&self, handler: &str) -> BTreeMap<String, String> {
        self.settings.get_or_init(|| self.settings()).get(handler).cloned().unwrap_or_default()
    }

    fn settings(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let code = "print(json.dumps({f['Handler']: f['Environment']['Variables'] for f in aws('lambda').list_functions()['Functions']}))";
        let settings = tokio::task::block_in_place(|| self.botos.run(self.command(&python()), code));
        let mut settings: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_value(settings).unwrap();
        for settings in settings.values_mut() {
            settings.insert("AWS_ENDPOINT_URL".to_owned(), self.endpoint.clone());
            // Only the emulator's one function has it.
            settings.remove("STREAM_SHARD");
        }
        settings
    }

    /// Kills every running environment of a function, and says how many there were.
    pub fn kill(&self, handler: &str) -> usize {
        let handler = format!("_HANDLER={handler}");
        let here = self.folder.path().to_str().unwrap().to_owned();
        let is_one = |process: &Path| {
            let environment = std::fs::read(process.join("environ")).unwrap_or_default();
            let mut variables = environment.split(|b| *b == 0);
            let program = std::fs::read_link(process.join("exe")).unwrap_or_default();
            program.to_string_lossy().starts_with(&here) && variables.any(|v| v == handler.as_bytes())
        };
        let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let ids: Vec<String> = processes
            .filter(|process| is_one(process))
            .map(|process| process.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        if !ids.is_empty() {
            Command::new("kill").arg("-9").args(&ids).status().unwrap();
        }
        ids.len()
    }

    /// The emulator's log, with what the functions wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("cloud/log")).unwrap_or_default()
    }

    fn end_of_log(&self) -> String {
        let log = self.log();
        let from = log.lines().count().saturating_sub(60);
        log.lines().skip(from).collect::<Vec<_>>().join("\n")
    }
}

pub fn python() -> PathBuf {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "there is no .venv; `make setup` makes it");
    python
}

fn read_in(project: &Path) {
    std::fs::create_dir(project).unwrap();
    for name in READ {
        symlink(root().join(name), project.join(name)).unwrap();
    }
    // This one the framework takes for a file only if it is one.
    std::fs::copy(root().join("serverless.yml"), project.join("serverless.yml")).unwrap();
}

/// Ports below those that the system gives to whoever asks for any, as one of them could be taken by the time the
/// emulator listens (<https://docs.kernel.org/networking/ip-sysctl.html>, `ip_local_port_range`).
const PORTS: Range<u16> = 10_000..32_000;

fn free_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| rand::rng().random_range(PORTS)).find(free).unwrap()
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let mut down = self.command(&self.project().join("deploy/local-cloud.sh"));
        let _ = down.arg("down").status();
    }
}
