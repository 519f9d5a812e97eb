//! Group commit under disturbance: what is acknowledged is durable, and nobody pays for a neighbour's trouble.

use std::sync::Arc;
use std::time::Duration;

use chassis::testkit::eventually;
use command::api::render;
use command::executor::{Executor, Failure, Outcome, Render, Setup, Unrenderable};
use domain::OrderId;
use domain::order::OrderCommand;
use futures_util::future::join_all;
use sqlx::Executor as _;

use crate::world::{World, command, expecting, keyed, limits, new_order, usd};

const PAY: OrderCommand = OrderCommand::Pay { payment_reference: None };

#[tokio::test]
async fn hundreds_of_callers_share_transactions() {
    let world = World::start().await;
    let answers = join_all((0..500).map(|n| world.executor.execute(new_order(&format!("customer-{n}"))))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.reply.status == 201)));
    assert_eq!(world.count("select count(*) from events").await, 500);
    let transactions = world.count("select count(distinct xid) from outbox").await;
    assert!(transactions < 250, "500 commands took {transactions} transactions");
    world.assert_consistent().await;
}

#[tokio::test]
async fn commands_on_one_order_are_decided_in_sequence() {
    let world = World::start().await;
    let create = new_order("racing");
    let order_id = create.order_id;
    world.executor.execute(create).await.unwrap();
    let answers = join_all((0..20).map(|_| world.executor.execute(command(order_id, PAY)))).await;
    let statuses: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 19, "{statuses:?}");
    let stale = world.executor.execute(expecting(1, command(order_id, PAY))).await.unwrap();
    assert_eq!(stale.reply.status, 412);
    world.assert_consistent().await;
}

#[tokio::test]
async fn an_order_that_somebody_holds_delays_its_own_commands_alone() {
    let mut limits = limits();
    limits.lanes = 1;
    limits.command_deadline = Duration::from_millis(600);
    let world = World::with(limits).await;
    let create = new_order("held");
    let held = create.order_id;
    world.executor.execute(create).await.unwrap();
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("select from orders where order_id = $1 for update").bind(held.0).execute(&mut *holder).await.unwrap();

    let (blocked, others) = tokio::join!(
        world.executor.execute(command(held, PAY)),
        join_all((0..20).map(|_| world.executor.execute(new_order("free"))))
    );
    assert_eq!(blocked.unwrap_err(), Failure::TimedOut);
    assert!(others.iter().all(Result::is_ok));
    holder.rollback().await.unwrap();
    assert_eq!(world.executor.execute(command(held, PAY)).await.unwrap().reply.status, 200);
    world.assert_consistent().await;
}

/// Makes the database raise `state` for events of the customer `marked`, at the time that `timing` names.
async fn sabotage(world: &World, timing: &'static str, state: &'static str) {
    let function = format!(
        "create function sabotage() returns trigger language plpgsql as $$
         begin
             if new.payload like '%\"marked\"%' then raise exception 'sabotage' using errcode = '{state}'; end if;
             return null;
         end $$"
    );
    world.pool.execute(sqlx::AssertSqlSafe(function)).await.unwrap();
    let trigger = format!(
        "create constraint trigger sabotage after insert on events {timing} for each row execute function sabotage()"
    );
    world.pool.execute(sqlx::AssertSqlSafe(trigger)).await.unwrap();
}

#[tokio::test]
async fn one_bad_member_does_not_sink_its_batch() {
    for timing in ["not deferrable", "deferrable initially deferred"] {
        let mut limits = limits();
        limits.lanes = 1;
        let world = World::with(limits).await;
        sabotage(&world, timing, "23514").await;
        let customers: Vec<String> =
            (0..40).map(|n| if n == 17 { "marked".to_owned() } else { format!("customer-{n}") }).collect();
        let answers = join_all(customers.iter().map(|customer| world.executor.execute(new_order(customer)))).await;
        for (customer, answer) in customers.iter().zip(answers) {
            if customer == "marked" {
                assert_eq!(answer.unwrap_err(), Failure::Database, "{timing}");
            } else {
                assert_eq!(answer.unwrap().reply.status, 201, "{timing}: {customer}");
            }
        }
        assert_eq!(world.count("select count(*) from events").await, 39, "{timing}");
        world.assert_consistent().await;
    }
}

