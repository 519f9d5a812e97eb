//! Requests at the edges of what a document allows: what is just inside must be taken, what is just outside refused.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::asking::{Ask, Reply};
use super::contract::{Contract, Operation, resolve};

/// A UUID.
const ID: &str = "0192f0c1-6f2e-7cc3-98c4-dc0c0c07398f";

/// More than any service here takes as a body.
const TOO_LARGE: usize = 70_000;

/// Asks every operation for what is just inside and just outside of what is documented.
///
/// Paths, queries, headers and bodies: the one must be taken, the other refused, whatever the state. `id` is what paths
/// name that take a UUID, anew for each request. Returns how many requests there were.
///
/// # Panics
///
/// When something is taken or refused that should not be.
pub async fn probe(contract: &Contract, to: SocketAddr, id: impl AsyncFn() -> String) -> usize {
    let (mut asked, mut faults) = (0, Vec::new());
    for operation in contract.operations() {
        for (what, ask, expected) in probes(contract, operation) {
            asked += 1;
            match ask.naming(ID, &id().await).try_send(to, contract).await {
                Ok(reply) if expected.holds(&reply) => {}
                Ok(reply) => faults.push(format!(
                    "{}: {what}: {} {}, expected: {expected:?}",
                    operation.id,
                    reply.status,
                    reply.code()
                )),
                Err(fault) => faults.push(format!("{}: {what}: {fault}", operation.id)),
            }
        }
    }
    assert!(faults.is_empty(), "{} of {asked} probes failed:\n{}", faults.len(), faults.join("\n"));
    asked
}

/// How an answer to a probe must be.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// This status, and this code.
    Is(u16, &'static str),
    /// Refused as malformed or invalid, by whatever code.
    Refused,
    /// Taken: what is refused then is refused for the state.
    Taken,
}

impl Expected {
    fn holds(self, reply: &Reply) -> bool {
        match self {
            Self::Is(status, code) => (reply.status, reply.code().as_str()) == (status, code),
            Self::Refused => matches!(reply.status, 400 | 422),
            // A key that is sound may belong to another request.
            Self::Taken => {
                !matches!(reply.status, 400 | 413 | 415 | 422 | 500) || reply.code() == "idempotency-key-reused"
            }
        }
    }
}

type Probe = (String, Ask, Expected);

fn probes(contract: &Contract, operation: &Operation) -> Vec<Probe> {
    let ask = |target: String| Ask::new(&operation.method, target);
    let sound = operation.sound_path();
    let mut probes = Vec::new();
    let body = operation.body.as_ref().map(|(schema, _)| sample(contract, schema, 0));
    let with_body = |ask: Ask| match &body {
        Some(body) => ask.json(body.to_string()),
        None => ask,
    };
    let target = format!("{sound}?{}", operation.required_query(""));
    probes.push(("a sound request".into(), with_body(ask(target.clone())), Expected::Taken));
    let second_host = ask(target.clone()).header("host", "another.example");
    probes.push(("two hosts".into(), second_host, Expected::Is(400, "invalid-host")));
    let doubtful = ask(target).header("transfer-encoding", "chunked, chunked");
    probes.push(("an unknown length".into(), doubtful, Expected::Is(400, "invalid-header")));
    for parameter in &operation.parameters {
        let name = parameter["name"].as_str().unwrap_or_default();
        for (value, inside) in edges(contract, &parameter["schema"]) {
            let Some(text) = as_text(&value) else { continue };
            let what = format!("{name}={}", text.chars().take(40).collect::<String>());
            match (parameter["in"].as_str(), inside) {
                (Some("path"), false) if !text.is_empty() => {
                    let target = operation.path_with(name, &encode(&text));
                    probes.push((what, with_body(ask(target)), Expected::Is(400, "invalid-id")));
                }
                (Some("query"), inside) => {
                    let required = operation.required_query(name);
                    let target = format!("{sound}?{required}{name}={}", encode(&text));
                    let expected = if inside { Expected::Taken } else { Expected::Is(400, "invalid-query") };
                    probes.push((what, with_body(ask(target)), expected));
                }
                // These two are replaced or ignored where they are malformed.
                (Some("header"), _) if matches!(name, "X-Request-Id" | "traceparent" | "Prefer") => {}
                // A header value cannot hold the one, and loses the other.
                (Some("header"), _) if matches!(text.as_str(), "\u{1}" | " ") => {}
                (Some("header"), inside) => {
                    let target = format!("{sound}?{}", operation.required_query(""));
                    let expected = if inside { Expected::Taken } else { Expected::Refused };
                    probes.push((what, with_body(ask(target)).header(name, text), expected));
                }
                _ => {}
            }
        }
    }
    if operation.parameters.iter().any(|parameter| parameter["in"] == "query") {
        let target = format!("{sound}?{}no_such_parameter=1", operation.required_query(""));
        probes.push(("an unknown parameter".into(), ask(target), Expected::Is(400, "invalid-query")));
    }
    if let Some((schema, optional)) = &operation.body {
        let ask = || ask(sound.clone());
        let large = vec![b' '; TOO_LARGE];
        probes.push(("no JSON".into(), ask().json("{"), Expected::Is(400, "malformed-json")));
        probes.push(("a text".into(), ask().body("text/plain", "{}"), Expected::Is(415, "unsupported-media-type")));
        let zipped = ask().json("{}").header("content-encoding", "gzip");
        probes.push(("zipped".into(), zipped, Expected::Is(415, "unsupported-content-encoding")));
        probes.push(("too large".into(), ask().json(large), Expected::Is(413, "body-too-large")));
        probes.push(("never there".into(), ask().stalled(), Expected::Is(408, "body-too-slow")));
        probes.push(("an array".into(), ask().json("[]"), Expected::Is(422, "invalid-body")));
        probes.push(("null".into(), ask().json("null"), Expected::Is(422, "invalid-body")));
        let absent = if *optional { Expected::Taken } else { Expected::Refused };
        if *optional {
            probes.push(("no body".into(), ask(), absent));
        }
        for (what, body, inside) in bodies(contract, schema) {
            let expected = if inside { Expected::Taken } else { Expected::Refused };
            probes.push((what, ask().json(body.to_string()), expected));
        }
    }
    probes
}

