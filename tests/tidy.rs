//! What the house promises about itself: arrows, names, pages and golden files. Needs no server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's way to fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use domain::schema::{self, Origin};
use serde::Deserialize;
use serde_json::Value;

/// Longer files are two files.
const FILE_LINES_MAX: usize = 400;

/// The members whose `src` a program is made of.
const MEMBERS: [&str; 5] = ["domain", "chassis", "command", "query", "dev"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below a directory with its text, by its path from the root.
fn sources(directory: &str) -> BTreeMap<String, String> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), found);
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    collect(&root().join(directory), &mut found);
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let text = fs::read_to_string(path).unwrap();
        (name, text)
    };
    found.into_iter().map(named).collect()
}

/// The sources of all programs.
fn programs() -> BTreeMap<String, String> {
    MEMBERS.iter().flat_map(|member| sources(&format!("{member}/src"))).collect()
}

/// The code of a file without its comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The files whose code has `word` in it, other than those that may.
fn trespassers(word: &str, may: impl Fn(&str) -> bool) -> Vec<String> {
    let found = programs().into_iter().filter(|(name, text)| !may(name) && code(text).any(|line| line.contains(word)));
    found.map(|(name, _)| name).collect()
}

#[test]
fn arrows_point_from_services_to_domain_and_chassis() {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        dependencies: Vec<Dependency>,
    }
    #[derive(Deserialize)]
    struct Dependency {
        name: String,
        path: Option<PathBuf>,
    }
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: Metadata = serde_json::from_slice(&cargo.stdout).unwrap();
    let mut members = BTreeSet::new();
    for Package { name, dependencies } in metadata.packages {
        let allowed: &[&str] = match name.as_str() {
            "domain" | "chassis" => &[],
            "command" | "query" => &["domain", "chassis"],
            "dev" => &["chassis"],
            "tests" => &["domain", "chassis", "command", "query", "dev"],
            other => panic!("{other} is new: draw its arrows here"),
        };
        for dependency in dependencies {
            let ours = dependency.path.is_some();
            // A member may name itself: for its own tests, with a feature more.
            let allowed = dependency.name == name || allowed.contains(&dependency.name.as_str());
            assert!(!ours || allowed, "{name} → {}", dependency.name);
            let kafka = dependency.name == "rdkafka";
            assert!(!kafka || name == "chassis" || name == "tests", "{name} → rdkafka");
        }
        members.insert(name);
    }
    assert_eq!(members.len(), MEMBERS.len() + 1);
}

#[test]
fn only_chassis_names_the_kafka_client() {
    // With a colon: the name of the library behind it may be spoken.
    assert_eq!(trespassers("rdkafka::", |name| name.starts_with("chassis/src/kafka")), [""; 0]);
}

#[test]
fn only_config_reads_the_environment() {
    let may = |name: &str| name.ends_with("/config.rs") || name == "chassis/src/testkit.rs";
    assert_eq!(trespassers("std::env", may), [""; 0]);
    assert_eq!(trespassers("env::var", may), [""; 0]);
}

#[test]
fn status_codes_are_a_matter_of_the_edge() {
    let may = |name: &str| {
        let edges = ["/src/api/", "/src/api.rs", "/src/admin/", "/src/admin.rs"];
        edges.iter().any(|edge| name.contains(edge)) || name.starts_with("chassis/src/http")
    };
    assert_eq!(trespassers("StatusCode", may), [""; 0]);
}

#[test]
fn no_file_is_too_long() {
    for (name, text) in MEMBERS.iter().chain(&["tests"]).flat_map(|member| sources(member)) {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines");
    }
}

/// The string literals that follow `before` in code without white space, up to what ends them.
fn literals_after<'t>(squeezed: &'t str, before: &str) -> Vec<&'t str> {
    squeezed.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// The codes of the problems that the sources can answer with.
fn problem_codes() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for (name, text) in programs() {
        // What a test makes up is nobody's answer.
        let text = text.split("#[cfg(test)]").next().unwrap();
        let squeezed: String = code(text).flat_map(str::chars).filter(|letter| !letter.is_whitespace()).collect();
        if name == "domain/src/order/rejection.rs" {
            codes.extend(literals_after(&squeezed, "=>\"").into_iter().map(str::to_owned));
        }
        // Problem::new(StatusCode::X,"code", and what wraps it.
        for constructor in ["Problem::new(StatusCode::", "problem(StatusCode::"] {
            for rest in squeezed.split(constructor).skip(1) {
                let literal = rest.split_once(",\"").and_then(|(status, rest)| {
                    let constant = status.chars().all(|letter| letter == '_' || letter.is_ascii_uppercase());
                    constant.then(|| rest.split('"').next()).flatten()
                });
                codes.extend(literal.map(str::to_owned));
            }
        }
        for wrapper in ["unavailable(\"", "refused(\"invalid-"] {
            let prefix = wrapper.split_once('"').unwrap().1;
            codes.extend(literals_after(&squeezed, wrapper).into_iter().map(|literal| format!("{prefix}{literal}")));
        }
    }
    codes.retain(|code| !code.is_empty() && code.chars().all(|letter| letter == '-' || letter.is_ascii_lowercase()));
    codes
}

