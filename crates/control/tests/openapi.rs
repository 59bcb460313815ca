//! `/api/openapi.json` says what the methods take and answer.

mod common;

use axum::http::StatusCode;
use common::{call, get, node, post, post_with};
use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn document() -> Value {
    let (_, router) = node();
    let answer = get(&router, "/api/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    serde_json::from_str(&answer.body).expect("JSON")
}

/// Method, schema of its request, an example of one, schema of its answer.
fn methods(document: &Value) -> Vec<(String, Value, Value, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of = |(path, item): (&String, &Value)| {
        let (post, name) = (&item["post"], path.strip_prefix("/api/").expect("a method"));
        assert_eq!(post["operationId"], json!(name));
        let request = &post["requestBody"]["content"]["application/json"];
        let answer = &post["responses"]["200"]["content"]["application/json"]["schema"];
        (name.to_owned(), request["schema"].clone(), request["example"].clone(), answer.clone())
    };
    paths.iter().map(of).collect()
}

/// A schema of the document, with what it refers to.
fn validator(document: &Value, schema: &Value) -> Validator {
    let schema = json!({"components": document["components"], "allOf": [schema]});
    jsonschema::draft202012::new(&schema).expect("a schema")
}

#[tokio::test]
async fn every_method_is_described_and_every_described_method_exists() {
    let document = document().await;
    assert_eq!(document["info"]["version"], json!(env!("CARGO_PKG_VERSION")));
    let described: BTreeSet<String> = methods(&document).into_iter().map(|(name, ..)| name).collect();
    let page = include_str!("../../../docs/api.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(described, documented, "the table of methods in docs/api.md");
    let (_, router) = node();
    for name in &described {
        let answer = post(&router, &format!("/api/{name}"), "7").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name} is not there, or takes a number");
    }
    assert_eq!(post(&router, "/api/none", "7").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn examples_fit_their_schemas_and_so_do_their_answers() {
    let document = document().await;
    let (_, router) = node();
    for (name, request, example, answer) in methods(&document) {
        assert!(validator(&document, &request).is_valid(&example), "{name}: {example}");
        let fits = validator(&document, &answer);
        let told: Value = serde_json::from_str(&call(&router, &name, &example.to_string()).await).expect("JSON");
        assert!(told["result"].is_object(), "{name}: {told}");
        let errors: Vec<String> = fits.iter_errors(&told).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {told}: {errors:?}");
        let mut more = told.clone();
        more["result"]["more"] = json!(1);
        assert!(!fits.is_valid(&more), "{name}: the schema takes anything");
        let error = json!({"error": {"code": 102, "message": "unknown channel"}});
        assert!(fits.is_valid(&error) && !fits.is_valid(&json!({"error": {"code": 102}})), "{name}: errors");
    }
    for (name, wrong) in [("publish", json!({"channel": "none:1", "data": 1})), ("history", json!({"channel": "news"}))]
    {
        let told: Value = serde_json::from_str(&call(&router, name, &wrong.to_string()).await).expect("JSON");
        let answer = methods(&document).into_iter().find(|(found, ..)| found == name).expect("described").3;
        assert!(told["error"].is_object() && validator(&document, &answer).is_valid(&told), "{told}");
    }
}

#[tokio::test]
async fn every_described_field_is_read() {
    let document = document().await;
    let (_, router) = node();
    let mut tried = 0;
    for (name, request, example, _) in methods(&document) {
        for (field, schema) in request["properties"].as_object().into_iter().flatten() {
            // What may be any JSON cannot be of a wrong type.
            let Some(kind) = schema["type"].as_str() else { continue };
            let mut wrong = example.clone();
            wrong[field] = if kind == "object" { json!("wrong") } else { json!({"wrong": 1}) };
            assert!(!validator(&document, &request).is_valid(&wrong), "{name}.{field}");
            let answer = post(&router, &format!("/api/{name}"), wrong.to_string()).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}.{field} is not read");
            tried += 1;
        }
        let mut unknown = example.clone();
        unknown["nothing"] = json!({"wrong": 1});
        let answer = post(&router, &format!("/api/{name}"), unknown.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: what is unknown is ignored");
    }
    assert!(tried > 40, "{tried} fields");
}

#[tokio::test]
async fn what_has_to_be_there_is_what_the_methods_want() {
    let document = document().await;
    let (_, router) = node();
    let (mut taken, mut refused) = (0, 0);
    for (name, request, example, _) in methods(&document) {
        for field in example.as_object().expect("an object").keys() {
            let mut without = example.clone();
            without.as_object_mut().expect("an object").remove(field);
            let told: Value = serde_json::from_str(&call(&router, &name, &without.to_string()).await).expect("JSON");
            let is_taken = told["result"].is_object();
            assert_eq!(validator(&document, &request).is_valid(&without), is_taken, "{name} without {field}: {told}");
            *(if is_taken { &mut taken } else { &mut refused }) += 1;
        }
    }
    assert!(taken > 2 && refused > 10, "{taken} {refused}");
}

#[tokio::test]
async fn the_description_needs_no_key_and_the_methods_do() {
    let (_, router) = node();
    let without = async |path: &str| post_with(&router, path, &[], "{}").await.status;
    assert_eq!(get(&router, "/api/openapi.json").await.status, StatusCode::OK);
    assert_eq!(without("/api/openapi.json").await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(without("/api/info").await, StatusCode::UNAUTHORIZED);
}
