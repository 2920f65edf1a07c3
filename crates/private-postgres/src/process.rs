//! Runs PostgreSQL's programs as the right user, so that they end with this process.

use std::env;
#[cfg(target_os = "linux")]
use std::fs;
use std::io;
#[cfg(target_os = "linux")]
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::account::Account;

/// The signals that [`end`] sends, and how long a process has to end after each.
const PATIENCE: [(i32, Duration); 3] = [
    // Fast shutdown: ends the sessions and writes a checkpoint.
    (libc::SIGINT, Duration::from_secs(60)),
    // Immediate shutdown: recovery at the next start.
    (libc::SIGQUIT, Duration::from_secs(10)),
    (libc::SIGKILL, Duration::from_secs(10)),
];

/// Makes a command that runs as `account`, without the terminal's signals and the `PG…` variables of this process. It
/// gets SIGINT when the **thread** that spawns it ends, or this process with it.
pub fn command(program: &Path, account: &Account) -> Command {
    let mut command = Command::new(program);
    account.apply(&mut command);
    // This locale gives messages in one language. On macOS another one may start threads, which PostgreSQL refuses.
    command.stdin(Stdio::null()).process_group(0).env("LC_ALL", "C");
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        let die_with_parent = move || {
            // SAFETY: a system call with numbers.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT as libc::c_ulong) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: reads a number of this process.
            if unsafe { libc::getppid() }.cast_unsigned() != parent {
                return Err(io::Error::other("the parent has ended"));
            }
            Ok(())
        };
        // SAFETY: between fork and exec `die_with_parent` makes two system calls and, but for an error, allocates
        // nothing. It runs after the change of user, which would clear the signal.
        unsafe { command.pre_exec(die_with_parent) };
    }
    command
}

/// Returns whether process `pid` is a live postmaster of the data in `cluster`: not a zombie that nobody reaped, and not
/// a later process of the same number.
#[cfg(target_os = "linux")]
pub fn is_postmaster(pid: i32, cluster: &Path, account: &Account) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let Ok(status) = fs::read_to_string(process.join("stat")) else {
        return false;
    };
    let zombie = status
        .rsplit_once(") ")
        .is_none_or(|(_, fields)| fields.starts_with(['Z', 'X']));
    let (Ok(found), Ok(works_in), Ok(cluster)) = (
        fs::metadata(&process),
        fs::metadata(process.join("cwd")),
        fs::metadata(cluster),
    ) else {
        return false;
    };
    !zombie && found.uid() == account.uid && (works_in.dev(), works_in.ino()) == (cluster.dev(), cluster.ino())
}

/// Returns whether process `pid` is a live postmaster of the data in `cluster`, and not a later process of that number.
#[cfg(not(target_os = "linux"))]
pub fn is_postmaster(pid: i32, cluster: &Path, _account: &Account) -> bool {
    let output = Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&*cluster.to_string_lossy()))
}

/// Returns whether a process has this number, even a zombie.
pub fn exists(pid: i32) -> bool {
    // SAFETY: signal 0 is not delivered; it only checks whether the process exists.
    let answer = unsafe { libc::kill(pid, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Ends a postmaster with ever stronger signals, until `is_gone` says that it has ended. Returns whether it has.
pub fn end(pid: i32, mut is_gone: impl FnMut() -> bool) -> bool {
    for (signal, patience) in PATIENCE {
        if signal != libc::SIGINT {
            tracing::warn!(pid, signal, "PostgreSQL does not end; sending a stronger signal");
        }
        // SAFETY: the caller knows that the process is PostgreSQL's.
        unsafe { libc::kill(pid, signal) };
        let started = Instant::now();
        while started.elapsed() < patience {
            if is_gone() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    false
}
