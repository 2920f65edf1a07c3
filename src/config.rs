//! Loads the configuration from defaults, `likemind.toml`, the environment and flags. Later sources win.
//!
//! Every section is an options struct beside the code that it configures. This file only composes and loads them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::admission::options::AccessOptions;
use crate::app::import::settings::ImportSettings;
use crate::app::privacy::PrivacySection;
use crate::app::retraining::ErasureOptions;
use crate::app::train::TrainerOptions;
use crate::app::user_export::HoldingRules;
use crate::grpc::options::ServerOptions;
use crate::grpc::tls::options::TlsOptions;
use crate::live::options::LiveOptions;
use crate::store::postgres::options::{DatabaseOptions, without_passwords};
use crate::telemetry::TelemetryOptions;
use coupons::options::CouponOptions;
use domain::error::InvalidField;
use domain::rating::RatingScale;
use recommender::evaluation::bias::options::BiasOptions;
use recommender::evaluation::gate::GateOptions;
use recommender::evaluation::options::EvaluationOptions;
use recommender::snapshot::parameters::{TrainingOptions, TrainingParameters};

/// The configuration file in the working folder, read if it exists and no other file is named.
pub const DEFAULT_FILE: &str = "likemind.toml";
const ENVIRONMENT_PREFIX: &str = "LIKEMIND";
const SEPARATOR: &str = "__";

#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of the private PostgreSQL. If absent, `/var/lib/likemind` for root and `$XDG_DATA_HOME/likemind` for
    /// others.
    pub data_dir: Option<PathBuf>,
    pub rating: RatingScale,
    pub database: DatabaseOptions,
    pub server: ServerOptions,
    pub access: AccessOptions,
    pub tls: TlsOptions,
    pub live: LiveOptions,
    pub training: TrainingOptions,
    pub trainer: TrainerOptions,
    pub evaluation: EvaluationOptions,
    pub gate: GateOptions,
    pub bias: BiasOptions,
    pub import: ImportSettings,
    pub privacy: PrivacySection,
    pub erasure: ErasureOptions,
    pub coupons: CouponOptions,
    pub telemetry: TelemetryOptions,
}

/// The sources of settings, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A configuration file, which must exist. If absent, [`DEFAULT_FILE`] is read if it exists.
    pub file: Option<PathBuf>,
    /// The environment variables of the process.
    pub environment: HashMap<String, String>,
    /// Dotted keys and values from the command line.
    pub flags: Vec<(String, String)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {} cannot be read", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The library quotes the values that it refuses, and whole lines of a file, so this is its text without lines of the
    /// file and without passwords.
    #[error("the configuration is not valid: {0}")]
    Load(String),
    #[error("the configuration is not valid")]
    Value(#[from] InvalidField),
}

