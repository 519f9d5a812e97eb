//! What a client may keep, and that it is told what has not changed without being sent it again.

use axum::body::Body;
use axum::http::{HeaderMap, Request};

use crate::desk::ask_about_damage;
use crate::world::{Answer, History, Kind, World, day, on_both_stores, order, whole_life};

on_both_stores!(
    whatever_has_an_etag_is_not_sent_again,
    the_past_may_be_kept_for_ever,
    a_customer_has_an_etag_of_what_it_shows,
    lists_are_asked_for_each_time_and_operations_and_refusals_never_kept,
    a_stored_document_is_served_as_it_is,
);

const REVALIDATED: &str = "private, no-cache";
const IMMUTABLE: &str = "private, max-age=31536000, immutable";

fn keep(headers: &HeaderMap) -> &str {
    headers["cache-control"].to_str().unwrap()
}

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

/// Asks once more with the tag of the answer: it is the same, and not sent.
async fn assert_unchanged(world: &World, path: &str, seen: &Answer) {
    for known in [etag(seen), format!("\"x\", {}", etag(seen)), "*".to_owned()] {
        let again = world.get_with(path, &[("if-none-match", &known)]).await;
        assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""), "{path} {known}");
        assert_eq!((etag(&again), keep(&again.headers)), (etag(seen), keep(&seen.headers)), "{path}");
    }
    let other = world.get_with(path, &[("if-none-match", "W/\"other\"")]).await;
    assert_eq!((other.status.as_u16(), &other.text), (200, &seen.text), "{path}");
}

async fn whatever_has_an_etag_is_not_sent_again(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events[..2]).await;
    for page in ["", "/history", "/diff?from=1", "?as_of=2026-11-01T12:00:00Z"] {
        let path = format!("/orders/{}{page}", order(1));
        let seen = world.get(&path).await;
        assert_eq!((seen.status.as_u16(), keep(&seen.headers)), (200, REVALIDATED), "{path}");
        assert_unchanged(&world, &path, &seen).await;
    }
    let path = format!("/orders/{}/history", order(1));
    let before = etag(&world.get(&path).await);
    world.happen(&events[2..]).await;
    let after = world.get_with(&path, &[("if-none-match", &before)]).await;
    assert_eq!((after.status.as_u16(), after.json().as_array().unwrap().len()), (200, 4));
    assert_eq!(etag(&after), "W/\"4\"");
}

async fn the_past_may_be_kept_for_ever(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)[..3]).await;
    let path = |page: &str| format!("/orders/{}{page}", order(1));
    for page in ["?as_of_version=2", "?as_of_version=3", "/diff?from=1&to=3", "/diff?from=0&to=1", "/diff?from=2&to=2"]
    {
        let seen = world.get(&path(page)).await;
        assert_eq!((seen.status.as_u16(), keep(&seen.headers)), (200, IMMUTABLE), "{page}");
        assert_unchanged(&world, &path(page), &seen).await;
    }
    // What has not happened yet has no past, whatever a client says it has.
    for page in ["?as_of_version=4", "?as_of_version=0", "/diff?from=1&to=4", "/diff?from=4&to=1", "/diff?from=4"] {
        let unknown = world.get_with(&path(page), &[("if-none-match", "*")]).await;
        unknown.assert_problem(404, "unknown-version");
        assert_eq!(keep(&unknown.headers), "no-store", "{page}");
    }
    world
        .get_with(&format!("/orders/{}?as_of_version=1", order(2)), &[("if-none-match", "*")])
        .await
        .assert_problem(404, "unknown-order");
}

async fn a_customer_has_an_etag_of_what_it_shows(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    let path = "/customers/customer-1";
    let seen = world.get(path).await;
    assert_eq!(keep(&seen.headers), REVALIDATED);
    assert_unchanged(&world, path, &seen).await;
    // What does not concern the customer changes nothing; what does, does.
    let other = History::new(order(2), day(2)).created("customer-2", "USD", &[("prod-1", 1, "1.00")]);
    world.happen(&other.events).await;
    assert_unchanged(&world, path, &seen).await;
    world.happen(&whole_life(3)[..1]).await;
    let after = world.get_with(path, &[("if-none-match", &etag(&seen))]).await;
    assert_eq!(after.status, 200);
    assert_ne!(etag(&after), etag(&seen));
}

async fn lists_are_asked_for_each_time_and_operations_and_refusals_never_kept(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    for list in ["/orders", "/customers", "/products", "/sales/daily", "/cancellations"] {
        let seen = world.get(list).await;
        assert_eq!((keep(&seen.headers), seen.headers.contains_key("etag")), (REVALIDATED, false), "{list}");
        assert_eq!(keep(&world.get(&format!("{list}?limit=0")).await.headers), "no-store", "{list}");
    }
    for page in ["/projection", "/dead-letters", "/parked"] {
        let seen = world.get(page).await;
        assert_eq!((seen.status.as_u16(), keep(&seen.headers)), (200, "no-store"), "{page}");
    }
    assert_eq!(keep(&world.get(&format!("/orders/{}", order(2))).await.headers), "no-store");
}

async fn a_stored_document_is_served_as_it_is(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    // Whoever parsed it and wrote it anew would leave out the blanks, and refuse what is no JSON.
    let mark = "update orders set document = '{ not , read \u{1f980} }'";
    world.tamper(mark, mark).await;
    let document = "{ not , read \u{1f980} }";
    let ask = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        ask_about_damage(&world.router, request).await.text
    };
    assert_eq!(ask(&format!("/orders/{}", order(1))).await, document);
    assert_eq!(ask("/orders").await, format!("[{document}]"));
}
