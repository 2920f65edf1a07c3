//! TLS: handshakes, refusals, and the change of certificates while a server runs.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;

use likemind::grpc::proto::v1::GetServingStatusRequest;
use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::support::authority::{Authority, Identity};
use crate::support::metrics::{free_port, scrape, value};
use crate::support::postgres::TestDatabase;
use crate::support::program::{Server, command, output, run};
use crate::support::waiting::{PATIENCE, eventually};

const REFUSED: &str = "the changed TLS files cannot be used";
const CHANGED: &str = "new connections use the changed TLS files";

/// The TLS files of one server.
struct Files(TempDir);

impl Files {
    fn with(identity: &Identity) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.put(identity);
        files
    }

    fn put(&self, identity: &Identity) {
        self.write("key.pem", &identity.key);
        self.write("certificate.pem", &identity.certificate);
    }

    /// Replaces a file in one step, as a tool that renews certificates should.
    fn write(&self, name: &str, text: &str) -> String {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.path(name)).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn serve(&self, database: &TestDatabase, settings: &[(&str, &str)]) -> Server {
        let (certificate, key) = (self.path("certificate.pem"), self.path("key.pem"));
        let mut all = vec![("tls.certificate_file", &*certificate), ("tls.key_file", &*key)];
        all.extend(settings);
        Server::with(database, &all)
    }
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()))
}

fn presenting(config: ClientTlsConfig, identity: &Identity) -> ClientTlsConfig {
    config.identity(tonic::transport::Identity::from_pem(
        &identity.certificate,
        &identity.key,
    ))
}

async fn connect(server: &Server, config: ClientTlsConfig) -> Result<ModelServiceClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(server.address.replace("http://", "https://")).unwrap();
    let endpoint = endpoint.tls_config(config).unwrap().timeout(PATIENCE);
    let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
    Ok(ModelServiceClient::new(channel))
}

/// Sends a request on the open connection of `client`.
async fn ask(client: &mut ModelServiceClient<Channel>) -> Result<(), String> {
    let answer = client.get_serving_status(GetServingStatusRequest {}).await;
    answer.map(drop).map_err(|status| format!("{status:?}"))
}

/// Connects a new client and sends a request.
async fn try_once(server: &Server, config: ClientTlsConfig) -> Result<(), String> {
    ask(&mut connect(server, config).await?).await
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_configured_authority_are_let_in() {
    let database = TestDatabase::create().await;
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::with(&ours.sign());
    let metrics_address = free_port();
    let mut server = files.serve(
        &database,
        &[
            ("tls.client_ca_file", &files.write("ca.pem", &ours.pem())),
            ("telemetry.log_filter", "info,likemind::grpc=debug"),
            ("telemetry.metrics", "true"),
            ("telemetry.metrics_listen", &metrics_address.to_string()),
        ],
    );
    let right = presenting(trusting(&ours), &ours.sign());
    try_once(&server, right.clone()).await.unwrap();
    for (config, reason) in [
        (trusting(&ours), "peer sent no certificates"),
        (presenting(trusting(&ours), &other.sign()), "UnknownIssuer"),
        (presenting(trusting(&ours), &ours.sign_expired()), "expired"),
        (presenting(trusting(&ours), &ours.sign_too_early()), "not valid yet"),
        // Here the client refuses the server.
        (presenting(trusting(&other), &ours.sign()), "UnknownCA"),
    ] {
        try_once(&server, config).await.expect_err(reason);
        let line = server.program.wait_for_log(reason);
        assert!(
            line.contains("INFO") && line.contains("a TLS handshake failed") && line.contains("client=127.0.0.1"),
            "{line}"
        );
    }
    try_once(&server, right).await.unwrap();
    let text = scrape(metrics_address).await;
    // A client may try more than once before it gives up.
    assert!(
        value(&text, "likemind_tls_handshake_failures_total") >= Some(5.0),
        "{text}"
    );
}

#[tokio::test]
async fn failed_handshakes_are_logged_by_default() {
    let database = TestDatabase::create().await;
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::with(&ours.sign());
    let mut server = files.serve(
        &database,
        &[("tls.client_ca_file", &files.write("ca.pem", &ours.pem()))],
    );
    try_once(&server, presenting(trusting(&ours), &other.sign()))
        .await
        .unwrap_err();
    server.program.wait_for_log("a TLS handshake failed");
    try_plain_text(&server).await.unwrap_err();
    let before = server.program.log();
    try_once(&server, presenting(trusting(&ours), &ours.sign()))
        .await
        .unwrap();
    assert!(before.contains("INFO"), "{before}");
}

/// Connects a client without TLS and sends a request.
async fn try_plain_text(server: &Server) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(server.address.clone()).unwrap().timeout(PATIENCE);
    let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
    ask(&mut ModelServiceClient::new(channel)).await
}

