//! What holds for every order, whatever is asked of it in whatever sequence.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use chrono::{DateTime, Utc};
use domain::order::{DraftLine, Status};
use domain::schema::{Origin, decode, encode};
use domain::{Currency, Decider, EventId, Money, Order, OrderCommand, OrderEvent, OrderId, Recorded, Version, fold};
use proptest::prelude::*;
use uuid::Uuid;

fn usd() -> Currency {
    "USD".parse().unwrap()
}

fn any_time() -> impl Strategy<Value = DateTime<Utc>> {
    (0_i64..4_000_000_000_000_000).prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap())
}

fn any_lines() -> impl Strategy<Value = Vec<DraftLine>> {
    let line =
        (0_u8..6, 0_u32..5, prop::option::weighted(0.95, 0_i64..1_000_000)).prop_map(|(sku, quantity, price)| {
            DraftLine {
                sku: format!("sku-{sku}").parse().unwrap(),
                quantity,
                unit_price: price.map(|minor| Money::from_minor(minor, usd()).unwrap()),
            }
        });
    prop::collection::vec(line, 0..4)
}

fn any_text() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[^\\x00]{0,20}")
}

fn any_command() -> impl Strategy<Value = OrderCommand> {
    prop_oneof![
        3 => (any_lines(), any_time(), "[^\\x00-\\x1f\\x7f-\\x9f]{1,20}").prop_filter_map(
            "a customer needs a name",
            |(lines, at, customer)| Some(OrderCommand::Create { customer_id: customer.parse().ok()?, lines, at })
        ),
        2 => any_lines().prop_map(|lines| OrderCommand::ChangeItems { lines }),
        2 => any_text().prop_map(|payment_reference| OrderCommand::Pay { payment_reference }),
        2 => (any_text(), any_text())
            .prop_map(|(carrier, tracking_number)| OrderCommand::Ship { carrier, tracking_number }),
        2 => Just(OrderCommand::Deliver),
        1 => "[^\\x00]{1,20}".prop_map(|reason| OrderCommand::Cancel { reason }),
    ]
}

/// Plays commands against one order and returns its history.
fn play(commands: Vec<OrderCommand>) -> Vec<OrderEvent> {
    let mut history: Vec<OrderEvent> = Vec::new();
    for command in commands {
        let state = fold::<Order>(&history);
        if let Ok(events) = Order::decide(&state, command) {
            history.extend(events);
        }
    }
    history
}

fn record(history: &[OrderEvent], at: DateTime<Utc>) -> Vec<Recorded<OrderEvent>> {
    let order_id = OrderId(Uuid::from_u128(1));
    let mut version = Version::default();
    history
        .iter()
        .map(|event| {
            version = version.next();
            let event_id = EventId::derived(order_id, version);
            Recorded { event_id, order_id, version, occurred_at: at, event: event.clone() }
        })
        .collect()
}

proptest! {
    #[test]
    fn what_is_decided_always_evolves(commands in prop::collection::vec(any_command(), 0..30)) {
        let mut state = Order::default();
        for command in commands {
            if let Ok(events) = Order::decide(&state, command) {
                for event in &events {
                    let before = state.clone();
                    state = Order::evolve(state, event);
                    let refund = matches!(event, OrderEvent::OrderRefunded(_));
                    prop_assert!(refund || state != before, "{event:?} changed nothing in {before:?}");
                }
            }
        }
    }

    #[test]
    fn a_terminal_state_accepts_nothing(commands in prop::collection::vec(any_command(), 0..40), last in any_command()) {
        let state = fold::<Order>(&play(commands));
        if state.is_terminal() {
            prop_assert!(Order::decide(&state, last).is_err());
        }
    }

    #[test]
    fn versions_are_gapless_and_the_first_event_is_the_creation(commands in prop::collection::vec(any_command(), 0..30)) {
        let history = record(&play(commands), DateTime::UNIX_EPOCH);
        for (index, recorded) in history.iter().enumerate() {
            prop_assert_eq!(usize::try_from(recorded.version.0).unwrap(), index + 1);
            prop_assert_eq!(matches!(recorded.event, OrderEvent::OrderCreated(_)), index == 0);
        }
    }

    #[test]
    fn totals_conserve(commands in prop::collection::vec(any_command(), 0..30)) {
        let history = play(commands);
        let (mut paid, mut refunded) = (0, 0);
        for event in &history {
            match event {
                OrderEvent::OrderPaid(paid_event) => paid += paid_event.amount.minor(),
                OrderEvent::OrderRefunded(refund) => refunded += refund.amount.minor(),
                _ => {}
            }
        }
        let state = fold::<Order>(&history);
        if let Some(basket) = state.basket() {
            let sum: i64 = basket.lines.iter().map(|line| line.unit_price.unwrap().minor() * i64::from(line.quantity)).sum();
            prop_assert_eq!(sum, basket.total.minor());
            match state.status().unwrap() {
                Status::Created => prop_assert_eq!((paid, refunded), (0, 0)),
                Status::Cancelled => prop_assert_eq!(paid, refunded),
                Status::Paid | Status::Shipped | Status::Delivered => {
                    prop_assert_eq!((paid, refunded), (basket.total.minor(), 0));
                }
            }
        }
    }

    #[test]
    fn decoding_undoes_encoding(commands in prop::collection::vec(any_command(), 0..15), at in any_time()) {
        for recorded in record(&play(commands), at) {
            let message = encode(&recorded).unwrap();
            let decoded = decode(message.as_bytes(), usd()).unwrap();
            prop_assert_eq!(decoded.origin, Origin::Log);
            prop_assert_eq!(encode(&decoded.recorded).unwrap(), message);
            prop_assert_eq!(decoded.recorded, recorded);
        }
    }

    #[test]
    fn the_stored_state_is_read_back(commands in prop::collection::vec(any_command(), 0..15)) {
        let state = fold::<Order>(&play(commands));
        let stored = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<Order>(&stored).unwrap(), state);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _outcome = decode(&bytes, usd());
    }
}