#[tokio::test]
async fn a_member_whose_trouble_never_passes_does_not_sink_its_batch_either() {
    let mut limits = limits();
    limits.lanes = 1;
    let world = World::with(limits).await;
    sabotage(&world, "not deferrable", "40001").await;
    let customers: Vec<String> =
        (0..16).map(|n| if n == 5 { "marked".to_owned() } else { format!("customer-{n}") }).collect();
    let answers = join_all(customers.iter().map(|customer| world.executor.execute(new_order(customer)))).await;
    for (customer, answer) in customers.iter().zip(answers) {
        match customer.as_str() {
            "marked" => assert_eq!(answer.unwrap_err(), Failure::TimedOut),
            _ => assert_eq!(answer.unwrap().reply.status, 201, "{customer}"),
        }
    }
    world.assert_consistent().await;
}

#[tokio::test]
async fn trouble_that_passes_is_tried_again_and_then_told_as_not_executed() {
    let world = World::start().await;
    sabotage(&world, "not deferrable", "40001").await;
    let answer = world.executor.execute(new_order("marked")).await;
    assert_eq!(answer.unwrap_err(), Failure::TimedOut, "a serialization failure that never passes");
    assert_eq!(world.count("select count(*) from events").await, 0);
    world.pool.execute("drop trigger sabotage on events").await.unwrap();
    assert_eq!(world.executor.execute(new_order("marked")).await.unwrap().reply.status, 201);
}

#[tokio::test]
async fn connections_killed_under_load_lose_and_double_nothing() {
    let world = World::start().await;
    let load = async {
        let mut acknowledged: Vec<OrderId> = Vec::new();
        let mut refused = 0;
        for _round in 0..40 {
            let requests: Vec<_> = (0..25).map(|_| new_order("under-fire")).collect();
            let ids: Vec<OrderId> = requests.iter().map(|request| request.order_id).collect();
            let answers = join_all(requests.into_iter().map(|request| world.executor.execute(request))).await;
            for (id, answer) in ids.into_iter().zip(answers) {
                match answer {
                    Ok(answer) if answer.reply.status == 201 => acknowledged.push(id),
                    Ok(answer) => panic!("answered {}", answer.reply.status),
                    Err(Failure::OutcomeUnknown) => panic!("the outcome could have been found out"),
                    Err(_not_executed) => refused += 1,
                }
            }
        }
        (acknowledged, refused)
    };
    let fire = async {
        let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                    where datname = current_database() and application_name = 'order-command-test'";
        let mut pause = tokio::time::interval(Duration::from_millis(7));
        loop {
            pause.tick().await;
            let _killed: i64 = sqlx::query_scalar(kill).fetch_one(&world.pool).await.unwrap();
        }
    };
    let (acknowledged, refused) = tokio::select! {
        outcome = load => outcome,
        () = fire => unreachable!("the fire never ends"),
    };
    let logged: Vec<uuid::Uuid> =
        sqlx::query_scalar("select order_id from events").fetch_all(&world.pool).await.unwrap();
    let logged: std::collections::HashSet<_> = logged.into_iter().collect();
    for id in &acknowledged {
        assert!(logged.contains(&id.0), "{id} was acknowledged and is not in the log");
    }
    assert_eq!(logged.len(), acknowledged.len(), "an order that was refused ({refused} were) is in the log");
    world.assert_consistent().await;
}

#[tokio::test]
async fn commands_out_of_time_leave_no_session_in_a_transaction() {
    let mut limits = limits();
    (limits.lanes, limits.batch_commands_max) = (1, 1);
    limits.command_deadline = Duration::from_millis(300);
    let world = World::with(limits).await;
    let slow = "create function slow() returns trigger language plpgsql as $$
                begin if new.payload like '%\"slow\"%' then perform pg_sleep(1); end if; return null; end $$;
                create constraint trigger slow after insert on events initially deferred
                for each row execute function slow()";
    world.pool.execute(slow).await.unwrap();
    // The second waits while the first one commits, and then its time is up.
    let (committed, late) =
        tokio::join!(world.executor.execute(new_order("slow")), world.executor.execute(new_order("late")));
    assert_eq!(committed.unwrap().reply.status, 201);
    assert_eq!(late.unwrap_err(), Failure::TimedOut);
    eventually(Duration::from_secs(5), "no session waits in a transaction", || async {
        let idle = "select count(*) from pg_stat_activity
                    where datname = current_database() and state = 'idle in transaction'";
        let idle = world.count(idle).await;
        if idle == 0 { Ok(()) } else { Err(format!("{idle} do")) }
    })
    .await;
    assert_eq!(world.executor.execute(new_order("next")).await.unwrap().reply.status, 201);
    world.assert_consistent().await;
}

