//! The server's answer to a commit is lost on the way: what became of the transaction is found out, not guessed (rules R1).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chassis::testkit::eventually;
use command::executor::{Failure, Limits};
use sqlx::Executor as _;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{World, keyed, limits, new_order};

/// What the wire does once, when a client sends something with a certain text in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lose {
    /// It breaks when the server answers.
    Answer,
    /// It breaks as soon as the server has the message.
    Connection,
}

type Plan = Arc<Mutex<Option<(Lose, &'static str)>>>;

/// A wire between the lanes and the server.
struct Wire {
    plan: Plan,
    port: u16,
}

impl Wire {
    async fn to(server: &PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (plan, address) = (Plan::default(), (server.get_host().to_owned(), server.get_port()));
        let of_connections = Arc::clone(&plan);
        tokio::spawn(async move {
            while let Ok((client, _from)) = listener.accept().await {
                let server = TcpStream::connect(address.clone()).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&of_connections)));
            }
        });
        Self { plan, port }
    }

    fn will(&self, lose: Lose, text: &'static str) {
        *self.plan.lock().unwrap() = Some((lose, text));
    }

    fn has(&self) -> bool {
        self.plan.lock().unwrap().is_none()
    }
}

/// Carries bytes both ways until one side closes, or the plan says to break.
async fn carry(mut client: TcpStream, mut server: TcpStream, plan: Plan) {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                if server.write_all(&asked[..read]).await.is_err() {
                    return;
                }
                let due = |(_, text): &(Lose, &str)| asked[..read].windows(text.len()).any(|at| at == text.as_bytes());
                let lose = { plan.lock().unwrap().take_if(|plan| due(plan)) };
                match lose {
                    Some((Lose::Connection, _)) => return,
                    Some((Lose::Answer, _)) => {
                        let _lost = server.read(&mut answered).await;
                        return;
                    }
                    None => {}
                }
            }
            read = server.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn world(limits: Limits) -> (World, Wire) {
    let mut wire = None;
    let world = World::reached_by(limits, async |options: PgConnectOptions| {
        let to = Wire::to(&options).await;
        let options = options.host("127.0.0.1").port(to.port);
        wire = Some(to);
        options
    })
    .await;
    (world, wire.unwrap())
}

/// Makes every commit with an event of `customer` take 700 ms, and then do something more.
async fn slow_commit(world: &World, customer: &str, then: &str) {
    let trigger = format!(
        "create function slow() returns trigger language plpgsql as $$
         begin
             if new.payload like '%\"{customer}\"%' then perform pg_sleep(0.7); {then} end if;
             return null;
         end $$;
         create constraint trigger slow after insert on events initially deferred for each row execute function slow()"
    );
    world.pool.execute(sqlx::AssertSqlSafe(trigger)).await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_acknowledged_and_done_once() {
    let (world, wire) = world(limits()).await;
    for lose in [Lose::Answer, Lose::Connection] {
        wire.will(lose, "\"lost\"");
        let answer = world.executor.execute(new_order("lost")).await.unwrap();
        assert_eq!((answer.reply.status, wire.has()), (201, true), "{lose:?}");
    }
    assert_eq!(world.count("select count(*) from events").await, 2);
    world.assert_consistent().await;
}

#[tokio::test]
async fn a_transaction_that_still_goes_on_is_waited_for() {
    let (world, wire) = world(limits()).await;
    slow_commit(&world, "slow", "").await;
    wire.will(Lose::Connection, "\"slow\"");
    let asked = Instant::now();
    let answer = world.executor.execute(new_order("slow")).await.unwrap();
    assert_eq!((answer.reply.status, wire.has()), (201, true));
    assert!(asked.elapsed() >= Duration::from_millis(700), "nobody can have known after {:?}", asked.elapsed());
    assert_eq!(world.count("select count(*) from events").await, 1);
    world.assert_consistent().await;
}

#[tokio::test]
async fn a_transaction_that_fails_unseen_is_told_as_not_executed() {
    let (world, wire) = world(limits()).await;
    slow_commit(&world, "failing", "raise exception 'not this one' using errcode = '23514';").await;
    wire.will(Lose::Connection, "\"failing\"");
    assert_eq!(world.executor.execute(new_order("failing")).await.unwrap_err(), Failure::Database);
    assert!(wire.has());
    assert_eq!(world.count("select count(*) from events").await, 0);
    assert_eq!(world.executor.execute(new_order("next")).await.unwrap().reply.status, 201);
    world.assert_consistent().await;
}

#[tokio::test]
async fn what_cannot_be_found_out_in_time_is_told_as_unknown() {
    let mut impatient = limits();
    impatient.resolve_deadline = Duration::from_millis(200);
    let (world, wire) = world(impatient).await;
    slow_commit(&world, "slow", "").await;
    wire.will(Lose::Connection, "\"slow\"");
    assert_eq!(world.executor.execute(new_order("slow")).await.unwrap_err(), Failure::OutcomeUnknown);
    eventually(Duration::from_secs(5), "it was executed", || async {
        let events = world.count("select count(*) from events").await;
        if events == 1 { Ok(()) } else { Err(format!("{events} events")) }
    })
    .await;
    world.assert_consistent().await;
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_is_executed_once() {
    let (world, wire) = world(limits()).await;
    slow_commit(&world, "keyed", "").await;
    wire.will(Lose::Connection, "\"keyed\"");
    let first = world.executor.execute(keyed("k", new_order("keyed"))).await.unwrap();
    // The client asks again, as one does that has lost its own answer.
    let again = world.executor.execute(keyed("k", new_order("keyed"))).await.unwrap();
    assert_eq!((first.reply.status, &again.reply, again.replayed, wire.has()), (201, &first.reply, true, true));
    assert_eq!(world.count("select count(*) from events").await, 1);
    world.assert_consistent().await;
}