#[tokio::test]
async fn a_plain_text_client_fails_and_does_no_harm() {
    let database = TestDatabase::create().await;
    let ours = Authority::new("ours");
    let server = Files::with(&ours.sign()).serve(&database, &[]);
    for _ in 0..20 {
        let error = timeout(PATIENCE, try_plain_text(&server))
            .await
            .expect("the client hangs")
            .unwrap_err();
        assert!(error.contains("transport"), "{error}");
    }
    try_once(&server, trusting(&ours)).await.unwrap();
}

#[tokio::test]
async fn silent_clients_block_nobody_and_are_disconnected() {
    let database = TestDatabase::create().await;
    let ours = Authority::new("ours");
    let server = Files::with(&ours.sign()).serve(&database, &[]);
    let mut silent = Vec::new();
    for _ in 0..100 {
        let address = server.address.trim_start_matches("http://");
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // If handshakes were waited for one after the other, the silent ones would take 1,000 s.
    let answered = timeout(PATIENCE, try_once(&server, trusting(&ours))).await;
    answered.expect("the client waits for the silent ones").unwrap();
    for mut connection in silent {
        let read = timeout(PATIENCE, connection.read(&mut [0; 16])).await;
        assert!(matches!(read.expect("the connection is not closed"), Ok(0) | Err(_)));
    }
    try_once(&server, trusting(&ours)).await.unwrap();
}

#[tokio::test]
async fn changed_files_apply_to_new_connections_and_broken_files_are_ignored() {
    let database = TestDatabase::create().await;
    let (old, new, newest) = (Authority::new("old"), Authority::new("new"), Authority::new("newest"));
    let files = Files::with(&old.sign());
    let mut server = files.serve(&database, &[("tls.reload_interval_ms", "20")]);
    let mut early = connect(&server, trusting(&old)).await.unwrap();
    ask(&mut early).await.unwrap();
    try_once(&server, trusting(&new)).await.unwrap_err();

    files.put(&new.sign());
    let look = async || try_once(&server, trusting(&new)).await;
    eventually("the new certificate is used", look, Result::is_ok)
        .await
        .unwrap();
    try_once(&server, trusting(&old)).await.unwrap_err();
    ask(&mut early).await.unwrap();

    let broken = files.write("certificate.pem", "not a certificate");
    let line = server.program.wait_for_log("holds no certificate");
    let names = [REFUSED, "tls.certificate_file", &broken, "ERROR"];
    assert!(names.iter().all(|part| line.contains(part)), "{line}");
    wait_for_looks(&files).await;
    try_once(&server, trusting(&new)).await.unwrap();
    assert_eq!(lines_with(&server, "holds no certificate"), 1);

    std::fs::remove_file(files.path("key.pem")).unwrap();
    let line = server.program.wait_for_log("cannot be read");
    assert!(line.contains(REFUSED) && line.contains("tls.key_file"), "{line}");
    wait_for_looks(&files).await;
    try_once(&server, trusting(&new)).await.unwrap();
    assert_eq!(lines_with(&server, "cannot be read"), 1);

    files.put(&newest.sign());
    let look = async || try_once(&server, trusting(&newest)).await;
    eventually("the newest certificate is used", look, Result::is_ok)
        .await
        .unwrap();
    ask(&mut early).await.unwrap();
    let line = server.program.wait_for_log(CHANGED);
    assert!(line.contains("INFO"), "{line}");
}

/// Waits until the server has looked at its files several more times, so that a message which every look repeats would be in
/// the log.
async fn wait_for_looks(files: &Files) {
    let path = CString::new(files.path("certificate.pem")).unwrap();
    // SAFETY: the path lives through the calls, and nothing but the returned file owns the descriptor.
    let mut events = unsafe {
        let descriptor = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
        assert!(descriptor >= 0 && libc::inotify_add_watch(descriptor, path.as_ptr(), libc::IN_OPEN) >= 0);
        File::from_raw_fd(descriptor)
    };
    let mut looks = 0;
    let count = async || {
        // One event has 16 bytes. There is none to read when the server has not opened the file since.
        looks += events.read(&mut [0; 16]).map_or(0, |_| 1);
        looks
    };
    eventually("the server has looked at its files", count, |&looks| looks >= 4).await;
}

fn lines_with(server: &Server, part: &str) -> usize {
    server.program.log().lines().filter(|line| line.contains(part)).count()
}

#[tokio::test]
async fn a_changed_client_authority_decides_who_is_let_in() {
    let database = TestDatabase::create().await;
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    let files = Files::with(&ours.sign());
    let settings = [
        ("tls.client_ca_file", &*files.write("ca.pem", &ours.pem())),
        ("tls.reload_interval_ms", "20"),
    ];
    let server = files.serve(&database, &settings);
    let leaving = presenting(trusting(&ours), &ours.sign());
    let coming = presenting(trusting(&ours), &next.sign());
    try_once(&server, leaving.clone()).await.unwrap();
    try_once(&server, coming.clone()).await.unwrap_err();

    files.write("ca.pem", &(ours.pem() + &next.pem()));
    let look = async || try_once(&server, coming.clone()).await;
    eventually("both clients are let in", look, Result::is_ok)
        .await
        .unwrap();
    try_once(&server, leaving.clone()).await.unwrap();

    files.write("ca.pem", &next.pem());
    let look = async || try_once(&server, leaving.clone()).await;
    eventually("the old client is refused", look, Result::is_err)
        .await
        .unwrap_err();
    try_once(&server, coming).await.unwrap();
}

#[tokio::test]
async fn unusable_tls_files_are_named_at_the_start() {
    let database = TestDatabase::create().await;
    let ours = Authority::new("ours");
    let (server, other) = (ours.sign(), ours.sign());
    let files = Files::with(&server);
    let (certificate, key) = (files.path("certificate.pem"), files.path("key.pem"));
    let check = |settings: &[(&str, &str)], expected: i32, parts: &[&str]| {
        let settings: Vec<String> = settings
            .iter()
            .map(|(key, value)| format!("--set-config=tls.{key}={value}"))
            .collect();
        let mut args = vec!["serve", "--listen=127.0.0.1:0"];
        args.extend(settings.iter().map(String::as_str));
        let (code, _, errors) = run(&database, &args);
        assert_eq!(code, expected, "{args:?}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{args:?}: no {part} in {errors}");
        }
    };
    check(&[("certificate_file", &certificate)], 2, &["tls.key_file"]);
    check(&[("key_file", &key)], 2, &["tls.certificate_file"]);
    check(&[("client_ca_file", &certificate)], 2, &["tls.certificate_file"]);

    let with_certificate = |path: &str, parts: &[&str]| {
        let parts = [&["tls.certificate_file", path], parts].concat();
        check(&[("certificate_file", path), ("key_file", &key)], 1, &parts);
    };
    with_certificate("/nowhere.pem", &["No such file"]);
    with_certificate(&files.write("empty.pem", ""), &["no certificate"]);
    with_certificate(&key, &["no certificate"]);
    let cut = &server.certificate[..server.certificate.len() / 2];
    with_certificate(&files.write("cut.pem", cut), &["not PEM"]);
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    with_certificate(&files.write("nonsense.pem", nonsense), &["invalid peer certificate"]);
    let mismatch = files.write("other.pem", &other.certificate);
    with_certificate(&mismatch, &["does not belong", "tls.key_file", &key]);

    let with_key = |path: &str, parts: &[&str]| {
        let parts = [&["tls.key_file", path], parts].concat();
        check(&[("certificate_file", &certificate), ("key_file", path)], 1, &parts);
    };
    with_key("/nowhere.pem", &["No such file"]);
    with_key(&certificate, &["no private key"]);
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    with_key(&files.write("nonsense_key.pem", nonsense), &["cannot be used"]);

    for (identity, reason) in [
        (ours.sign_expired(), "expired"),
        (ours.sign_too_early(), "not valid yet"),
    ] {
        let files = Files::with(&identity);
        let (certificate, key) = (files.path("certificate.pem"), files.path("key.pem"));
        let settings = [("certificate_file", &*certificate), ("key_file", &*key)];
        check(&settings, 1, &["tls.certificate_file", &certificate, reason]);
    }

    for (path, reason) in [("/nowhere.pem", "No such file"), (&*key, "no certificate")] {
        let settings = [
            ("certificate_file", &*certificate),
            ("key_file", &*key),
            ("client_ca_file", path),
        ];
        check(&settings, 1, &["tls.client_ca_file", path, reason]);
    }
}

