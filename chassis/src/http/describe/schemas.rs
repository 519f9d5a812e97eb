//! Schemas of the values that services check alike, with their limits.

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

/// Any text.
pub fn anything() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A text of at most so many characters that is not blank.
pub fn text(chars_max: usize) -> ObjectBuilder {
    anything().min_length(Some(1)).max_length(Some(chars_max)).pattern(Some(r"\S"))
}

/// A [`text`] without control characters.
pub fn name(chars_max: usize) -> ObjectBuilder {
    text(chars_max).pattern(Some(r"^(?=.*\S)[^\x00-\x1f\x7f-\x9f]+$"))
}

/// One of these words.
pub fn one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> ObjectBuilder {
    anything().enum_values(Some(words))
}

/// A whole number within bounds.
pub fn whole(minimum: u32, maximum: u32) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(minimum)).maximum(Some(maximum))
}

/// An exact amount as JSON number, with all digits of its currency.
pub fn amount() -> ObjectBuilder {
    let description = "Exact, with all digits of the currency";
    ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).description(Some(description)).examples([42.5])
}

/// An exact sum of amounts, of which some may be taken away.
pub fn sum() -> ObjectBuilder {
    amount().minimum(None::<u32>)
}

/// An exact amount as text.
pub fn decimal() -> ObjectBuilder {
    anything().pattern(Some(r"^[0-9]+(\.[0-9]+)?$")).examples(["15.00"])
}

/// A currency by its ISO 4217 code.
pub fn currency() -> ObjectBuilder {
    anything().pattern(Some("^[A-Z]{3}$")).examples(["USD"])
}

/// An order at a version, as `ORDER_ID:VERSION`.
pub fn seen() -> ObjectBuilder {
    anything().pattern(Some("^[0-9a-fA-F-]{32,36}:[0-9]+$"))
}

/// A UUID.
pub fn uuid() -> ObjectBuilder {
    anything().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
}
