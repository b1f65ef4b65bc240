//! Python with boto3, for what no command of ours asks of AWS. Importing it takes longer than most of what it is asked.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

/// Those that are idle.
#[derive(Default)]
pub struct Botos(Mutex<Vec<Boto>>);

struct Boto {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

/// Runs what it reads, line by line, each a JSON string, and answers what that printed, or how it failed.
const SERVES: &str = "
import contextlib, functools, io, sys, traceback
import boto3, json
aws = functools.cache(boto3.client)
for line in sys.stdin:
    printed, failed = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(json.loads(line), {'aws': aws, 'boto3': boto3, 'json': json})
    except Exception:
        failed = traceback.format_exc()
    print(json.dumps([printed.getvalue(), failed]), flush=True)
";

impl Botos {
    /// Runs Python, with `aws(service)` for a client, and reads the JSON it prints. Where none is idle, `python` is
    /// started.
    pub fn run(&self, python: Command, code: &str) -> Value {
        let idle = self.0.lock().unwrap().pop();
        let mut boto = idle.unwrap_or_else(|| Boto::start(python));
        let (printed, failed) = boto.run(code);
        assert!(failed.is_none(), "{code}\n{}", failed.unwrap_or_default());
        self.0.lock().unwrap().push(boto);
        serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{code}\nprints {printed:?}"))
    }
}

impl Boto {
    fn start(mut command: Command) -> Self {
        command.args(["-c", SERVES]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }

    fn run(&mut self, code: &str) -> (String, Option<String>) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{}", Value::from(code)).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Boto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
