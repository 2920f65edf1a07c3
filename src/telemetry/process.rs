//! The metrics of the process, under the names that Prometheus' own clients use. They are read from `/proc/self`.

use std::fmt::Write;
use std::fs;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The figures that `/proc/self` gives of this process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct ProcessStatus {
    cpu_seconds: f64,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
    open_files: u64,
    max_open_files: u64,
    start_time_unix_seconds: f64,
}

/// Returns the metrics in Prometheus' text format; nothing where there is no `/proc`.
pub(super) fn metrics() -> String {
    let Some(status) = read() else {
        return String::new();
    };
    let mut text = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
    };
    line(
        "process_cpu_seconds_total",
        "counter",
        "Time of all cores that the process has used, in seconds.",
        status.cpu_seconds,
    );
    line(
        "process_resident_memory_bytes",
        "gauge",
        "Memory of the process that is in RAM.",
        status.resident_bytes as f64,
    );
    line(
        "process_virtual_memory_bytes",
        "gauge",
        "Address space of the process.",
        status.virtual_bytes as f64,
    );
    line(
        "process_threads",
        "gauge",
        "Threads of the process.",
        status.threads as f64,
    );
    line(
        "process_open_fds",
        "gauge",
        "Open files and connections.",
        status.open_files as f64,
    );
    line(
        "process_max_fds",
        "gauge",
        "Most files and connections that may be open.",
        status.max_open_files as f64,
    );
    line(
        "process_start_time_seconds",
        "gauge",
        "Start of the process in seconds since 1970.",
        status.start_time_unix_seconds,
    );
    text
}

fn read() -> Option<ProcessStatus> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    // SAFETY: the function takes a number and touches nothing.
    let (ticks_per_second, page_bytes) =
        unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
    let uptime_seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    let mut status = parse(&stat, &limits, ticks_per_second as f64, page_bytes as u64)?;
    // It must not change between two reads, as it identifies the process.
    static START: OnceLock<f64> = OnceLock::new();
    status.start_time_unix_seconds = *START.get_or_init(|| now - uptime_seconds + status.start_time_unix_seconds);
    status.open_files = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(status)
}

/// Reads `/proc/self/stat` and `/proc/self/limits`. The start time is then still that since the start of the machine.
fn parse(stat: &str, limits: &str, ticks_per_second: f64, page_bytes: u64) -> Option<ProcessStatus> {
    // The name, in parentheses, may contain anything. The first field after it is the third of proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let max_open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    Some(ProcessStatus {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks_per_second,
        threads: field(20)?,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_bytes,
        // An unlimited number is not one.
        max_open_files: max_open_files.split_whitespace().next()?.parse().unwrap_or(u64::MAX),
        start_time_unix_seconds: field(22)? as f64 / ticks_per_second,
        open_files: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_read() {
        let stat =
            "42 (a) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1200 8192000 300 18446744073709551615";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        let expected = ProcessStatus {
            cpu_seconds: 3.0,
            threads: 7,
            virtual_bytes: 8_192_000,
            resident_bytes: 300 * 4096,
            open_files: 0,
            max_open_files: 1024,
            start_time_unix_seconds: 12.0,
        };
        assert_eq!(parse(stat, limits, 100.0, 4096), Some(expected));
        assert_eq!(parse("42 (cut) S 1", limits, 100.0, 4096), None);
    }
}
