use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use chassis::testkit::eventually;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::client::Answer;
use crate::world::process::{Service, Spec};
use crate::world::settings;

/// How long everything may take to start or to stop: a database, a broker and two services.
const ALL_WITHIN: Duration = Duration::from_secs(90);

#[tokio::test]
async fn an_order_is_there_after_everything_was_stopped_and_started() {
    let data = tempfile::tempdir().unwrap();
    // The database may run as another user than the tests.
    fs::set_permissions(data.path(), Permissions::from_mode(0o755)).unwrap();
    let (command, query) = (settings::free_port(), settings::free_port());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut envs = vec![
        ("COMMAND_LISTEN".to_owned(), format!("127.0.0.1:{command}")),
        ("QUERY_LISTEN".to_owned(), format!("127.0.0.1:{query}")),
        ("QUERY_ADMIN_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ("POSTGRES_PORT".to_owned(), "0".to_owned()),
        ("KAFKA_PORT".to_owned(), "0".to_owned()),
    ];
    envs.extend(settings::kafka_libs().map(|libs| ("ORDER_KAFKA_LIBS".to_owned(), libs.display().to_string())));
    let spec = Spec {
        name: "order-dev".to_owned(),
        program: settings::program("order-dev"),
        args: ["--data", &data.path().display().to_string(), "up"].map(str::to_owned).to_vec(),
        envs,
        port: command,
        directory: data.path().to_path_buf(),
    };
    let mut run = Service::new(spec, http.clone());

    run.launch();
    says(&mut run, "Ready after", 1).await;
    let basket = json!({ "customer_id": "customer-1", "items": [
        { "sku": "prod-1", "quantity": 2 }, { "sku": "prod-2", "quantity": 1 } ] });
    let placed = http.post(format!("http://127.0.0.1:{command}/orders")).json(&basket);
    let placed = Answer::to(placed).await.unwrap().is(201);
    assert!(placed.body.contains("\"total\":42.50"), "{}", placed.body);
    let order = placed.order();
    stop(&mut run).await;

    run.launch();
    says(&mut run, "Ready after", 2).await;
    let url = format!("http://127.0.0.1:{query}/orders/{}?min_version=1", order.id);
    let seen = Answer::to(http.get(url)).await.unwrap().is(200);
    assert!(seen.body.contains("\"total\":42.50"), "{}", seen.body);
    let listed = Answer::to(http.get(format!("http://127.0.0.1:{query}/orders"))).await.unwrap().is(200);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(1));
    let id = |listed: &Value| listed[0]["order_id"].as_str().map(str::to_owned);
    assert_eq!(id(&listed.json()), Some(order.id.to_string()));
    stop(&mut run).await;
}

async fn says(run: &mut Service, what: &str, times: usize) {
    eventually(ALL_WITHIN, &format!("it says {what:?}"), || {
        assert_eq!(run.ended(), None, "it has ended");
        let log = run.log();
        let said = log.matches(what).count() >= times;
        std::future::ready(if said { Ok(()) } else { Err(log) })
    })
    .await;
}

async fn stop(run: &mut Service) {
    run.signal(Signal::SIGTERM);
    let status = run.exit(ALL_WITHIN).await;
    assert!(status.success(), "{status}");
}