impl Config {
    /// # Errors
    /// [`ConfigError`] names the unreadable file, the unknown key, or the key whose value is not valid.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(text) = read_file(sources.file.as_deref())? {
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        let environment = config::Environment::with_prefix(ENVIRONMENT_PREFIX)
            .prefix_separator(SEPARATOR)
            .separator(SEPARATOR)
            .source(Some(sources.environment.clone().into_iter().collect()));
        builder = builder.add_source(environment);
        for (key, value) in &sources.flags {
            builder = builder.set_override(key, value.as_str()).map_err(refused)?;
        }
        let loaded = builder.build().map_err(refused)?;
        let config: Self = loaded.try_deserialize().map_err(refused)?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), InvalidField> {
        self.rating.validate()?;
        self.database.validate()?;
        self.tls.validate()?;
        self.server.validate(&self.tls)?;
        self.access.validate()?;
        self.live.validate()?;
        self.training.validate()?;
        self.trainer.validate()?;
        self.evaluation.validate()?;
        self.gate.validate()?;
        self.bias.validate()?;
        self.validate_group_ratio()?;
        self.import.validate()?;
        self.privacy.validate()?;
        self.erasure.validate()?;
        self.coupons.validate()?;
        self.validate_exposures()?;
        self.telemetry.validate()
    }

    /// A limit on the ratio of groups holds nothing without groups.
    fn validate_group_ratio(&self) -> Result<(), InvalidField> {
        if self.gate.min_group_ratio.is_some() && self.bias.attributes.is_empty() {
            let message = "needs bias.attributes, which names the attributes whose groups are compared";
            return Err(InvalidField::new("gate.min_group_ratio", "MISSING", message));
        }
        Ok(())
    }

    /// The cap on exposures counts those of its window.
    fn validate_exposures(&self) -> Result<(), InvalidField> {
        let window = self.coupons.exposure_window_days;
        match self.privacy.retention_days.exposures {
            Some(days) if days < window => {
                let message = format!("must be coupons.exposure_window_days ({window}) or more, is {days}");
                Err(InvalidField::new(
                    "privacy.retention_days.exposures",
                    "OUT_OF_RANGE",
                    message,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Returns everything that determines a model besides its data.
    pub fn training_parameters(&self) -> TrainingParameters {
        TrainingParameters {
            scale: self.rating,
            options: self.training.clone(),
        }
    }

    /// Returns the rules under which data on users is held.
    pub fn holding_rules(&self) -> HoldingRules {
        HoldingRules {
            privacy: self.privacy.consent(),
            retention: self.privacy.retention_days,
            import_undo_days: self.import.undo_days,
        }
    }

    /// Formats the configuration as a file that loads, except that secrets are redacted.
    pub fn to_toml(&self) -> String {
        let serde_json::Value::Object(config) = self.to_json() else {
            unreachable!("a struct serializes to an object");
        };
        let mut text = String::new();
        for (key, value) in &config {
            if !value.is_object() {
                push_entry(&mut text, key, value);
            }
        }
        for (section, entries) in &config {
            if let serde_json::Value::Object(entries) = entries {
                text.push_str(&format!("\n[{section}]\n"));
                for (key, value) in entries {
                    push_entry(&mut text, key, value);
                }
            }
        }
        text
    }

    /// Returns the configuration as JSON with secrets redacted.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_else(|_| unreachable!("strings, numbers and paths of Unicode serialize"))
    }
}

/// Appends one entry. JSON scalars are valid TOML; an absent value becomes a comment, and a table one entry for each of its keys.
fn push_entry(text: &mut String, key: &str, value: &serde_json::Value) {
    match value {
        serde_json::Value::Object(table) => {
            for (name, value) in table {
                push_entry(text, &format!("{key}.{name}"), value);
            }
        }
        serde_json::Value::Null => text.push_str(&format!("# {key} is not set\n")),
        value => text.push_str(&format!("{key} = {value}\n")),
    }
}

fn refused(error: config::ConfigError) -> ConfigError {
    let text = error.to_string();
    ConfigError::Load(match error {
        config::ConfigError::FileParse { .. } => without_quoted_lines(&text),
        _ if text.contains("for key `database") && !text.contains("://") => without_quoted_value(&text),
        _ => without_passwords(&text),
    })
}

/// Removes the lines of the file that the parser quotes, each behind its number and `|`: one may hold a password. The number
/// of the line and the column stay.
fn without_quoted_lines(text: &str) -> String {
    let is_quoted = |line: &str| {
        line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit())
            .starts_with('|')
    };
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !is_quoted(line))
        .collect();
    lines.join(": ")
}

/// Replaces the value that stands between the first and the last quotation mark. Where a URL of a database is expected, it
/// may be a password.
fn without_quoted_value(text: &str) -> String {
    match (text.find('"'), text.rfind('"')) {
        (Some(start), Some(end)) if start < end => format!("{}\"[redacted]\"{}", &text[..start], &text[end + 1..]),
        _ => text.to_owned(),
    }
}

fn read_file(named: Option<&Path>) -> Result<Option<String>, ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::error::chain;

    fn load(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect()
        };
        let sources = Sources {
            file: Some(file.path().to_owned()),
            environment: pairs(environment).into_iter().collect(),
            flags: pairs(flags),
        };
        Config::load(&sources).map_err(|error| chain(&error))
    }

    #[test]
    fn without_sources_the_defaults_apply() {
        assert_eq!(load("", &[], &[]), Ok(Config::default()));
    }

    #[test]
    fn a_printed_configuration_loads_unchanged() {
        let mut config = Config::default();
        config.training.neighbors = 7;
        config.data_dir = Some("/srv/a \"quoted\" folder".into());
        config.bias.attributes = vec!["age".to_owned(), "income, \"net\"".to_owned()];
        assert_eq!(load(&config.to_toml(), &[], &[]), Ok(config));
    }

    #[test]
    fn later_sources_win() {
        let toml = "[training]\nneighbors = 10\nseed = 2\n[rating]\nmax = 10";
        let environment = [
            ("LIKEMIND__TRAINING__NEIGHBORS", "20"),
            ("OTHER__TRAINING__NEIGHBORS", "21"),
        ];
        let config = load(toml, &environment, &[]).unwrap();
        assert_eq!(
            (config.training.neighbors, config.training.seed, config.rating.max),
            (20, 2, 10.0)
        );
        let config = load(toml, &environment, &[("training.neighbors", "30")]).unwrap();
        assert_eq!((config.training.neighbors, config.training.seed), (30, 2));
    }

    #[test]
    fn the_environment_gives_lists_with_commas() {
        let environment = [("LIKEMIND__BIAS__ATTRIBUTES", "age, income")];
        assert_eq!(load("", &environment, &[]).unwrap().bias.attributes, ["age", "income"]);
    }

    #[test]
    fn errors_name_the_key() {
        let check = |toml: &str, environment: &[(&str, &str)], part: &str| {
            let error = load(toml, environment, &[]).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check("[server]\nlisten_on = 1", &[], "listen_on");
        check("[sever]\nlisten = 1", &[], "sever");
        check("[training]\nneighbors = 'many'", &[], "training.neighbors");
        check("[training]\nneighbors = 0", &[], "training.neighbors");
        check("[rating]\nmin = 0", &[], "rating.min");
        check("[server]\nlisten = '0.0.0.0:1'", &[], "server.allow_unauthenticated");
        check("[server]\nlisten = '0.0.0.0:1'", &[], "server.allow_plaintext");
        check("[server]\nlisten = '0.0.0.0:1'", &[], "tls.certificate_file");
        check("[tls]\ncertificate_file = 'a'", &[], "tls.key_file");
        check("[tls]\nkey_file = 'a'", &[], "tls.certificate_file");
        check("[tls]\nclient_ca_file = 'a'", &[], "tls.certificate_file");
        check("[tls]\nreload_interval_ms = 0", &[], "tls.reload_interval_ms");
        check(
            "",
            &[("LIKEMIND__LIVE__REFRESH_INTERVAL_MS", "-1")],
            "live.refresh_interval_ms",
        );
        check("[gate]\nmax_shrink = 2", &[], "gate.max_shrink");
        check("[gate]\nmax_gini = 2", &[], "gate.max_gini");
        check("[gate]\nmin_group_ratio = 0.8", &[], "bias.attributes");
        check("[bias]\nmin_group = 1", &[], "bias.min_group");
        check("not toml", &[], "TOML");
    }

    #[test]
    fn every_key_is_documented() {
        let page = include_str!("../docs/configuration.md");
        let serde_json::Value::Object(config) = Config::default().to_json() else {
            panic!("not an object");
        };
        for (section, value) in config {
            let keys = match value {
                serde_json::Value::Object(entries) => entries.keys().map(|key| format!("{section}.{key}")).collect(),
                _ => vec![section],
            };
            for key in keys {
                let is_documented = page.lines().any(|line| line.starts_with("| ") && line.contains(&key));
                assert!(is_documented, "{key} is missing in the tables of docs/configuration.md");
            }
        }
    }

    #[test]
    fn errors_quote_no_password() {
        let check = |toml: &str, environment: &[(&str, &str)]| {
            let error = load(toml, environment, &[]).unwrap_err();
            assert!(error.contains("postgres://me:[redacted]@db/x"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        };
        check("", &[("LIKEMIND__DATABASE", "postgres://me:s3cret@db/x")]);
        check("database = 'postgres://me:s3cret@db/x'", &[]);
    }

    #[test]
    fn errors_of_the_file_name_the_line_and_quote_nothing_of_it() {
        for (toml, line) in [
            ("[database]\nurl = 'postgres://me:s3cret@db/x", 2),
            ("[database]\nurl = postgres://me:s3cret@db/x", 2),
            ("[database]\n\nurl = 's3cret' s3cret", 3),
            ("s3cret", 1),
            ("[database]\nurl = \"\"\"s3cret\n | s3cret\n", 3),
        ] {
            let error = load(toml, &[], &[]).unwrap_err();
            assert!(error.contains(&format!("line {line}, column")), "{toml:?}: {error}");
            assert!(!error.contains("s3cret") && !error.contains('\n'), "{toml:?}: {error}");
        }
        for toml in [
            "database = 's3cret'",
            "database = ['s3cret']",
            "[database]\nmax_connections = 's3cret'",
        ] {
            let error = load(toml, &[], &[]).unwrap_err();
            assert!(error.contains("database"), "{toml:?}: {error}");
            assert!(!error.contains("s3cret"), "{toml:?}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = load("[database]\nurl = 'postgres://me:s3cret@db/x'", &[], &[]).unwrap();
        let url = config.database.url.as_ref().unwrap();
        assert_eq!(url.expose(), "postgres://me:s3cret@db/x");
        for text in [config.to_toml(), config.to_json().to_string(), format!("{config:?}")] {
            assert!(text.contains("[redacted]") && !text.contains("s3cret"), "{text}");
        }
    }
}
