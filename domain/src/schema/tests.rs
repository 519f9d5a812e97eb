use uuid::Uuid;

use super::*;
use crate::money::Money;
use crate::order::event::Line;

fn usd() -> Currency {
    "USD".parse().unwrap()
}

const SIX_FIELDS: &str = include_str!("../../golden/order/OrderCreated.v1.json");

#[test]
fn the_published_message_of_six_fields_is_version_1_of_its_order() {
    let decoded = decode(SIX_FIELDS.as_bytes(), usd()).unwrap();
    assert_eq!(decoded.origin, Origin::PublishedFieldsOnly);
    let recorded = decoded.recorded;
    assert_eq!(recorded.version, Version::FIRST);
    assert_eq!(recorded.event_id, EventId::derived(recorded.order_id, Version::FIRST));
    assert_eq!(recorded.occurred_at.to_rfc3339(), "2025-12-05T10:00:00+00:00");
    let OrderEvent::OrderCreated(created) = recorded.event else { panic!("not an OrderCreated") };
    assert_eq!(created.total, Money::from_minor(4250, usd()).unwrap());
    assert_eq!(created.lines.len(), 2);
    assert!(created.lines.iter().all(|line| line.unit_price.is_none()));
}

#[test]
fn any_way_to_write_the_total_and_the_time_is_read() {
    for total in ["42.50", "42.5", "42.500", "4.25e1"] {
        let message = SIX_FIELDS.replace("42.50", total).replace("10:00:00Z", "10:00:00.123456789Z");
        let decoded = decode(message.as_bytes(), usd()).unwrap();
        let OrderEvent::OrderCreated(created) = decoded.recorded.event else { panic!("not an OrderCreated") };
        assert_eq!(created.total.minor(), 4250, "{total}");
    }
    let yen = decode(SIX_FIELDS.replace("42.50", "42").as_bytes(), "JPY".parse().unwrap()).unwrap();
    let OrderEvent::OrderCreated(created) = yen.recorded.event else { panic!("not an OrderCreated") };
    assert_eq!(created.total.to_string(), "42");
}

#[track_caller]
fn assert_garbage(message: &[u8]) {
    match decode(message, usd()) {
        Err(DecodeError::Garbage { .. }) => {}
        other => panic!("{:?} decoded to {other:?}", String::from_utf8_lossy(message)),
    }
}

#[test]
fn what_can_never_have_come_from_the_relay_is_garbage() {
    assert_garbage(b"");
    assert_garbage(b"not json");
    assert_garbage(b"{\"event_type\":\"OrderCreated\"");
    assert_garbage(b"\xff\xfe");
    assert_garbage(b"[]");
    assert_garbage(br#"["OrderCreated","11111111-1111-4111-8111-111111111111",null,null,null,null]"#);
    let item = r#"{"sku": "prod-1", "quantity": 2}"#;
    assert!(SIX_FIELDS.contains(item), "{SIX_FIELDS}");
    assert_garbage(SIX_FIELDS.replace(item, r#"["prod-1", 2]"#).as_bytes());
    assert_garbage("[".repeat(200_000).as_bytes());
    let six = |from: &str, to: &str| SIX_FIELDS.replace(from, to);
    assert_garbage(six("42.50", "42.505").as_bytes());
    assert_garbage(six("42.50", "-42.50").as_bytes());
    assert_garbage(six("42.50", "\"42.50\"").as_bytes());
    assert_garbage(six("42.50", "1e400").as_bytes());
    assert_garbage(six("\"quantity\": 2", "\"quantity\": 0").as_bytes());
    assert_garbage(six("\"quantity\": 2", "\"quantity\": -2").as_bytes());
    assert_garbage(six("OrderCreated", "OrderPaid").as_bytes());
    assert_garbage(six("\"total\"", "\"version\": 1, \"total\"").as_bytes());
    assert_garbage(six("\"total\"", "\"total\": 42.50, \"total\"").as_bytes());
    assert_garbage(six("123e4567-e89b-12d3-a456-426614174000", "not-a-uuid").as_bytes());
}

#[test]
fn a_sound_envelope_around_something_newer_is_not_garbage() {
    let newer = include_str!("../../golden/order/OrderDelivered.v1.json");
    for message in [
        newer.replace("OrderDelivered", "OrderTeleported"),
        newer.replace("\"schema_version\":1", "\"schema_version\":9"),
    ] {
        match decode(message.as_bytes(), usd()) {
            Err(DecodeError::Newer { version, .. }) => assert_eq!(version, Version(4)),
            other => panic!("{message} decoded to {other:?}"),
        }
    }
}

#[test]
fn every_golden_file_decodes_and_the_current_ones_encode_to_the_same_bytes() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/order");
    let mut current = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let message = std::fs::read_to_string(&path).unwrap();
        let message = message.trim_end();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let decoded = decode(message.as_bytes(), usd()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let event = &decoded.recorded.event;
        if name == format!("{}.v{}", event.event_type(), event.schema_version()) {
            assert_eq!(encode(&decoded.recorded).unwrap(), message, "{name}");
            current += 1;
        }
    }
    assert_eq!(current, 7, "each of the seven events has a golden file of the version that is written");
}

#[test]
fn a_consumer_of_the_six_published_fields_reads_what_we_write() {
    let ours = include_str!("../../golden/order/OrderCreated.v2.json");
    let value: serde_json::Value = serde_json::from_str(ours).unwrap();
    assert_eq!(value["event_type"], "OrderCreated");
    assert!(value["order_id"].as_str().unwrap().parse::<Uuid>().is_ok());
    assert_eq!(value["customer_id"], "customer-1");
    assert_eq!(value["items"][0]["sku"], "prod-1");
    assert_eq!(value["items"][0]["quantity"], 2);
    assert!(value["total"].is_number());
    assert!(value["created_at"].as_str().unwrap().ends_with('Z'));
    assert!(ours.contains("\"total\":42.50,"), "all digits of the currency are written");
}

#[test]
fn two_publications_are_the_same_when_the_six_fields_are() {
    let created = |total: &str| {
        let decoded = decode(SIX_FIELDS.replace("42.50", total).as_bytes(), usd()).unwrap();
        let OrderEvent::OrderCreated(created) = decoded.recorded.event else { panic!("not an OrderCreated") };
        created
    };
    assert!(same_publication(&created("42.50"), &created("42.5")));
    assert!(!same_publication(&created("42.50"), &created("42.51")));
    let mut priced = created("42.50");
    priced.lines[0] = Line { unit_price: Some(Money::zero(usd())), ..priced.lines[0].clone() };
    assert!(same_publication(&created("42.50"), &priced), "unit prices are not among the six fields");
}
