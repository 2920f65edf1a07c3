//! Shows the progress of an import.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tabular::input::Input;

use crate::app::import::Progress;

/// Shows the progress as a bar on a terminal, and in log lines otherwise.
pub(super) struct Report {
    bar: ProgressBar,
    last_log: Instant,
}

impl Report {
    const LOG_INTERVAL: Duration = Duration::from_secs(5);

    pub fn new(input: &Input) -> Self {
        let (bar, template) = match (std::io::stderr().is_terminal(), input.bytes) {
            (false, _) => (ProgressBar::hidden(), "{msg}"),
            (true, Some(bytes)) => (
                ProgressBar::new(bytes),
                "{bar:30} {percent:>3} %  {msg}  {elapsed} (about {eta} left)",
            ),
            (true, None) => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}  {elapsed}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.with_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self {
            bar,
            last_log: Instant::now(),
        }
    }

    pub fn update(&mut self, progress: Progress<'_>) {
        let summary = progress.summary;
        let rate = summary.lines_per_second() as u64;
        if self.bar.is_hidden() {
            if self.last_log.elapsed() >= Self::LOG_INTERVAL {
                self.last_log = Instant::now();
                let percent = progress.bytes.map(|bytes| 100 * progress.bytes_read / bytes.max(1));
                let (read, rejected) = (summary.read, summary.rejected);
                tracing::info!(
                    read,
                    rejected,
                    percent,
                    rate,
                    "imported {read} lines so far, {rate} per second"
                );
            }
            return;
        }
        self.bar.set_position(progress.bytes_read);
        self.bar.set_message(format!(
            "{} lines, {} rejected, {} per second",
            HumanCount(summary.read),
            HumanCount(summary.rejected),
            HumanCount(rate)
        ));
    }

    pub fn end(self) {
        self.bar.finish_and_clear();
    }
}
