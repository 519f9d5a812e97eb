//! An OpenAPI document held against the answers of a running service, in both directions: every answer must be
//! documented, and what is documented must have been answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use jsonschema::Validator;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

/// Response headers that an answer has only where they are documented.
const HEADERS: [&str; 8] = [
    "cache-control",
    "etag",
    "idempotency-replayed",
    "link",
    "location",
    "retry-after",
    "x-request-id",
    "x-total-count",
];

/// A method on a path of the document.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its unique id.
    pub id: String,
    /// In upper case.
    pub method: String,
    /// With parameters in braces.
    pub path: String,
    /// Its parameters, whole.
    pub parameters: Vec<Value>,
    /// The schema of its body, and whether the body may be absent.
    pub body: Option<(Value, bool)>,
    responses: BTreeMap<u16, Value>,
}

/// What was answered: the operation's id, the status, and the problem's code or a header's name.
type Seen = (String, u16, String);

/// A document and what has been seen of it.
#[derive(Debug)]
pub struct Contract {
    components: Value,
    operations: Vec<Operation>,
    seen: Mutex<BTreeSet<Seen>>,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Contract {
    /// A document of which nothing has been seen.
    ///
    /// # Panics
    ///
    /// When the document is no sound one: an id that occurs twice, a reference to nothing.
    pub fn of(document: &OpenApi) -> Self {
        let document = serde_json::to_value(document).unwrap_or_else(|error| panic!("{error}"));
        let components = document["components"].clone();
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                operations.push(Operation::read(path, method, operation, &components));
            }
        }
        let ids: BTreeSet<_> = operations.iter().map(|operation| &operation.id).collect();
        assert_eq!(ids.len(), operations.len(), "an operation's id occurs twice: {ids:?}");
        Self { components, operations, seen: Mutex::default(), validators: Mutex::default() }
    }

    /// The operations.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The validator of a schema of this document; building one takes long, and each is asked often.
    pub(super) fn validator(&self, schema: &Value) -> Arc<Validator> {
        let mut built = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(built.entry(schema.to_string()).or_insert_with(|| Arc::new(self.build(schema))))
    }

    fn build(&self, schema: &Value) -> Validator {
        let whole = json!({ "allOf": [schema], "components": self.components });
        let built = jsonschema::draft202012::options().should_validate_formats(true).build(&whole);
        built.unwrap_or_else(|error| panic!("{error} in {schema}"))
    }

    /// Holds an answer against the document; tells whether it has an operation for the request.
    ///
    /// # Errors
    ///
    /// What the document does not allow.
    pub fn check(
        &self,
        method: &str,
        target: &str,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<bool, String> {
        let path = target.split('?').next().unwrap_or_default();
        let Some(operation) = self.find(method, path) else { return Ok(false) };
        let fault = self.fault(operation, status, headers, body);
        let shown = String::from_utf8_lossy(body.get(..500).unwrap_or(body));
        fault.map_or(Ok(true), |fault| Err(format!("{method} {target} → {status}: {fault}: {shown}")))
    }

    fn fault(&self, operation: &Operation, status: u16, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let Some(response) = operation.responses.get(&status) else { return Some("undocumented status".to_owned()) };
        let content_type = text_of(headers, "content-type").unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default();
        match (response["content"].as_object(), response["content"].get(content_type)) {
            (None, _) if !body.is_empty() => return Some("undocumented body".to_owned()),
            (Some(_), None) => return Some(format!("undocumented content type {content_type:?}")),
            (Some(_), Some(content)) if content_type != "text/event-stream" => {
                let Ok(body) = serde_json::from_slice::<Value>(body) else { return Some("no JSON".to_owned()) };
                if let Some(fault) = self.validator(&content["schema"]).iter_errors(&body).next() {
                    return Some(format!("{fault} at {:?}", fault.instance_path().to_string()));
                }
                self.saw(operation, status, body["code"].as_str().filter(|_| status >= 400).unwrap_or_default());
            }
            _ => self.saw(operation, status, ""),
        }
        self.header_fault(operation, status, headers, response)
    }

    fn header_fault(
        &self,
        operation: &Operation,
        status: u16,
        headers: &HeaderMap,
        response: &Value,
    ) -> Option<String> {
        let documented = response["headers"].as_object().into_iter().flatten();
        let documented: BTreeMap<String, &Value> =
            documented.map(|(name, header)| (name.to_ascii_lowercase(), resolve(&self.components, header))).collect();
        for (name, header) in &documented {
            let Some(text) = text_of(headers, name) else {
                match header["required"] == true || (status == 503 && name == "retry-after") {
                    true => return Some(format!("{name} is missing")),
                    false => continue,
                }
            };
            let is_whole = header["schema"]["type"] == "integer";
            let value = if is_whole { text.parse::<i64>().map_or(Value::Null, Value::from) } else { text.into() };
            if !self.validator(&header["schema"]).is_valid(&value) {
                return Some(format!("{name} is {text:?}"));
            }
            self.saw(operation, status, &format!("header {name}"));
        }
        let undocumented = HEADERS.iter().find(|name| headers.contains_key(**name) && !documented.contains_key(**name));
        undocumented.map(|name| format!("undocumented header {name}"))
    }

    /// What is documented and was never answered: successes, codes of problems, and headers of successes.
    pub fn unseen(&self) -> BTreeSet<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unseen = BTreeSet::new();
        for operation in &self.operations {
            for (status, response) in &operation.responses {
                let codes = response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]
                    ["enum"]
                    .as_array();
                let mut expected: Vec<String> = match codes {
                    Some(codes) => codes.iter().filter_map(|code| code.as_str().map(str::to_owned)).collect(),
                    None => vec![String::new()],
                };
                if *status < 400 {
                    let headers = response["headers"].as_object().into_iter().flatten();
                    expected.extend(headers.map(|(name, _)| format!("header {}", name.to_ascii_lowercase())));
                }
                for what in expected {
                    if !seen.contains(&(operation.id.clone(), *status, what.clone())) {
                        unseen.insert(format!("{} {status} {what}", operation.id).trim_end().to_owned());
                    }
                }
            }
        }
        unseen
    }

    fn saw(&self, operation: &Operation, status: u16, what: &str) {
        let seen = (operation.id.clone(), status, what.to_owned());
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(seen);
    }

    /// The operation of a request; literal paths come before those with parameters.
    fn find(&self, method: &str, path: &str) -> Option<&Operation> {
        let fits = |operation: &&Operation| {
            let (template, path): (Vec<_>, Vec<_>) = (operation.path.split('/').collect(), path.split('/').collect());
            let fit = |(part, asked): (&&str, &&str)| (part.starts_with('{') && !asked.is_empty()) || part == asked;
            operation.method == method && template.len() == path.len() && template.iter().zip(&path).all(fit)
        };
        self.operations.iter().filter(fits).min_by_key(|operation| operation.path.matches('{').count())
    }
}

impl Operation {
    fn read(path: &str, method: &str, operation: &Value, components: &Value) -> Self {
        let list = |name: &str| operation[name].as_array().cloned().unwrap_or_default();
        let body = &operation["requestBody"];
        let schema = &body["content"]["application/json"]["schema"];
        let responses = operation["responses"].as_object().into_iter().flatten();
        Self {
            id: operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no id")).to_owned(),
            method: method.to_uppercase(),
            path: path.to_owned(),
            parameters: list("parameters").iter().map(|parameter| resolve(components, parameter).clone()).collect(),
            body: body.is_object().then(|| (resolve(components, schema).clone(), body["required"] != true)),
            responses: responses
                .map(|(status, response)| {
                    let status = status.parse().unwrap_or_else(|_text| panic!("{status} is no status"));
                    (status, resolve(components, response).clone())
                })
                .collect(),
        }
    }
}

/// What a value refers to, or the value itself.
pub(super) fn resolve<'v>(components: &'v Value, value: &'v Value) -> &'v Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let at = reference.strip_prefix("#/components").unwrap_or_else(|| panic!("{reference} leads elsewhere"));
            components.pointer(at).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
    }
}

impl Contract {
    pub(super) fn components(&self) -> &Value {
        &self.components
    }
}

fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
