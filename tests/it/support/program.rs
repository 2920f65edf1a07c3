//! Runs the real `likemind` program: commands that end, and servers that stay.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use likemind::grpc::proto::v1::campaign_service_client::CampaignServiceClient;
use likemind::grpc::proto::v1::catalog_service_client::CatalogServiceClient;
use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use likemind::grpc::proto::v1::purchase_service_client::PurchaseServiceClient;
use likemind::grpc::proto::v1::rating_service_client::RatingServiceClient;
use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::postgres::{self, TestDatabase};
use super::waiting::eventually_blocking;

/// The longest wait for the last lines of a program that has ended.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Returns the command `likemind ARGS` with `database`. Its process is killed when the thread that started it ends.
pub fn command(database: &TestDatabase, args: &[&str]) -> Command {
    command_at(database.url(), args)
}

/// [`command`] with the database at `url`.
pub fn command_at(url: &str, args: &[&str]) -> Command {
    let mut command = bare_command(env!("CARGO_BIN_EXE_likemind"), args);
    command.env("LIKEMIND__DATABASE__URL", url);
    command
}

/// Returns the command `PROGRAM ARGS` without any configuration: neither a file nor the environment of this run.
pub fn bare_command(program: &str, args: &[&str]) -> Command {
    let bare = postgres::folder("bare");
    std::fs::create_dir_all(&bare).unwrap();
    let mut command = Command::new(program);
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("LIKEMIND") {
            command.env_remove(key);
        }
    }
    command
        .args(args)
        .current_dir(bare)
        .env("LIKEMIND__TELEMETRY__METRICS", "false")
        .stdin(Stdio::null());
    // SAFETY: prctl is async-signal-safe and touches nothing of this process.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Runs `likemind ARGS`, which must succeed, and returns its standard output.
pub fn succeed(database: &TestDatabase, args: &[&str]) -> String {
    succeed_at(database.url(), args)
}

/// [`succeed`] with the database at `url`.
pub fn succeed_at(url: &str, args: &[&str]) -> String {
    let output = output(&mut command_at(url, args));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "likemind {args:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

/// Runs `likemind ARGS` and returns its exit code, standard output and standard error.
pub fn run(database: &TestDatabase, args: &[&str]) -> (i32, String, String) {
    let output = output(&mut command(database, args));
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running program, whose log (standard error) and standard output are read as they are written.
pub struct Program {
    child: Child,
    log: Lines,
    printed: Lines,
}

struct Lines {
    read: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let read = Arc::new(Mutex::new(Vec::new()));
        let (lines, writer) = (BufReader::new(stream).lines(), read.clone());
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writer.lock().unwrap().push(line);
            }
        });
        Self { read, reader }
    }

    fn text(&self) -> String {
        self.read.lock().unwrap().join("\n")
    }

    fn find(&self, part: &str) -> Option<String> {
        self.read
            .lock()
            .unwrap()
            .iter()
            .find(|line| line.contains(part))
            .cloned()
    }
}

