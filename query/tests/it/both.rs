//! The same events into both stores: the same rows, and the same answers to the byte.

use crate::world::{History, Kind, World, day, order, whole_life};

/// Everything that a list may sort or compare in a way of its own: letters, digits, cases, accents, escapes.
const CUSTOMERS: [&str; 9] = ["a", "B", "b", "Ä", "ä", "z-1", "z1", "Z 1", "日本"];

async fn told(kind: Kind) -> World {
    let mut world = World::new(kind).await;
    for (n, customer) in (1..).zip(CUSTOMERS) {
        let history = History::new(order(u128::from(n)), day(1 + n % 3))
            .created(
                customer,
                ["USD", "JPY", "BHD"][usize::try_from(n % 3).unwrap()],
                &[(customer, n, "15"), ("prod-2", 1, "12")],
            )
            .cancelled("nul \0, quote \" and \u{1f980}");
        world.happen(&history.events).await;
    }
    world.happen(&whole_life(20)).await;
    // One waits, two are set aside.
    world.happen(&whole_life(21)[1..]).await;
    let mut records = vec![world.message(order(22), "{".into()), world.record(&whole_life(23)[0])];
    records[1].key = Some(b"nul \0 key".to_vec());
    world.apply(records).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_answers_are_the_same() {
    let (sqlite, postgres) = (told(Kind::Sqlite).await, told(Kind::Postgres).await);
    assert_eq!(sqlite.dump().await, postgres.dump().await);
    assert_eq!(sqlite.store.checkpoints().await.unwrap(), postgres.store.checkpoints().await.unwrap());
    let order_1 = format!("/orders/{}", order(1));
    let mut paths = vec![
        order_1.clone(),
        format!("{order_1}/history"),
        format!("/orders/{}", order(21)),
        "/customers/%C3%84".to_owned(),
    ];
    let lists = ["/orders", "/customers", "/sales/daily", "/products", "/cancellations"];
    paths.extend(lists.map(|list| format!("{list}?limit=3")));
    paths.extend(
        [
            "status=CANCELLED",
            "sku=prod-2",
            "sku=%E6%97%A5%E6%9C%AC",
            "min_total=50&currency=JPY",
            "sort=total&limit=1",
            "sort=-total&limit=1&sku=prod-2",
            "sort=created_at&limit=2&count=true",
        ]
        .map(|filter| format!("/orders?{filter}")),
    );
    while let Some(path) = paths.pop() {
        let (one, other) = (sqlite.get(&path).await, postgres.get(&path).await);
        assert_eq!((one.status, &one.text), (other.status, &other.text), "{path}");
        for header in ["etag", "link", "content-type", "x-total-count"] {
            assert_eq!(one.headers.get(header), other.headers.get(header), "{path}");
        }
        // And so on, page by page.
        let next = one.headers.get("link").and_then(|link| link.to_str().unwrap().split(['<', '>']).nth(1));
        paths.extend(next.map(str::to_owned));
    }
    for path in ["/dead-letters", "/parked"] {
        let (mut one, mut other) = (sqlite.get(path).await.json(), postgres.get(path).await.json());
        for row in [&mut one, &mut other].into_iter().flat_map(|rows| rows.as_array_mut().unwrap()) {
            // When a node saw it is its own to tell.
            let row = row.as_object_mut().unwrap();
            assert!(row.remove("seen_at").or(row.remove("parked_at")).is_some());
        }
        one.as_array_mut().unwrap().sort_by_key(|row| row["offset"].as_i64());
        other.as_array_mut().unwrap().sort_by_key(|row| row["offset"].as_i64());
        assert_eq!(one, other, "{path}");
    }
}