/// Returns parts of a key, in several notations. No log may contain any of them.
fn traces(key_pem: &str) -> Vec<String> {
    let mut traces: Vec<String> = key_pem
        .lines()
        .filter(|line| !line.starts_with('-'))
        .map(str::to_owned)
        .collect();
    let der = rcgen::KeyPair::from_pem(key_pem).unwrap().serialize_der();
    // In PKCS #8 of P-256 the secret is at 36..68.
    let secret = &der[36..52];
    let joined = |separator: &str, format: fn(&u8) -> String| -> String {
        secret.iter().map(format).collect::<Vec<_>>().join(separator)
    };
    traces.push(joined("", |byte| format!("{byte:02x}")));
    traces.push(joined("", |byte| format!("{byte:02X}")));
    traces.push(joined(", ", u8::to_string));
    traces
}

#[tokio::test]
async fn no_private_key_is_logged_even_at_trace() {
    let database = TestDatabase::create().await;
    let ours = Authority::new("ours");
    let (first, second, client) = (ours.sign(), ours.sign(), ours.sign());
    let files = Files::with(&first);
    let mut server = files.serve(
        &database,
        &[
            ("tls.client_ca_file", &files.write("ca.pem", &ours.pem())),
            ("tls.reload_interval_ms", "20"),
            ("telemetry.log_filter", "trace"),
        ],
    );
    try_once(&server, presenting(trusting(&ours), &client)).await.unwrap();
    try_once(&server, trusting(&ours)).await.unwrap_err();
    files.put(&second);
    server.program.wait_for_log(CHANGED);
    try_once(&server, presenting(trusting(&ours), &client)).await.unwrap();
    // An error that quoted a line of this broken file would reveal the key.
    let secret = second.key.lines().nth(1).unwrap();
    files.write("key.pem", &format!("-----BEGIN {secret}\n{secret}\n"));
    server.program.wait_for_log("holds no private key");
    let (_, log) = server.drain().await;
    assert!(
        log.contains("TRACE we got a clienthello"),
        "the log does not contain the trace lines of TLS"
    );
    for trace in [&first, &second].iter().flat_map(|identity| traces(&identity.key)) {
        assert!(!log.contains(&trace), "{trace} stands in the log");
    }
}

