//! The read model built anew beside the one that is served, from a real topic (rules R11).

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::config::{Kafka, Secret};
use chassis::kafka::{Brokers, TopicSpec};
use chassis::testkit::eventually;
use clap::Parser as _;
use domain::{OrderEvent, Recorded};
use query::config::{Cli, Command};
use query::follow::Projecting;
use query::freshness::Freshness;
use query::generation::{Builder, Generation, Source, State};
use query::progress::Progress;
use query::projector::Projector;
use query::reader::TopicReader;
use query::rebuild::{Error, Phase, Rebuild, Told};
use query::store::answer::{ListFilter, Page};
use query::store::{Generations, Opened};
use query::verify::shown;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::desk::path_of_parked;
use crate::topic::Topic;
use crate::verification::change_next;
use crate::world::{History, Kind, World, day, on_both_stores, order, usd, whole_life};

on_both_stores!(
    a_rebuild_ends_in_the_same_rows,
    a_rebuild_that_was_stopped_goes_on_in_the_same_place,
    what_is_put_off_is_made_up_for,
    a_topic_that_has_less_than_is_served_is_refused,
    what_somebody_is_at_is_not_removed,
    two_builders_do_not_write_one_generation,
    there_is_a_way_back_and_old_generations_go,
    what_was_discarded_stays_discarded,
    sums_of_another_revision_are_left_as_they_are,
);

const DEADLINE: Duration = Duration::from_secs(60);

/// A rebuild of this world's read model, as a process of its own would do it.
pub(crate) async fn rebuild(world: &World, topic: &Topic) -> (Rebuild, watch::Receiver<Option<Told>>) {
    let (telling, told) = watch::channel(None);
    let generations = Generations::at(&world.place.url()).unwrap();
    let projecting = projecting(&topic.brokers.0, &topic.spec.name);
    (Rebuild { generations, projecting, source: Source::Topic, builder: Builder::Command, telling }, told)
}

/// What a projector needs that reads this topic.
pub(crate) fn projecting(brokers: &str, topic: &str) -> Projecting {
    Projecting {
        kafka: kafka(brokers, topic),
        default_currency: usd(),
        freshness: Freshness::default(),
        progress: Progress::default(),
        changes_kept: 1_000,
        log: None,
    }
}

fn kafka(brokers: &str, topic: &str) -> Kafka {
    let arguments = ["order-query", "serve", "--database-url", "sqlite://x", "--topic", topic];
    let cli = Cli::try_parse_from(arguments.into_iter().chain(["--kafka-brokers", brokers, "--topic-partitions", "3"]))
        .unwrap();
    let Command::Serve(config) = cli.command else { panic!("{cli:?}") };
    config.kafka
}

/// Lives of all kinds: delivered, changed and cancelled, refunded, of two customers and two currencies.
pub(crate) fn lives(from: u128, count: u128) -> Vec<Recorded<OrderEvent>> {
    let mut events = Vec::new();
    for n in from..from + count {
        let customer = format!("customer-{}", n % 3);
        let begun = History::new(order(n), day(1 + u32::try_from(n % 5).unwrap()));
        let life = match n % 4 {
            0 => begun.created(&customer, "USD", &[("prod-1", 2, "15.00"), ("prod-2", 1, "12.50")]),
            1 => begun
                .created(&customer, "EUR", &[("prod-1", 1, "15.00")])
                .changed("EUR", &[("prod-2", 3, "12.50")])
                .on(day(9))
                .cancelled("too late"),
            2 => begun
                .created(&customer, "USD", &[("prod-3", 4, "0.10")])
                .paid("0.40", "USD")
                .on(day(10))
                .cancelled("changed my mind")
                .refunded("0.40", "USD"),
            _ => begun.created(&customer, "USD", &[("prod-2", 1, "12.50")]).paid("12.50", "USD").shipped().delivered(),
        };
        events.extend(life.events);
    }
    events
}

pub(crate) async fn told(generations: &Generations) -> BTreeMap<i64, Generation> {
    generations.list().await.unwrap().into_iter().map(|generation| (generation.number, generation)).collect()
}

