use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cloud::{Cloud, root, succeeded};
use crate::runtime_api::RuntimeApi;

const ROUNDS: usize = 21;

/// A bootstrap and what it is started with.
struct Start {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    settings: Vec<(String, String)>,
}

/// Each handler, an empty function and a Python one, in turns, so that the machine's moods hit all alike.
pub async fn starts(cloud: &Cloud) {
    let mut starts: Vec<Start> = ["accept", "decrypt", "process", "project", "watch", "reconcile"]
        .map(|name| of_stage(cloud, name))
        .into();
    starts.push(Start { name: "empty", program: empty(), args: Vec::new(), settings: Vec::new() });
    starts.push(python());
    let mut took: Vec<Vec<Duration>> = starts.iter().map(|_| Vec::new()).collect();
    let mut memory = vec![0; starts.len()];
    for _ in 0..ROUNDS {
        for (n, start) in starts.iter().enumerate() {
            let (first, resident) = once(start).await;
            took[n].push(first);
            memory[n] = memory[n].max(resident);
        }
    }
    let median = |n: usize| {
        let mut sorted = took[n].clone();
        sorted.sort();
        sorted[ROUNDS / 2].as_secs_f64() * 1000.0
    };
    let (empty, python) = (median(starts.len() - 2), median(starts.len() - 1));
    println!("cold start, exec to first request, median of {ROUNDS}; memory then");
    for (n, start) in starts.iter().enumerate() {
        let ms = median(n);
        println!(
            "{:<8} {ms:>7.1} ms  {:>5.2} x empty  python is {:>5.1} x  {:>5.1} MB",
            start.name,
            ms / empty,
            python / ms,
            f64::from(memory[n]) / 1024.0
        );
    }
    let zip = crate::bootstraps::artifacts().join("pipeline.zip");
    println!("zip {:.2} MB", std::fs::metadata(zip).unwrap().len() as f64 / 1e6);
}

async fn once(start: &Start) -> (Duration, u32) {
    let api = RuntimeApi::start().await;
    let mut command = Command::new(&start.program);
    command.args(&start.args).env_clear().envs(api.env(start.name)).envs(start.settings.iter().cloned());
    if start.name == "python" {
        command.env("_HANDLER", "handler.handle");
    }
    let begun = Instant::now();
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let first = api.first_next().await.duration_since(begun);
    let resident = resident_kib(process.id());
    process.kill().unwrap();
    process.wait().unwrap();
    (first, resident)
}

fn resident_kib(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn of_stage(cloud: &Cloud, name: &'static str) -> Start {
    let settings = cloud.function_settings(name).into_iter().collect();
    Start { name, program: cloud.bootstrap("pipeline"), args: Vec::new(), settings }
}

/// An empty function, built as the bootstraps are.
fn empty() -> PathBuf {
    let mut build = Command::new("cargo");
    let venv = root().join(".venv/bin");
    let path = format!("{}:{}", venv.display(), std::env::var("PATH").unwrap());
    build.args([
        "lambda",
        "build",
        "--profile",
        "lambda",
        "--locked",
        "--x86-64",
        "--lambda-dir",
        "target/lambda-empty",
    ]);
    build.args(["-p", "kassa-pipeline", "--example", "empty"]).env("PATH", path).current_dir(root());
    succeeded("cargo lambda build", &build.output().unwrap());
    root().join("target/lambda-empty/empty/bootstrap")
}

/// The least that a Python function on AWS does: the runtime client, boto3, one client.
fn python() -> Start {
    let args = ["-m", "awslambdaric", "handler.handle"].map(str::to_owned).into();
    let folder = root().join("benches/cloud");
    let settings = vec![
        ("PYTHONPATH".to_owned(), folder.display().to_string()),
        ("LAMBDA_TASK_ROOT".to_owned(), folder.display().to_string()),
    ];
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    Start { name: "python", program, args, settings }
}
