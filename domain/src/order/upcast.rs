//! Old schema versions read as new ones: one small step per version, so a chain of any length stays readable.
//!
//! Greg Young's "Versioning in an Event Sourced System" names the idea; a step works on the wire form,
//! before anything becomes a domain type.

use crate::money::Currency;
use crate::schema::wire::{ItemV2, OrderCreatedV1, OrderCreatedV2};

/// Version 1 is the message of six published fields: it names no currency and no unit prices.
///
/// The currency is what the reader is configured for; a unit price cannot be known, so it stays open.
pub(crate) fn order_created_v1_to_v2(v1: OrderCreatedV1<'_>, default_currency: Currency) -> OrderCreatedV2<'_> {
    OrderCreatedV2 {
        customer_id: v1.customer_id,
        items: v1
            .items
            .into_iter()
            .map(|item| ItemV2 { sku: item.sku, quantity: item.quantity, unit_price: None })
            .collect(),
        total: v1.total,
        created_at: v1.created_at,
        currency: default_currency,
    }
}
