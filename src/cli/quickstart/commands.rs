//! Shell commands that quickstart prints for its user to try.

use std::path::PathBuf;

use serde_json::Value;

use crate::cli::call::{KEY_VARIABLE, command_line, quoted};
use crate::cli::database::data_dir;
use crate::config::Config;
use crate::store::postgres::options::without_passwords;

pub(super) struct Commands {
    /// The path of this program for the user's shell.
    program: String,
    address: String,
    /// The folder of the private PostgreSQL, if that is in use.
    data_dir: Option<PathBuf>,
    sections: Vec<Section>,
}

struct Section {
    title: String,
    lines: Vec<String>,
}

impl Commands {
    pub(super) fn new(config: &Config, address: &str) -> Self {
        let private = || data_dir(config);
        Self {
            program: std::env::args().next().unwrap_or_else(|| "likemind".to_owned()),
            address: address.to_owned(),
            data_dir: config.database.url.is_none().then(private),
            sections: Vec::new(),
        }
    }

    /// Begins a section with the title `title`.
    pub(super) fn begin(&mut self, title: &str) {
        self.sections.push(Section {
            title: title.to_owned(),
            lines: Vec::new(),
        });
    }

    pub(super) fn call(&mut self, method: &str, request: &Value) {
        let line = self.call_line(method, request);
        self.add(line);
    }

    /// Adds a call that keeps the text field `field` of its answer in a shell variable of the same name.
    pub(super) fn call_keeping(&mut self, field: &str, method: &str, request: &Value) {
        let call = self.call_line(method, request);
        self.add(format!(
            r#"{field}=$({call} | sed -n 's/.*"{field}": "\(.*\)".*/\1/p')"#
        ));
    }

    /// Adds a call whose request contains `$field`, which [`Self::call_keeping`] has set.
    pub(super) fn call_with(&mut self, field: &str, method: &str, request: &Value) {
        let call = self.call_line(method, request);
        self.add(call.replace(&format!("${field}"), &format!(r#"'"${field}"'"#)));
    }

    /// Adds a command of this program that works on the database.
    pub(super) fn likemind(&mut self, args: &[&str]) {
        let data_dir = self
            .data_dir
            .iter()
            .map(|folder| format!("--data-dir={}", folder.display()));
        let words = std::iter::once(self.program.clone())
            .chain(args.iter().map(|&arg| arg.to_owned()))
            .chain(data_dir);
        let line = words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ");
        self.add(line);
    }

    /// Prints how to begin again when the server, and with it every command that asks it, has ended.
    pub(super) fn print_how_to_start_again() {
        let mut words = std::env::args().filter(|word| word != "--exit");
        let program = words.next().unwrap_or_else(|| "likemind".to_owned());
        let words: Vec<String> = std::iter::once(program)
            .chain(words.map(|word| without_passwords(&word)))
            .map(|word| quoted(&word))
            .collect();
        println!("\nThe server has ended, and with it its API key. To serve this again and to see how to ask it:");
        println!("  {}", words.join(" "));
    }

    /// Prints the commands for whoever has `key`.
    pub(super) fn print(&self, key: &str) {
        for (position, section) in self.sections.iter().enumerate() {
            println!("\n{}", section.title);
            if position == 0 {
                println!("  export {KEY_VARIABLE}={key}");
            }
            for line in &section.lines {
                println!("  {line}");
            }
        }
    }

    fn call_line(&self, method: &str, request: &Value) -> String {
        command_line(&self.program, method, request, &self.address)
    }

    fn add(&mut self, line: String) {
        if let Some(section) = self.sections.last_mut() {
            section.lines.push(line);
        }
    }
}
