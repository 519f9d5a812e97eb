use std::process::Stdio;
use std::time::Duration;

use chassis::testkit::eventually;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::world::World;
use crate::world::client::TWO_AND_ONE;

const README: &str = include_str!("../README.md");

/// The lines of the block that begins with placing an order, continued lines joined.
fn curls() -> Vec<String> {
    let block = README.split("```sh\n").find(|block| block.starts_with("curl")).expect("README has a block of curls");
    let block = block.split("```").next().unwrap().replace("\\\n", " ");
    block.lines().filter(|line| line.starts_with("curl")).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_commands_of_the_readme_work_as_they_stand() {
    let world = World::start().await;
    let mut order_id = String::new();
    let commands = curls();
    assert_eq!(commands.len(), 7, "{commands:?}");
    for command in commands {
        let here = command
            .replace("http://localhost:8000", "localhost:8000")
            .replace("localhost:8000", &format!("127.0.0.1:{}", world.command.port()))
            .replace("localhost:8001", &format!("127.0.0.1:{}", world.query.port()))
            .replace("ORDER_ID", &order_id)
            .replacen("curl", "curl --silent --show-error --fail-with-body --max-time 20", 1);
        if here.contains("/stream") {
            world.tells_changes(&here).await;
            continue;
        }
        let answer = eventually(Duration::from_secs(20), &command, || async {
            let output = Command::new("sh").arg("-c").arg(&here).output().await.unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            // The read model follows within moments, and an empty list is no failure of curl's.
            let seen = order_id.is_empty() || text.contains(&order_id);
            if output.status.success() && seen {
                return Ok(text);
            }
            Err(format!("{here}\n{text}{}", String::from_utf8_lossy(&output.stderr)))
        })
        .await;
        if order_id.is_empty() {
            let (_before, after) = answer.split_once("\"order_id\":\"").expect("an order id in the first answer");
            order_id = after.chars().take(36).collect();
        }
    }
    world.end().await;
}

impl World {
    /// A stream has no end of its own: a payment made meanwhile must be told on it, and then it is left.
    async fn tells_changes(&self, command: &str) {
        let mut curl = Command::new("sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("retry: 3000"), "how the stream begins");
        let alice = self.customer("alice");
        let paid = alice.pays(alice.places(TWO_AND_ONE).await).await;
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("data:") && line.contains(&paid.id.to_string()) {
                assert!(line.contains("OrderPaid"), "{line}");
                curl.kill().await.unwrap();
                return;
            }
        }
        panic!("the stream ended before it told of the payment");
    }
}
