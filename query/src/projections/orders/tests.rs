use domain::order::OrderCommand;
use domain::order::event::OrderCreated;
use domain::schema;
use domain::{Decider as _, EventId, Order, fold};

use super::*;

fn recorded(version: u32, event: OrderEvent) -> Recorded<OrderEvent> {
    let order_id = OrderId(uuid::Uuid::from_u128(7));
    Recorded {
        event_id: EventId::derived(order_id, Version(version)),
        order_id,
        version: Version(version),
        occurred_at: DateTime::from_timestamp(1_700_000_000 + i64::from(version), 0).unwrap(),
        event,
    }
}

fn created(code: &str, minor: i64) -> OrderEvent {
    OrderEvent::OrderCreated(OrderCreated {
        customer_id: "customer-1".parse().unwrap(),
        lines: vec![
            Line {
                sku: "a".parse().unwrap(),
                quantity: 2,
                unit_price: Some(Money::from_minor(minor, code.parse().unwrap()).unwrap()),
            },
            Line { sku: "b".parse().unwrap(), quantity: 1, unit_price: None },
        ],
        total: Money::from_minor(minor * 2, code.parse().unwrap()).unwrap(),
        created_at: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
    })
}

fn row(event: OrderEvent) -> OrderRow {
    let recorded = recorded(1, event);
    let OrderEvent::OrderCreated(event) = &recorded.event else { panic!("not a creation") };
    OrderRow::created(&recorded, event)
}

#[test]
fn a_document_reads_back_as_its_row_in_every_currency() {
    for (code, total) in [("USD", "30.00"), ("JPY", "3000"), ("BHD", "3.000")] {
        let mut row = row(created(code, 1500));
        row.paid = Some(Paid { amount: row.total, at: row.created_at, payment_reference: Some("p\"1".into()) });
        row.refunded = Some(Refunded { amount: row.total, at: row.created_at });
        let document = row.to_document().unwrap();
        assert!(document.contains(&format!("\"total\":{total},")), "{document}");
        assert_eq!(OrderRow::from_document(&document).unwrap(), row);
    }
}

/// Walks the read row and the decider side by side through every command from every state.
#[test]
fn the_row_agrees_with_the_decider() {
    let commands = [
        OrderCommand::Pay { payment_reference: None },
        OrderCommand::Ship { carrier: None, tracking_number: None },
        OrderCommand::Deliver,
        OrderCommand::Cancel { reason: "changed my mind".into() },
    ];
    let mut paths = vec![vec![created("USD", 1500)]];
    while let Some(history) = paths.pop() {
        let state = fold::<Order>(&history);
        let mut folded = row(history[0].clone());
        for (index, event) in history.iter().enumerate().skip(1) {
            folded = folded.after(&recorded(u32::try_from(index).unwrap() + 1, event.clone()));
        }
        assert_eq!(Some(folded.status), state.status(), "{history:?}");
        assert_eq!(folded.version, Version(u32::try_from(history.len()).unwrap()));
        assert_eq!(Some(&folded.lines), state.basket().map(|basket| &basket.lines));
        for command in &commands {
            if let Ok(events) = Order::decide(&state, command.clone()) {
                paths.push([history.clone(), events].concat());
            }
        }
    }
}

#[test]
fn an_impossible_event_counts_as_a_version_and_changes_nothing_else() {
    let row = row(created("USD", 1500));
    let golden = include_str!("../../../../domain/golden/order/OrderDelivered.v1.json");
    let event = schema::decode(golden.as_bytes(), "USD".parse().unwrap()).unwrap().recorded.event;
    let after = row.after(&recorded(2, event));
    assert_eq!(after, OrderRow { version: Version(2), updated_at: after.updated_at, ..row });
}
