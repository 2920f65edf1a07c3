//! The real `likemind` program: commands that end, and servers that stay.

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

use crate::postgres::{self, TestDatabase};

/// Long enough for a loaded machine; nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `likemind` with `database` and `args`; ends with the thread that starts it.
pub fn command(database: &TestDatabase, args: &[&str]) -> Command {
    command_at(database.url(), args)
}

/// The same with any PostgreSQL.
pub fn command_at(url: &str, args: &[&str]) -> Command {
    let mut command = bare_command(env!("CARGO_BIN_EXE_likemind"), args);
    command.env("LIKEMIND__DATABASE__URL", url);
    command
}

/// `program` where no configuration is found: neither a file nor what the environment of this run says.
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
    // Safety: prctl is async-signal-safe and touches nothing of this process.
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

/// Runs `likemind` with `args`, which must succeed; its standard output.
pub fn succeed(database: &TestDatabase, args: &[&str]) -> String {
    succeed_at(database.url(), args)
}

/// The same with any PostgreSQL.
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

/// Runs `likemind` with `args`; its exit code, standard output and standard error.
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

/// A running program whose log and standard output are read as they are written.
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

    /// Its standard output so far.
    pub fn printed(&self) -> String {
        self.printed.text()
    }

    /// The first log line that contains `part`, once it is there.
    pub fn wait_for_log(&mut self, part: &str) -> String {
        self.wait_for(part, |program| &program.log)
    }

    /// The first line of standard output that contains `part`, once it is there.
    pub fn wait_for_output(&mut self, part: &str) -> String {
        self.wait_for(part, |program| &program.printed)
    }

    fn wait_for(&mut self, part: &str, lines: fn(&Self) -> &Lines) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // In this order: what it wrote last before it ended is found.
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() {
                self.read_to_the_end();
            }
            if let Some(line) = lines(self).find(part) {
                return line;
            }
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no {part:?} ({ended:?}):\n{}\n{}",
                self.printed(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The last lines may still be on their way; their end does not come while a child of the program's own lives.
    fn read_to_the_end(&self) {
        for _ in 0..200 {
            if self.log.reader.is_finished() && self.printed.reader.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // Safety: the child has not been waited for, so that the id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Its memory at this moment and at the most, as the kernel counts it.
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

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.read_to_the_end();
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
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

    /// `settings`: keys of the configuration and their values.
    pub fn with(database: &TestDatabase, settings: &[(&str, &str)]) -> Self {
        Self::at(database.url(), settings)
    }

    /// The same with any PostgreSQL.
    pub fn at(url: &str, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<String> = settings
            .iter()
            .map(|(key, value)| format!("--set-config={key}={value}"))
            .collect();
        let mut args = vec!["serve", "--listen=127.0.0.1:0"];
        args.extend(settings.iter().map(String::as_str));
        let mut program = Program::start(&mut command_at(url, &args));
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

    /// What `grpc.health.v1` says of a service by its full name, or of the whole server by ""; `None` for an unknown one.
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

    /// Asks it to stop and waits until it has, while the clients of the test's runtime go on: only those that do close
    /// their connections.
    pub async fn drain(self) -> (ExitStatus, String) {
        tokio::task::spawn_blocking(|| self.stop()).await.unwrap()
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(self) -> (ExitStatus, String) {
        self.program.signal(libc::SIGTERM);
        self.program.wait()
    }
}

/// Waits until `condition` gives something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
