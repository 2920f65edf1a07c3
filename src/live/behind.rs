//! Threads that stand behind those that answer calls.

use std::{io, thread};

/// Does `work` on a thread of its own that leaves its core to whoever answers calls: a pool's thread could not be given its
/// priority back.
///
/// # Errors
/// The system starts no thread.
pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = || {
        step_back();
        work();
    };
    thread::Builder::new().name("loading".to_owned()).spawn(work).map(drop)
}

/// Lowers the priority of the calling thread, where the system has one for each: it gets a tenth of a core that another
/// one wants for itself.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        const NICE: libc::c_int = 10;
        if std::env::var("LIKEMIND_PACE").is_ok_and(|p| p == "idle") {
            let p = libc::sched_param { sched_priority: 0 };
            // SAFETY: x
            unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &p) };
            return;
        }
        // SAFETY: the call reads and writes no memory of this process.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    }
}