/// A world that has applied what the topic has.
pub(crate) async fn served(kind: Kind, topic: &Topic, events: &[Recorded<OrderEvent>]) -> World {
    topic.publish(events).await;
    let mut world = topic.world(kind).await;
    catch_up(&mut world, events.len()).await;
    world
}

async fn catch_up(world: &mut World, events: usize) {
    let stepping = async {
        while world.count("select count(*) from order_history").await < i64::try_from(events).unwrap() {
            world.projector.step().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, stepping).await.unwrap();
}

async fn a_rebuild_ends_in_the_same_rows(kind: Kind) {
    let topic = Topic::made().await;
    let events = lives(1, 40);
    let world = served(kind, &topic, &events).await;
    let before = world.store.digests().await.unwrap();
    let (rebuild, told_of) = rebuild(&world, &topic).await;
    let promoted = rebuild.run(&CancellationToken::new()).await.unwrap();
    assert_eq!(promoted.number, 2);
    assert_eq!(promoted.report.events, u64::try_from(events.len()).unwrap());
    assert_eq!(promoted.report.tables, shown(&before), "the digests are those of the rows that are served");
    assert_eq!(before["orders"].rows, 40);
    assert_eq!(before["cancellations"].rows, 6);
    assert!(told_of.borrow().is_some());

    let live = rebuild.generations.live().await.unwrap();
    assert_eq!((live.number, live.previous), (2, Some(1)));
    let found = &told(&rebuild.generations).await[&2];
    assert_eq!((found.state, found.source), (State::Complete, Source::Topic));
    let next = rebuild.generations.open(2).await.unwrap().store;
    assert_eq!(next.digests().await.unwrap(), before);
    // The indexes are there again.
    let plan = next.list_plan(&ListFilter::default(), &Page::default(), 1).await.unwrap();
    assert!(plan.join("\n").contains("orders_newest"));
}

async fn a_rebuild_that_was_stopped_goes_on_in_the_same_place(kind: Kind) {
    let topic = Topic::made().await;
    let events = lives(1, 30);
    let world = served(kind, &topic, &events).await;
    let (rebuild, mut told_of) = rebuild(&world, &topic).await;
    interrupted(&rebuild, &mut told_of).await;
    assert_eq!(told(&rebuild.generations).await[&2].state, State::Building);
    assert_eq!(rebuild.generations.live().await.unwrap().number, 1);
    assert_eq!(rebuild.run(&CancellationToken::new()).await.unwrap().number, 2);
}

async fn what_is_put_off_is_made_up_for(kind: Kind) {
    let mut world = World::new(kind).await;
    let records: Vec<_> = lives(1, 20).iter().map(|event| world.record(event)).collect();
    world.apply(records.clone()).await;
    let generations = Generations::at(&world.place.url()).unwrap();
    let number = generations.make_next().await.unwrap();
    let Opened { store, mut writer, keeper } = generations.open(number).await.unwrap();
    writer.migrate().await.unwrap();
    if let Some(keeper) = &keeper {
        assert!(keeper.step().await.unwrap());
    }
    let spec = TopicSpec { name: "orders.events".into(), partitions: 3, replication: 1 };
    let reader = TopicReader::new(Brokers("127.0.0.1:1".into()), spec);
    let mut projector = Projector::new(writer, reader, usd(), Freshness::default(), Progress::default()).building();
    let mut transaction = projector.writer().begin().await.unwrap();
    let begun = Generation::begun(number, Source::Topic, Builder::Command, 0);
    transaction.begin_generation(&begun).await.unwrap();
    transaction.defer_bulk().await.unwrap();
    transaction.commit().await.unwrap();
    let products = async || store.digests().await.unwrap()["order_products"];

    let later = records.len() - 9;
    projector.apply(records[..later].to_vec()).await.unwrap();
    assert_eq!(products().await.rows, 0, "put off");
    let mut transaction = projector.writer().begin().await.unwrap();
    transaction.make_up().await.unwrap();
    drop(transaction);
    assert_eq!(products().await.rows, 0, "what is not committed is still put off");
    let mut transaction = projector.writer().begin().await.unwrap();
    transaction.make_up().await.unwrap();
    transaction.commit().await.unwrap();
    let made_up = products().await.rows;
    assert_ne!(made_up, 0);
    projector.apply(records[later..].to_vec()).await.unwrap();
    assert!(products().await.rows > made_up, "written with its event again");
    assert_eq!(store.digests().await.unwrap(), world.store.digests().await.unwrap());
}

/// Stops a rebuild when all is read and not yet compared.
pub(crate) async fn interrupted(rebuild: &Rebuild, told: &mut watch::Receiver<Option<Told>>) {
    let stop = CancellationToken::new();
    let interrupting = async {
        let indexing = told.wait_for(|told| told.is_some_and(|told| told.phase == Phase::Indexing));
        drop(tokio::time::timeout(DEADLINE, indexing).await.unwrap());
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(rebuild.run(&stop), interrupting);
    assert!(matches!(ended, Err(Error::Stopped)), "{ended:?}");
}

async fn a_topic_that_has_less_than_is_served_is_refused(kind: Kind) {
    let topic = Topic::made().await;
    let events = lives(1, 12);
    let world = served(kind, &topic, &events).await;
    // Made anew, say: whole in itself, without the last event of anything.
    let (anew, empty) = (Topic::made().await, Topic::made().await);
    let first: Vec<_> = events.iter().filter(|event| event.version == domain::Version::FIRST).cloned().collect();
    anew.publish(&first).await;
    for less in [anew, empty] {
        let (rebuild, _told) = rebuild(&world, &less).await;
        let refused = rebuild.run(&CancellationToken::new()).await;
        // The second one finds rows of the first that it does not tell of.
        assert!(matches!(refused, Err(Error::Regress { .. } | Error::Verify(_))), "{refused:?}");
        assert_eq!(rebuild.generations.live().await.unwrap().number, 1);
    }
    let (rebuild, _told) = rebuild(&world, &topic).await;
    rebuild.run(&CancellationToken::new()).await.unwrap();
}

async fn what_somebody_is_at_is_not_removed(kind: Kind) {
    let topic = Topic::made().await;
    let world = served(kind, &topic, &lives(1, 4)).await;
    let (rebuild, mut told_of) = rebuild(&world, &topic).await;
    interrupted(&rebuild, &mut told_of).await;
    // Somebody is at it, and it is not to be gone on with.
    let seized = eventually(DEADLINE, "the right to write it", || async {
        rebuild.generations.seize(2).await.unwrap().ok_or_else(|| "another one has it".to_owned())
    })
    .await;
    let statement = |place: &str| format!("update {place}generation set report = '{{}}'");
    change_next(&world, statement).await;
    let busy = rebuild.run(&CancellationToken::new()).await;
    assert!(matches!(busy, Err(Error::Busy { number: 2 })), "{busy:?}");
    assert_eq!(rebuild.generations.numbers().await.unwrap(), [1, 2]);
    if let Some(keeper) = &seized.keeper {
        keeper.release().await.unwrap();
    }
    drop(seized);
    assert_eq!(rebuild.run(&CancellationToken::new()).await.unwrap().number, 3);
}

async fn two_builders_do_not_write_one_generation(kind: Kind) {
    let topic = Topic::made().await;
    let events = lives(1, 8);
    let world = served(kind, &topic, &events).await;
    let before = world.store.digests().await.unwrap();
    let (one, _told) = rebuild(&world, &topic).await;
    let (other, _told) = rebuild(&world, &topic).await;
    let stop = CancellationToken::new();
    let (one, other) = tokio::join!(one.run(&stop), other.run(&stop));
    // Whoever comes second waits for the first, and finds what it promoted; or makes the place that the other one makes.
    assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
    let generations = Generations::at(&world.place.url()).unwrap();
    let live = generations.live().await.unwrap().number;
    let digests = generations.open(live).await.unwrap().store.digests().await.unwrap();
    assert_eq!(digests, before);
}

async fn there_is_a_way_back_and_old_generations_go(kind: Kind) {
    let topic = Topic::made().await;
    let events = lives(1, 8);
    let mut world = served(kind, &topic, &events).await;
    let (rebuild, _told) = rebuild(&world, &topic).await;
    let on = CancellationToken::new();
    assert!(matches!(rebuild.roll_back(&on).await, Err(Error::NoPrevious { number: 1 })));
    rebuild.run(&on).await.unwrap();
    // Whoever follows the pointer has stopped writing here.
    world.steps_down().await;
    let more = lives(100, 4);
    topic.publish(&more).await;
    assert_eq!(rebuild.roll_back(&on).await.unwrap(), 1);
    let live = rebuild.generations.live().await.unwrap();
    assert_eq!((live.number, live.previous), (1, Some(2)));
    // It has what happened since.
    assert_eq!(
        world.store.digests().await.unwrap()["order_history"].rows,
        u64::try_from(events.len() + more.len()).unwrap()
    );

    assert_eq!(rebuild.run(&on).await.unwrap().number, 3);
    assert_eq!(rebuild.generations.numbers().await.unwrap(), [1, 3], "the one before is kept, older ones go");
    assert_eq!(rebuild.run(&on).await.unwrap().number, 4);
    assert_eq!(told(&rebuild.generations).await.keys().copied().collect::<Vec<_>>(), [3, 4], "the first is emptied");
    assert_eq!(world.store.digests().await.unwrap()["orders"].rows, 0);
}

async fn what_was_discarded_stays_discarded(kind: Kind) {
    let topic = Topic::made().await;
    let mut events = whole_life(1);
    let mut other = events[1].clone();
    other.event_id = domain::EventId::derived(order(99), other.version);
    events.insert(2, other);
    topic.publish(&events).await;
    let mut world = topic.world(kind).await;
    let stepping = async {
        while world.count("select count(*) from parked").await < 3 {
            world.projector.step().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, stepping).await.unwrap();
    let parked = world.get("/parked").await.json();
    let fork = parked.as_array().unwrap().iter().find(|parked| parked["version"] == 2).unwrap();
    world.discard(&path_of_parked(fork)).await;
    assert_eq!(world.get(&format!("/orders/{}", order(1))).await.json()["status"], "DELIVERED");

    let (rebuild, _told) = rebuild(&world, &topic).await;
    rebuild.run(&CancellationToken::new()).await.unwrap();
    let next = rebuild.generations.open(2).await.unwrap().store;
    assert_eq!(next.digests().await.unwrap(), world.store.digests().await.unwrap());
    assert_eq!(next.backlog().await.unwrap().parked, 0);
    assert_eq!(next.interventions(10).await.unwrap().len(), 1, "and why is told here too");
}

async fn sums_of_another_revision_are_left_as_they_are(kind: Kind) {
    let topic = Topic::made().await;
    let events = lives(1, 8);
    let world = served(kind, &topic, &events).await;
    let before = world.store.digests().await.unwrap();
    let other = "update generation set revisions = replace(revisions, '\"customers\":1', '\"customers\":0')";
    world.tamper(other, other).await;
    let mut world = world.restarted(topic.brokers.clone(), &topic.spec.name).await;
    let more = lives(100, 8);
    topic.publish(&more).await;
    catch_up(&mut world, events.len() + more.len()).await;
    let after = world.store.digests().await.unwrap();
    for (table, digest) in &after {
        assert_eq!(before[table] == *digest, *table == "customers", "{table}");
    }
    let (rebuild, _told) = rebuild(&world, &topic).await;
    rebuild.run(&CancellationToken::new()).await.unwrap();
    let next = rebuild.generations.open(2).await.unwrap().store;
    let mut whole = next.digests().await.unwrap();
    assert_ne!(whole.remove("customers"), after.get("customers").copied());
    assert!(whole.iter().all(|(table, digest)| after[table] == *digest), "{whole:?} {after:?}");
}

/// A URL whose generations nobody has begun.
#[tokio::test]
async fn what_is_no_store_has_no_generations() {
    assert!(Generations::at(&Secret::new("mysql://x")).is_err());
}
