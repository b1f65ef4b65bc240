//! The shop as `serverless deploy` puts it on an emulated AWS: real bootstraps, policies enforced.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use aws_sdk_kms::config::Credentials;
use serde_json::Value;
use tempfile::TempDir;

pub use super::proxy::Proxy;

/// Ended when it is dropped.
pub struct Cloud {
    /// Between the functions and AWS.
    pub proxy: Proxy,
    pub url: String,
    pub endpoint: String,
    folder: TempDir,
    settings: BTreeMap<String, BTreeMap<String, String>>,
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with a bootstrap for each room, as `make setup` builds it.
pub fn artifacts() -> PathBuf {
    let folder = root().join("target/lambda-zip");
    assert!(folder.join("pipeline.zip").exists(), "there is no bootstrap; `make bootstraps` builds it");
    folder
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
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let proxy = Proxy::start(&endpoint).await;
        let (folder, settings) = (tempfile::tempdir().unwrap(), BTreeMap::new());
        let mut cloud = Self { proxy, url: String::new(), endpoint, folder, settings };
        let mut up = cloud.command(&root().join("deploy/local-cloud.sh"));
        up.arg("up").env("KASSA_CLOUD_PORT", port.to_string());
        succeeded("local-cloud.sh up", &cloud.run(up).await);
        let url = "[print(json.dumps(o['OutputValue'])) for o in aws('cloudformation').describe_stacks(StackName='kassa-local')['Stacks'][0]['Outputs'] if o['OutputKey'] == 'ShopUrl']";
        cloud.url = serde_json::from_value(cloud.boto(url).await).unwrap();
        let settings = "print(json.dumps({f['Handler']: f['Environment']['Variables'] for f in aws('lambda').list_functions()['Functions']}))";
        cloud.settings = serde_json::from_value(cloud.boto(settings).await).unwrap();
        for settings in cloud.settings.values_mut() {
            settings.insert("AWS_ENDPOINT_URL".to_owned(), cloud.endpoint.clone());
            // Only the emulator's one function has it.
            settings.remove("STREAM_SHARD");
        }
        cloud
    }

    /// A command that sees this AWS and no other.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(root())
            .env("KASSA_CLOUD", self.folder.path().join("cloud"))
            .env("KASSA_ARTIFACTS", artifacts())
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
        let mut command = self.command(Path::new("npx"));
        command.arg("serverless").args(args).args(["--stage", "local", "--verbose"]);
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
        let mut command = self.command(&python());
        command.arg("-c").arg(format!("import boto3, json\naws = boto3.client\n{code}"));
        serde_json::from_str(&succeeded(code, &self.run(command).await)).unwrap()
    }

    /// A room's bootstrap, as it was deployed.
    pub fn bootstrap(&self, room: &str) -> PathBuf {
        let folder = self.folder.path().join(room);
        let program = folder.join("bootstrap");
        if !program.exists() {
            let zip = artifacts().join(format!("{room}.zip"));
            let unzip = [zip.to_str().unwrap(), folder.to_str().unwrap()];
            let mut command = self.command(&python());
            succeeded("unzip", &command.args(["-m", "zipfile", "-e"]).args(unzip).output().unwrap());
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        program
    }

    /// The environment that the deployment gave a function.
    pub fn function_settings(&self, handler: &str) -> BTreeMap<String, String> {
        self.settings.get(handler).cloned().unwrap_or_default()
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

impl Drop for Cloud {
    fn drop(&mut self) {
        let mut down = self.command(&root().join("deploy/local-cloud.sh"));
        let _ = down.arg("down").status();
    }
}