/// Text whose lines are shown as they are when a test fails.
struct Text(String);

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\n{}", self.0)
    }
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let printed = Lines::of(child.stdout.take().unwrap());
        Self { child, log, printed }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Returns its standard output so far.
    pub fn printed(&self) -> String {
        self.printed.text()
    }

    /// Waits for a log line that contains `part`, and returns the first.
    pub fn wait_for_log(&mut self, part: &str) -> String {
        self.wait_for(part, |program| &program.log)
    }

    /// Waits for a line of standard output that contains `part`, and returns the first.
    pub fn wait_for_output(&mut self, part: &str) -> String {
        self.wait_for(part, |program| &program.printed)
    }

    fn wait_for(&mut self, part: &str, lines: fn(&Self) -> &Lines) -> String {
        let mut found = None;
        eventually_blocking(
            &format!("the program writes {part:?}"),
            || {
                // Asked before the lines are searched, so that the last lines of a program that has ended are found.
                let ended = self.child.try_wait().unwrap();
                if ended.is_some() {
                    self.wait_for_last_lines();
                }
                found = lines(self).find(part);
                let written = Text(format!("{}\n{}", self.printed(), self.log()));
                assert!(
                    found.is_some() || ended.is_none(),
                    "no {part:?} before the end ({ended:?}): {written:?}"
                );
                (found.is_some(), written)
            },
            |(is_there, _)| *is_there,
        );
        found.unwrap()
    }

    /// Waits until the last lines of a program that has ended are read. The streams do not end while a child of the
    /// program lives, so the wait is limited.
    fn wait_for_last_lines(&self) {
        let started = Instant::now();
        let is_finished = || self.log.reader.is_finished() && self.printed.reader.is_finished();
        while !is_finished() && started.elapsed() < LAST_LINES {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: the child has not been waited for, so that the id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Returns its memory now and at its peak, as the kernel counts it.
    pub fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let lines = status
            .lines()
            .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Returns the most memory that it has had so far, as the kernel counts it.
    pub fn peak_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; returns its exit status and its log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let (status, _) = eventually_blocking(
            "the program ends",
            || (self.child.try_wait().unwrap(), Text(self.log())),
            |(status, _)| status.is_some(),
        );
        self.wait_for_last_lines();
        (status.unwrap(), self.log())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `likemind serve` on a free port.
pub struct Server {
    pub program: Program,
    /// `http://127.0.0.1:port`
    pub address: String,
}

impl Server {
    pub fn start(database: &TestDatabase) -> Self {
        Self::with(database, &[])
    }

    /// Starts a server with `settings`: keys of the configuration and their values.
    pub fn with(database: &TestDatabase, settings: &[(&str, &str)]) -> Self {
        Self::at(database.url(), settings)
    }

    /// [`Server::with`] with the database at `url`.
    pub fn at(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::started_as(url, settings, |command| command)
    }

    /// [`Server::at`] with a command that `adjust` has changed.
    pub fn started_as(url: &str, settings: &[(&str, &str)], adjust: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let settings: Vec<String> = settings
            .iter()
            .map(|(key, value)| format!("--set-config={key}={value}"))
            .collect();
        // Erasures do not wait for others.
        let mut args = vec!["serve", "--listen=127.0.0.1:0", "--set-config=erasure.settle_ms=0"];
        args.extend(settings.iter().map(String::as_str));
        let mut program = Program::start(adjust(&mut command_at(url, &args)));
        let line = program.wait_for_log("serving on 127.0.0.1:");
        let port: String = line
            .split("serving on 127.0.0.1:")
            .nth(1)
            .unwrap()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        Self {
            program,
            address: format!("http://127.0.0.1:{port}"),
        }
    }

    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(self.address.clone())
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub async fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel().await)
    }

    pub async fn ratings(&self) -> RatingServiceClient<Channel> {
        RatingServiceClient::new(self.channel().await)
    }

    pub async fn purchases(&self) -> PurchaseServiceClient<Channel> {
        PurchaseServiceClient::new(self.channel().await)
    }

    pub async fn recommendations(&self) -> RecommendationServiceClient<Channel> {
        RecommendationServiceClient::new(self.channel().await)
    }

    pub async fn campaigns(&self) -> CampaignServiceClient<Channel> {
        CampaignServiceClient::new(self.channel().await)
    }

    pub async fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel().await)
    }

    /// Returns what `grpc.health.v1` reports for a service, by its full name, or for the whole server, by ""; `None` for an
    /// unknown service.
    pub async fn health(&self, service: &str) -> Option<ServingStatus> {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        match HealthClient::new(self.channel().await).check(request).await {
            Ok(answer) => Some(answer.into_inner().status()),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => panic!("{status:?}"),
        }
    }

    /// Asks it to stop and waits until it has. The test's runtime goes on meanwhile, so that its clients can close their
    /// connections.
    pub async fn drain(self) -> (ExitStatus, String) {
        tokio::task::spawn_blocking(|| self.stop()).await.unwrap()
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(self) -> (ExitStatus, String) {
        self.program.signal(libc::SIGTERM);
        self.program.wait()
    }
}
