//! Starts threads that leave the processor to those that answer calls.

use std::{io, thread};

/// The priority of a thread against those that answer calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Runs like all others, while no calls are answered yet.
    Equal,
    /// Runs only on otherwise idle CPU time (`SCHED_IDLE`). A thread that wakes takes the core at once; a thread of the
    /// lowest nice value would first finish its time slice, some milliseconds.
    Idle,
    /// Gets a tenth of a core that another thread wants for itself.
    Tenth,
}

/// Does `work` on a new thread: a thread of a pool could not get its priority back.
///
/// # Errors
/// When the system starts no thread.
pub(super) fn spawn(priority: Priority, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        lower_priority(priority);
        work();
    };
    thread::Builder::new().name("loading".to_owned()).spawn(work).map(drop)
}

/// Lowers the priority of the calling thread, if the system has priorities for threads.
fn lower_priority(priority: Priority) {
    #[cfg(target_os = "linux")]
    match priority {
        Priority::Equal => {}
        Priority::Idle => {
            let parameters = libc::sched_param { sched_priority: 0 };
            // SAFETY: the pointer is to a structure that lives until the call returns, and is only read.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
        }
        Priority::Tenth => {
            const NICE: libc::c_int = 10;
            // SAFETY: the call reads and writes no memory of this process.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = priority;
}