impl Operation {
    /// The path with something sound for each parameter.
    pub fn sound_path(&self) -> String {
        self.path_with("", "")
    }

    fn path_with(&self, name: &str, value: &str) -> String {
        let mut path = self.path.clone();
        for parameter in self.parameters.iter().filter(|parameter| parameter["in"] == "path") {
            let of = parameter["name"].as_str().unwrap_or_default();
            let sound = as_text(&sound(&parameter["schema"])).unwrap_or_default();
            path = path.replace(&format!("{{{of}}}"), if of == name { value } else { &sound });
        }
        path
    }

    /// The parameters that a query must have, but this one.
    pub fn required_query(&self, but: &str) -> String {
        let required =
            self.parameters.iter().filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
        let pairs = required.filter(|parameter| parameter["name"] != but).map(|parameter| {
            let value = as_text(&sound(&parameter["schema"])).unwrap_or_default();
            format!("{}={value}&", parameter["name"].as_str().unwrap_or_default())
        });
        pairs.collect()
    }
}

/// A value that a schema of a single value allows.
fn sound(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].get(0).or_else(|| schema["examples"].get(0)) {
        return first.clone();
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (_, Some("uuid")) => json!(ID),
        (_, Some("date")) => json!("2026-11-28"),
        (_, Some("date-time")) => json!("2026-11-28T12:00:00Z"),
        (Some("integer" | "number"), _) => schema.get("minimum").cloned().unwrap_or(json!(1)),
        (Some("boolean"), _) => json!(true),
        _ if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("{32}")) => json!("0".repeat(32)),
        _ => json!("x"),
    }
}

