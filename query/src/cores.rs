//! Work that takes processors and never waits: out of the way of what waits, and on several of them.

use std::future::poll_fn;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::LazyLock;
use std::thread::{available_parallelism, scope};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Items that are worth a thread for a moment: a millisecond or more of work.
const PART_ITEMS_MIN: usize = 250;
/// The most threads for one piece of work.
const PARTS_MAX: usize = 4;

static PROCESSORS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, Into::into));

/// Runs what never waits and may take long, and leaves the thread's other tasks to other threads meanwhile. On a runtime of
/// one thread there are none, so it runs as it is.
pub(crate) async fn apart<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|context| blocking(|| work.as_mut().poll(context))).await
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

/// What each of the items becomes, in their order.
pub(crate) fn map<T: Send, U: Send>(items: Vec<T>, each: impl Fn(T) -> U + Sync) -> Vec<U> {
    let parts = (items.len() / PART_ITEMS_MIN).min(*PROCESSORS).min(PARTS_MAX);
    if parts < 2 {
        return items.into_iter().map(each).collect();
    }
    let all = |items: Vec<T>| items.into_iter().map(&each).collect::<Vec<U>>();
    let part_items = items.len().div_ceil(parts);
    let (mut first, mut rest) = (items, Vec::new());
    while first.len() > part_items {
        rest.push(first.split_off(first.len() - part_items));
    }
    scope(|scope| {
        let others: Vec<_> = rest.into_iter().rev().map(|part| scope.spawn(|| all(part))).collect();
        let mut done = all(first);
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_kept_however_many_there_are() {
        for count in [0, 1, PART_ITEMS_MIN - 1, 2 * PART_ITEMS_MIN, 7 * PART_ITEMS_MIN + 3] {
            let doubled = map((0..count).collect(), |n| 2 * n);
            assert_eq!(doubled, (0..count).map(|n| 2 * n).collect::<Vec<_>>());
        }
    }
}