#[tokio::test]
async fn likemind_call_uses_tls_and_client_certificates() {
    let database = TestDatabase::create().await;
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::with(&ours.sign());
    let ca = files.write("ca.pem", &ours.pem());
    let server = files.serve(&database, &[("tls.client_ca_file", &ca)]);
    let client = ours.sign();
    let certificate = format!("--client-cert={}", files.write("client.pem", &client.certificate));
    let key = format!("--client-key={}", files.write("client_key.pem", &client.key));
    let (ours, other) = (
        format!("--ca={ca}"),
        format!("--ca={}", files.write("other.pem", &other.pem())),
    );
    let address = server.address.replace("http://", "https://");
    let call = |args: &[&str], system_roots: &str| {
        let args = [&["call", "GetServingStatus", "--address", &address], args].concat();
        let output = output(command(&database, &args).env("SSL_CERT_FILE", system_roots));
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), errors)
    };
    let nobody = &files.write("nobody.pem", "");
    assert_eq!(call(&[&ours, &certificate, &key], nobody), (0, String::new()));
    assert_eq!(call(&[&certificate, &key], &ca), (0, String::new()));
    let check = |args: &[&str], parts: &[&str]| {
        let (code, errors) = call(args, nobody);
        assert!(
            code != 0 && parts.iter().all(|part| errors.contains(part)),
            "{code} {errors}"
        );
    };
    check(&[&other, &certificate, &key], &["--ca", "UnknownIssuer"]);
    check(&[&certificate, &key], &["--ca", "UnknownIssuer"]);
    // The server's reason may get lost when it closes the connection.
    check(&[&ours], &["cause: transport error"]);
}