#[tokio::test]
async fn callers_that_go_away_leave_nothing_open() {
    let world = World::start().await;
    for _round in 0..10 {
        let abandoned = join_all((0..50).map(|_| world.executor.execute(new_order("gone"))));
        let _cut_off = tokio::time::timeout(Duration::from_micros(300), abandoned).await;
    }
    world.executor.execute(new_order("patient")).await.unwrap();
    eventually(Duration::from_secs(5), "no session in transaction", || async {
        let open = "select count(*) from pg_stat_activity where datname = current_database()
                    and application_name = 'order-command-test' and state like 'idle in transaction%'";
        match world.count(open).await {
            0 => Ok(()),
            open => Err(format!("{open} sessions are in transaction")),
        }
    })
    .await;
    world.assert_consistent().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let mut limits = limits();
    limits.lanes = 1;
    limits.queue_commands_max = 10;
    let world = World::with(limits).await;
    // The table is locked, so the lane cannot get on.
    let mut blocker = world.pool.begin().await.unwrap();
    blocker.execute("lock table events in access exclusive mode").await.unwrap();
    let all = join_all((0..300).map(|_| world.executor.execute(new_order("many"))));
    let (answers, ()) = tokio::join!(all, async {
        eventually(Duration::from_secs(5), "a full queue", || async {
            let queued = world.executor.queued();
            if queued == 10 { Ok(()) } else { Err(format!("{queued} queued")) }
        })
        .await;
        blocker.rollback().await.unwrap();
    });
    let refused = answers.iter().filter(|answer| matches!(answer, Err(Failure::Overloaded))).count();
    let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(refused > 0 && accepted > 0 && refused + accepted == 300, "{accepted} accepted, {refused} refused");
    assert_eq!(world.count("select count(*) from events").await, i64::try_from(accepted).unwrap());
}

#[tokio::test]
async fn a_command_whose_answer_cannot_be_rendered_is_not_executed() {
    let world = World::start().await;
    let render: Render = |outcome| match outcome {
        Outcome::Accepted { state, .. }
            if state.basket().is_some_and(|basket| basket.customer_id.as_str() == "marked") =>
        {
            Err(Unrenderable::because("sabotage"))
        }
        _ => render(outcome),
    };
    let mut limits = limits();
    limits.lanes = 1;
    let (executor, lanes) = Executor::new(&Setup {
        connect: world.connect.clone(),
        limits,
        render,
        committed: Arc::clone(&world.committed),
        default_currency: usd(),
    });
    let running: Vec<_> = lanes.into_iter().map(|lane| tokio::spawn(lane.run())).collect();
    let commands = ["first", "marked", "last"].map(|customer| keyed(customer, new_order(customer)));
    let answers = join_all(commands.map(|command| executor.execute(command))).await;
    assert_eq!(answers[1].as_ref().unwrap_err(), &Failure::Unrenderable);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert_eq!(world.count("select count(*) from events").await, 2);
    assert_eq!(world.count("select count(*) from idempotency_keys").await, 2, "its key has no answer");
    let repeated = world.executor.execute(keyed("marked", new_order("marked"))).await.unwrap();
    assert_eq!((repeated.reply.status, repeated.replayed), (201, false), "once it can be answered, it is executed");
    drop(executor);
    join_all(running).await;
    world.assert_consistent().await;
}

#[tokio::test]
async fn a_value_that_the_database_cannot_store_is_told_from_a_failure() {
    let mut limits = limits();
    limits.lanes = 1;
    let world = World::with(limits).await;
    let create = new_order("customer");
    let order_id = create.order_id;
    world.executor.execute(create).await.unwrap();
    // Past the API, which refuses U+0000 itself.
    let cancel = command(order_id, OrderCommand::Cancel { reason: "a\0".to_owned() });
    let neighbours = join_all((0..10).map(|_| world.executor.execute(new_order("neighbour"))));
    let (cancelled, neighbours) = tokio::join!(world.executor.execute(keyed("k\0", cancel)), neighbours);
    assert_eq!(cancelled.unwrap_err(), Failure::Unstorable);
    assert!(neighbours.iter().all(Result::is_ok), "{neighbours:?}");
    world.assert_consistent().await;
}
