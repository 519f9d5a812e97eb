//! Work that blocks, out of the way of what waits: the writer's connection answers on the thread that asks.

use std::future::poll_fn;
use std::pin::pin;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Runs what never waits and may take long, and leaves the thread's other tasks to other threads meanwhile. On a runtime of
/// one thread there are none, so it runs as it is.
pub(in crate::store) async fn apart<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|context| blocking(|| work.as_mut().poll(context))).await
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}
