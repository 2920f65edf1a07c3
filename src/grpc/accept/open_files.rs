//! How many files, and so how many connections, the process may have open.

use std::io;

/// Files that a server has open besides its connections: logs, timers of the runtimes, files of TLS, the metrics port.
const OTHER_FILES: usize = 64;

/// Raises the limit on open files as far as it may be raised. Returns the limit, or `None` where there is none that matters.
///
/// # Errors
/// The system does not tell the limit, or does not change it.
pub fn raise_limit() -> io::Result<Option<usize>> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the structure lives through the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(usize::try_from(limit.rlim_cur)
        .ok()
        .filter(|_| limit.rlim_cur != libc::RLIM_INFINITY))
}

/// Returns how many connections of clients fit into `max_files` beside `reserved` files, such as connections to the database.
pub fn max_connections(max_files: usize, reserved: usize) -> usize {
    max_files.saturating_sub(reserved + OTHER_FILES).max(1)
}
