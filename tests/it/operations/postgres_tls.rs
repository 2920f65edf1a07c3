//! A PostgreSQL that accepts nobody without TLS.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use private_postgres::{PrivatePostgres, PrivatePostgresOptions};

use crate::support::authority::{Authority, Identity};
use crate::support::postgres::{database_url, folder};
use crate::support::program::{command_at, output, succeed_at};

/// The database whose users must present a certificate; all others ask for the password.
const BY_CERTIFICATE: &str = "by_certificate";

const HBA: &str = "\
local   all            all              trust
hostssl by_certificate all 127.0.0.1/32 cert
hostssl all            all 127.0.0.1/32 scram-sha-256
";

/// A PostgreSQL whose port on 127.0.0.1 requires TLS.
struct Secured {
    data_dir: PathBuf,
    running: PrivatePostgres,
}

impl Secured {
    /// Starts it in the folder `name`, with the certificate `identity`. It trusts the authority `clients` for its clients.
    async fn start(name: &str, identity: Identity, clients: String) -> Self {
        let data_dir = folder(name);
        let start = |settings: Vec<(String, String)>| {
            let options = PrivatePostgresOptions {
                durable: false,
                settings,
                ..PrivatePostgresOptions::new(data_dir.clone())
            };
            tokio::task::spawn_blocking(move || PrivatePostgres::start(&options).unwrap())
        };
        // The first start makes the data, and with it shows the user that PostgreSQL runs as.
        let running = start(Vec::new()).await.unwrap();
        for database in ["likemind", BY_CERTIFICATE] {
            database_url(&running, database).await;
        }
        tokio::task::spawn_blocking(|| drop(running)).await.unwrap();

        let file = |name: &str, text: &str| give_to_postgres(&data_dir, name, text);
        let mut settings = vec![("ssl".to_owned(), "on".to_owned())];
        for (setting, text) in [
            ("ssl_cert_file", identity.certificate.as_str()),
            ("ssl_key_file", &identity.key),
            ("ssl_ca_file", &clients),
            ("hba_file", HBA),
        ] {
            settings.push((setting.to_owned(), file(setting, text)));
        }
        let running = start(settings).await.unwrap();
        Self { data_dir, running }
    }

    /// Returns a URL with the password and these parameters.
    fn url(&self, host: &str, database: &str, parameters: &[(&str, &str)]) -> String {
        let password = fs::read_to_string(self.running.password_file()).unwrap();
        let parameters: Vec<String> = parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!(
            "postgres://postgres:{}@{host}:{}/{database}?{}",
            password.trim(),
            self.running.port(),
            parameters.join("&")
        )
    }

    /// Writes a file for clients.
    fn client_file(&self, name: &str, text: &str) -> String {
        let path = self.data_dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Writes a file that only PostgreSQL's user may read, as PostgreSQL demands of a key.
fn give_to_postgres(data_dir: &Path, name: &str, text: &str) -> String {
    let path = data_dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let owner = fs::metadata(data_dir.join("postgres")).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs `likemind migrate`, which must fail, and returns its message.
fn refusal(url: &str) -> String {
    let output = output(&mut command_at(url, &["migrate"]));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    errors
}

#[tokio::test]
async fn a_database_that_requires_tls_is_reached_and_its_certificate_is_checked() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let postgres = Secured::start("tls-server", ours.sign(), ours.pem()).await;
    let (ca, wrong_ca) = (
        postgres.client_file("ca.pem", &ours.pem()),
        postgres.client_file("other.pem", &other.pem()),
    );
    let at = |host: &str, parameters: &[(&str, &str)]| postgres.url(host, "likemind", parameters);
    let address = "127.0.0.1";

    for (url, reason) in [
        (at(address, &[("sslmode", "disable")]), "no encryption"),
        // Only the file names the authority that has signed the server's certificate.
        (at(address, &[("sslmode", "verify-full")]), "UnknownIssuer"),
        (
            at(address, &[("sslmode", "verify-full"), ("sslrootcert", &wrong_ca)]),
            "UnknownIssuer",
        ),
        // The certificate is for the address.
        (
            at("localhost", &[("sslmode", "verify-full"), ("sslrootcert", &ca)]),
            "not valid for name",
        ),
    ] {
        let errors = refusal(&url);
        assert!(errors.contains(reason), "{reason}: {errors}");
    }
    for url in [
        at(address, &[("sslmode", "require")]),
        at(address, &[("sslmode", "verify-full"), ("sslrootcert", &ca)]),
        at("localhost", &[("sslmode", "verify-ca"), ("sslrootcert", &ca)]),
        // The default takes TLS where it is offered.
        at(address, &[]),
    ] {
        succeed_at(&url, &["migrate"]);
        succeed_at(&url, &["snapshots", "list"]);
    }
}

#[tokio::test]
async fn a_database_that_asks_for_a_client_certificate_gets_it() {
    let ours = Authority::new("ours");
    let postgres = Secured::start("tls-clients", ours.sign(), ours.pem()).await;
    let ca = postgres.client_file("ca.pem", &ours.pem());
    let present = |parameters: &[(&str, &str)]| {
        let checked = [("sslmode", "verify-full"), ("sslrootcert", &*ca)];
        postgres.url("127.0.0.1", BY_CERTIFICATE, &[&checked, parameters].concat())
    };
    let certificate_of = |name: &str| {
        let identity = ours.sign_client(name);
        let certificate = postgres.client_file(&format!("{name}.pem"), &identity.certificate);
        let key = postgres.client_file(&format!("{name}.key"), &identity.key);
        present(&[("sslcert", &certificate), ("sslkey", &key)])
    };
    let errors = refusal(&present(&[]));
    assert!(errors.contains("client certificate"), "{errors}");
    let errors = refusal(&certificate_of("somebody"));
    assert!(errors.contains("certificate authentication failed"), "{errors}");
    succeed_at(&certificate_of("postgres"), &["migrate"]);
}
