//! Threads that stand behind those that answer calls.

use std::{io, thread};

/// How far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Not at all: nothing is answered yet.
    Equal,
    /// Gets what others leave of a core, and next to nothing where they leave nothing. Whoever wakes takes the core at once,
    /// where even the lowest nice value would first be given the rest of its slice, some milliseconds.
    Leftovers,
    /// Gets a tenth of a core that another one wants for itself.
    Tenth,
}

/// Does `work` on a thread of its own: a pool's thread could not be given its priority back.
///
/// # Errors
/// The system starts no thread.
pub(super) fn spawn(priority: Priority, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        step_back(priority);
        work();
    };
    thread::Builder::new().name("loading".to_owned()).spawn(work).map(drop)
}

/// Lowers the priority of the calling thread, where the system has one for each.
fn step_back(priority: Priority) {
    #[cfg(target_os = "linux")]
    match priority {
        Priority::Equal => {}
        Priority::Leftovers => {
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