/// Values at the edges of a schema, and whether they are inside.
fn edges(contract: &Contract, schema: &Value) -> Vec<(Value, bool)> {
    let schema = resolve(contract.components(), schema);
    let mut edges = Vec::new();
    for (name, outwards) in [("minimum", -1), ("maximum", 1)] {
        if let Some(edge) = schema[name].as_i64() {
            edges.extend([(json!(edge), true), (json!(edge + outwards), false)]);
        }
    }
    if let Some(most) = schema["maxLength"].as_u64().and_then(|most| usize::try_from(most).ok())
        && schema["format"].is_null()
    {
        edges.push((json!("x".repeat(most + 1)), false));
        if contract.validator(schema).is_valid(&json!("x".repeat(most))) {
            edges.push((json!("x".repeat(most)), true));
        }
    }
    if schema["enum"].is_array() {
        edges.extend(schema["enum"].as_array().into_iter().flatten().map(|word| (word.clone(), true)));
        edges.push((json!("NO-SUCH-WORD"), false));
    }
    if schema["format"].is_string() && schema["type"] == "string" {
        edges.extend([(sound(schema), true), (json!("x"), false)]);
    }
    if matches!(schema["type"].as_str(), Some("integer" | "boolean")) {
        edges.push((json!("x"), false));
    }
    if schema["pattern"].is_string() {
        // A pattern names the form that is written. Other forms may be read as well, but not these.
        for text in ["", " ", "x", "\u{1}"] {
            edges.push((json!(text), contract.validator(schema).is_valid(&json!(text))));
        }
        for text in ["é", "0", "*", "\"3\"", "W/\"3\", \"4\"", "USD", "15.00"] {
            if contract.validator(schema).is_valid(&json!(text)) {
                edges.push((json!(text), true));
            }
        }
    }
    edges
}

/// A body that a schema allows, with as much as it requires; `nth` makes texts differ.
fn sample(contract: &Contract, schema: &Value, nth: usize) -> Value {
    let schema = resolve(contract.components(), schema);
    if let Some(choice) = schema["oneOf"].get(0) {
        return sample(contract, choice, nth);
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let members = required.map(|name| (name.to_owned(), sample(contract, &schema["properties"][name], nth)));
            Value::Object(members.collect())
        }
        Some("array") => json!([sample(contract, &schema["items"], 0)]),
        Some("string") if nth > 0 => json!(format!("s-{nth}")),
        _ => sound(schema),
    }
}

/// Bodies that differ from a sound one in one place, and whether they are sound.
fn bodies(contract: &Contract, schema: &Value) -> Vec<(String, Value, bool)> {
    let schema = resolve(contract.components(), schema);
    let sound = sample(contract, schema, 0);
    let mut bodies = vec![("a sound body".to_owned(), sound.clone(), true)];
    let with = |name: &str, value: Value| {
        let mut members = sound.as_object().cloned().unwrap_or_default();
        members.insert(name.to_owned(), value);
        Value::Object(members)
    };
    bodies.push(("an unknown member".to_owned(), with("no_such_member", json!(1)), false));
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let members: Map<_, _> = sound
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(of, _)| *of != name)
            .map(|(of, value)| (of.clone(), value.clone()))
            .collect();
        bodies.push((format!("no {name}"), Value::Object(members), false));
        bodies.push((format!("{name} is null"), with(name, Value::Null), false));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let property = resolve(contract.components(), property);
        let choices = property["oneOf"].as_array().cloned().unwrap_or_else(|| vec![property.clone()]);
        for choice in &choices {
            let choice = resolve(contract.components(), choice);
            for (value, inside) in edges(contract, choice) {
                // What one choice refuses another may take.
                if inside || choices.len() == 1 || !contract.validator(property).is_valid(&value) {
                    let inside = inside && contract.validator(property).is_valid(&value);
                    bodies.push((format!("{name}: {value}"), with(name, value), inside));
                }
            }
            if choice["type"] == "array" {
                for (count, inside) in array_edges(choice) {
                    let items = (1..=count).map(|nth| sample(contract, &choice["items"], nth));
                    bodies.push((format!("{count} {name}"), with(name, items.collect()), inside));
                }
                for (what, item, inside) in bodies_of_item(contract, &choice["items"]) {
                    bodies.push((format!("{name}/0: {what}"), with(name, json!([item])), inside));
                }
            }
        }
    }
    bodies
}

fn bodies_of_item(contract: &Contract, schema: &Value) -> Vec<(String, Value, bool)> {
    match resolve(contract.components(), schema)["type"].as_str() {
        Some("object") => bodies(contract, schema),
        _ => Vec::new(),
    }
}

fn array_edges(schema: &Value) -> Vec<(usize, bool)> {
    let edge = |name: &str| schema[name].as_u64().and_then(|edge| usize::try_from(edge).ok());
    let mut edges = Vec::new();
    if let Some(least) = edge("minItems").filter(|least| *least > 0) {
        edges.extend([(least, true), (least - 1, false)]);
    }
    if let Some(most) = edge("maxItems") {
        edges.extend([(most, true), (most + 1, false)]);
    }
    edges
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
