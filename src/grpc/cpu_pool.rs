//! Runs computations that may take longer than an async worker can be spared on other threads.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::LazyLock;

use tokio::sync::Semaphore;
use tonic::Status;

use super::status;

/// Most multiply-adds that an async worker does itself: about 100 µs.
pub const MAX_INLINE_WORK: usize = 200_000;

/// As many computations run at a time as there are cores. More would only share the cores, and each thread keeps
/// accumulators of its own.
static CORES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get)));

/// Does `work`, which takes about `multiply_adds`, on this thread, or on another one if it takes more than
/// [`MAX_INLINE_WORK`]. Work whose caller has gone away, or whose time has run out, before its turn has come is not begun.
///
/// # Panics
/// When `work` does.
///
/// # Errors
/// INTERNAL when the process is ending.
pub async fn run<T: Send + 'static>(
    multiply_adds: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    if multiply_adds <= MAX_INLINE_WORK {
        return Ok(work());
    }
    let core = CORES.acquire().await.map_err(|_| status::internal())?;
    let work = move || {
        let answer = work();
        drop(core);
        answer
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(_) => status::internal(),
    })
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn only_long_work_leaves_the_worker() {
        let worker = thread::current().id();
        assert_eq!(run(MAX_INLINE_WORK, || thread::current().id()).await.unwrap(), worker);
        assert_ne!(
            run(MAX_INLINE_WORK + 1, || thread::current().id()).await.unwrap(),
            worker
        );
    }

    #[tokio::test]
    async fn no_more_computations_run_at_a_time_than_there_are_cores() {
        let cores = thread::available_parallelism().unwrap().get();
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (under_way, most) = (under_way.clone(), most.clone());
            run(usize::MAX, move || {
                most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(5));
                under_way.fetch_sub(1, Ordering::SeqCst);
            })
        };
        let done = futures_util::future::join_all((0..cores * 4).map(|_| work())).await;
        assert!(done.iter().all(Result::is_ok));
        assert!(most.load(Ordering::SeqCst) <= cores, "{most:?} on {cores} cores");
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_frees_its_core() {
        for _ in 0..thread::available_parallelism().unwrap().get() * 2 {
            let result = AssertUnwindSafe(run::<()>(usize::MAX, || panic!("as asked"))).catch_unwind();
            assert!(result.await.is_err());
        }
        assert_eq!(run(usize::MAX, || 7).await.unwrap(), 7);
    }
}
