use std::fs;
use std::time::Duration;

use chassis::kafka::Brokers;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::world::client::TWO_AND_ONE;
use crate::world::process::{DRAINED_WITHIN, Service, Spec};
use crate::world::{World, settings};

/// How soon the service ends after SIGTERM, however its broker is.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Starts a broker in a directory, kept by a program that would start it again.
fn broker(port: u16, directory: &tempfile::TempDir) -> Service {
    let mut envs = vec![("KAFKA_PORT".to_owned(), port.to_string())];
    envs.extend(settings::kafka_libs().map(|libs| ("ORDER_KAFKA_LIBS".to_owned(), libs.display().to_string())));
    let spec = Spec {
        name: "broker".to_owned(),
        program: settings::program("order-dev"),
        args: vec!["--data".to_owned(), directory.path().display().to_string(), "kafka".to_owned()],
        envs,
        port,
        directory: directory.path().to_path_buf(),
    };
    let mut broker = Service::new(spec, reqwest::Client::new());
    broker.launch();
    broker
}

#[tokio::test]
async fn draining_does_not_wait_for_a_broker_that_is_dead_or_frozen() {
    let (port, directory) = (settings::free_port_pair(), tempfile::tempdir().unwrap());
    let mut keeper = broker(port, &directory);
    let mut world = World::prepare_on(Brokers(format!("127.0.0.1:{port}"))).await;
    world.command.launch();
    world.query.launch();
    world.query.is_ready().await;
    world.command.is_ready().await;
    let alice = world.customer("alice");
    let seen = alice.places(TWO_AND_ONE).await;
    world.sees(seen).at(1).await;
    let mut waiting = Vec::new();
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        keeper.signal(Signal::SIGSTOP);
        let file = fs::read_to_string(directory.path().join("kafka.pid")).unwrap();
        let broker = Pid::from_raw(file.split_whitespace().next().unwrap().parse().unwrap());
        kill(broker, signal).unwrap();
        // It is stored, and its acknowledgement by the broker is awaited.
        waiting.push(alice.places(TWO_AND_ONE).await);

        let told = Instant::now();
        world.command.signal(Signal::SIGTERM);
        let status = world.command.exit(DRAINED_WITHIN).await;
        assert!(status.success(), "{signal}: {status}");
        assert!(told.elapsed() < ENDS_WITHIN, "{signal}: {:?}", told.elapsed());
        let held: i64 = sqlx::query_scalar("select count(*) from relay_lease where expires_at > now()")
            .fetch_one(&world.log())
            .await
            .unwrap();
        assert_eq!(held, 0, "{signal}: the lease is given back");

        if signal == Signal::SIGSTOP {
            kill(broker, Signal::SIGCONT).unwrap();
        }
        keeper.signal(Signal::SIGCONT);
        world.command.start().await;
    }
    for order in waiting {
        world.sees(order).at(1).await;
    }
    world.end().await;
}