#[test]
fn every_problem_has_a_page_and_every_page_a_problem() {
    let pages: BTreeSet<String> = chassis::http::errors::codes().collect();
    let codes = problem_codes();
    assert!(codes.len() > 20, "the search finds too little: {codes:?}");
    assert_eq!(codes.difference(&pages).collect::<Vec<_>>(), Vec::<&String>::new(), "no page in docs/errors");
    let all: String = programs().into_values().collect();
    let orphans: Vec<_> = pages.iter().filter(|code| !all.contains(&format!("\"{code}\""))).collect();
    assert_eq!(orphans, Vec::<&String>::new(), "nobody answers with these");
}

#[test]
fn every_metric_is_in_the_operators_book() {
    let book = read("docs/OPERATIONS.md");
    let mut names = BTreeSet::new();
    for file in ["command/src/metrics.rs", "query/src/metrics.rs"] {
        let text = read(file);
        let constants = text.lines().filter(|line| line.contains("const ") && line.contains(": &str = \""));
        names.extend(constants.map(|line| line.split('"').nth(1).unwrap().to_owned()));
    }
    assert!(names.len() > 20, "the search finds too little: {names:?}");
    for (_, text) in sources("chassis/src") {
        let text = text.split("#[cfg(test)]").next().unwrap();
        for kind in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
            names.extend(literals_after(text, kind).into_iter().map(str::to_owned));
        }
    }
    let missing: Vec<_> = names.iter().filter(|name| !book.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, Vec::<&String>::new(), "not in docs/OPERATIONS.md");
}

#[test]
fn every_golden_file_is_what_its_name_says_and_can_be_read() {
    #[derive(Deserialize)]
    struct Said {
        event_type: String,
        schema_version: Option<u16>,
    }
    let mut read = 0;
    for entry in fs::read_dir(root().join("domain/golden/order")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let (event_type, rest) = name.split_once(".v").unwrap_or_else(|| panic!("{name} is not Type.vN.json"));
        let version: u16 = rest.strip_suffix(".json").unwrap().parse().unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let said: Said = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((said.event_type.as_str(), said.schema_version.unwrap_or(1)), (event_type, version), "{name}");
        let decoded = schema::decode(&bytes, "USD".parse().unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded.recorded.event.event_type(), event_type);
        let foreign = said.schema_version.is_none();
        assert_eq!(decoded.origin, if foreign { Origin::PublishedFieldsOnly } else { Origin::Log }, "{name}");
        read += 1;
    }
    assert!(read >= 8, "only {read} golden files");
}

/// Compares a description with the committed one; `UPDATE_OPENAPI=1` writes it instead.
fn is_committed(name: &str, described: &str) {
    #[expect(clippy::disallowed_methods, reason = "a switch of this test run")]
    let update = std::env::var("UPDATE_OPENAPI").is_ok_and(|update| update == "1");
    let path = format!("docs/openapi/{name}.json");
    let described = format!("{described}\n");
    if update {
        fs::create_dir_all(root().join("docs/openapi")).unwrap();
        fs::write(root().join(&path), described).unwrap();
        return;
    }
    let committed = fs::read_to_string(root().join(&path)).unwrap_or_default();
    let differs = committed.lines().zip(described.lines()).enumerate().find(|(_, (old, new))| old != new);
    assert!(
        committed == described,
        "{path} is not what the code says; first difference: {differs:?}\n\
         If the API is meant to change: UPDATE_OPENAPI=1 cargo test -p tests --test tidy"
    );
}

#[test]
fn the_description_of_order_command_is_committed() {
    is_committed("command", &command::api::openapi().to_pretty_json().unwrap());
}

#[test]
fn the_descriptions_of_order_query_are_committed() {
    is_committed("query", &query::api::openapi().to_pretty_json().unwrap());
    is_committed("query-admin", &query::admin::openapi().to_pretty_json().unwrap());
}

/// The codes that the descriptions name.
fn documented_codes() -> BTreeSet<String> {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        let codes = value["properties"]["code"]["enum"].as_array().into_iter().flatten();
        found.extend(codes.filter_map(|code| code.as_str().map(str::to_owned)));
        match value {
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Object(members) => members.values().for_each(|member| collect(member, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for document in [command::api::openapi(), query::api::openapi(), query::admin::openapi()] {
        collect(&serde_json::to_value(document).unwrap(), &mut found);
    }
    found
}

#[test]
fn every_code_with_a_page_is_in_a_description_and_every_described_code_has_a_page() {
    // Answers to what no description has: another address, another method, an order whose id was given out twice.
    let elsewhere = ["not-found", "method-not-allowed", "order-already-exists"];
    let pages: BTreeSet<String> = chassis::http::errors::codes().collect();
    let documented = documented_codes();
    assert_eq!(documented.difference(&pages).collect::<Vec<_>>(), Vec::<&String>::new(), "no page in docs/errors");
    let missing: Vec<_> = pages.difference(&documented).filter(|code| !elsewhere.contains(&code.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new(), "in no description: add them to the tables in `api/describe.rs`");
}
