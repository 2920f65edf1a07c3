//! `likemind config`: prints the configuration in effect.

use super::Exit;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// Print JSON instead of TOML
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ConfigArgs, config: &Config) -> anyhow::Result<Exit> {
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&config.to_json())?),
        false => print!("{}", config.to_toml()),
    }
    Ok(Exit::Done)
}
