//! What the admin API has, as an OpenAPI document: for clients that are made from it, and for people who look for an endpoint.
//! Where a type is what is asked or told, its schema is the type's.

use axum::Json;
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Health, Problem, budgets, page, quotas, requests, targets, usage};
use crate::ledger::Row;
use crate::reload::Reloaded;
use crate::store::Served;

/// `GET /admin/openapi.json`
pub(super) async fn get() -> Response {
    Json(document()).into_response()
}

/// One endpoint.
struct Endpoint {
    path: &'static str,
    method: &'static str,
    does: &'static str,
    /// What may stand in the query.
    asked: Option<Schema>,
    body: Option<Schema>,
    /// What is told: JSON of this schema, where it is JSON.
    told: Option<Schema>,
    /// What else it may be.
    texts: &'static [&'static str],
}

impl Endpoint {
    fn get(path: &'static str, does: &'static str) -> Self {
        Self { path, method: "get", does, asked: None, body: None, told: None, texts: &[] }
    }

    fn post(path: &'static str, does: &'static str) -> Self {
        Self { method: "post", ..Self::get(path, does) }
    }

    fn put(path: &'static str, does: &'static str) -> Self {
        Self { method: "put", ..Self::get(path, does) }
    }

    fn delete(path: &'static str, does: &'static str) -> Self {
        Self { method: "delete", ..Self::get(path, does) }
    }

    fn asking<T: JsonSchema>(self, generator: &mut SchemaGenerator) -> Self {
        Self { asked: Some(T::json_schema(generator)), ..self }
    }

    /// Without these, which are for another endpoint.
    fn without(mut self, names: &[&str]) -> Self {
        let properties = self.asked.as_mut().and_then(|asked| asked.get_mut("properties")?.as_object_mut());
        if let Some(properties) = properties {
            properties.retain(|name, _| !names.contains(&name.as_str()));
        }
        self
    }

    fn taking<T: JsonSchema>(self, generator: &mut SchemaGenerator) -> Self {
        Self { body: Some(generator.subschema_for::<T>()), ..self }
    }

    fn telling<T: JsonSchema>(self, generator: &mut SchemaGenerator) -> Self {
        Self { told: Some(generator.subschema_for::<T>()), ..self }
    }

    fn telling_texts(self, texts: &'static [&'static str]) -> Self {
        Self { texts, ..self }
    }

    fn operation(&self) -> Value {
        let mut operation = json!({
            "summary": self.does,
            "parameters": self.parameters(),
            "responses": {
                "200": {"description": "What was asked for.", "content": self.content()},
                "default": {"$ref": "#/components/responses/Problem"},
            },
        });
        if let (Some(body), Some(operation)) = (&self.body, operation.as_object_mut()) {
            let body = json!({"required": true, "content": {"application/json": {"schema": body}}});
            operation.insert("requestBody".to_owned(), body);
        }
        operation
    }

    /// What may be told, by its kind.
    fn content(&self) -> Map<String, Value> {
        let json = self.told.iter().map(|schema| ("application/json".to_owned(), json!({"schema": schema})));
        json.chain(self.texts.iter().map(|kind| ((*kind).to_owned(), json!({})))).collect()
    }

    /// The query's, and what stands in braces in the path.
    fn parameters(&self) -> Vec<Value> {
        let in_path = self
            .path
            .contains("{id}")
            .then(|| json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}));
        let properties = self.asked.as_ref().and_then(|asked| asked.get("properties")?.as_object());
        let in_query = properties.into_iter().flatten();
        let in_query = in_query.map(|(name, schema)| json!({"name": name, "in": "query", "schema": schema}));
        in_path.into_iter().chain(in_query).collect()
    }
}

fn endpoints(generator: &mut SchemaGenerator) -> Vec<Endpoint> {
    vec![
        Endpoint::get("/metrics", "Counters for Prometheus.").telling_texts(&["text/plain"]),
        Endpoint::get("/healthz", "Whether the process lives.").telling::<Health>(generator),
        Endpoint::get("/readyz", "Whether it takes requests; 503 while it drains.").telling::<Health>(generator),
        Endpoint::get("/admin/openapi.json", "This document.").telling::<Value>(generator),
        Endpoint::get("/admin/v1/config", "The configuration that is served, without its secrets.")
            .telling::<Value>(generator),
        Endpoint::get("/admin/v1/config/history", "The configurations that were served, the newest first.")
            .telling::<Vec<Served>>(generator),
        Endpoint::post("/admin/v1/config/reload", "Reads the configuration's files again; 422 tells what is wrong.")
            .telling::<Reloaded>(generator),
        Endpoint::get("/admin/v1/budgets", "Budgets as they stand, by id.")
            .asking::<page::Asked>(generator)
            .telling::<budgets::Page>(generator),
        Endpoint::put("/admin/v1/budgets/{id}/raise", "Another limit for a budget until a time, over restarts.")
            .taking::<budgets::Raised>(generator)
            .telling::<budgets::Row>(generator),
        Endpoint::delete("/admin/v1/budgets/{id}/raise", "Ends a raise before its time.")
            .telling::<budgets::Row>(generator),
        Endpoint::get("/admin/v1/quotas", "Quotas as they stand, by id.")
            .asking::<page::Asked>(generator)
            .telling::<quotas::Page>(generator),
        Endpoint::get("/admin/v1/targets", "Targets as they are now.").telling::<targets::Page>(generator),
        Endpoint::post("/admin/v1/targets/{id}/reset", "Ends the cooldown of a target, or of all of a credential.")
            .telling::<targets::Page>(generator),
        Endpoint::get("/admin/v1/requests/{id}", "A request's row, and why it went where it went.")
            .telling::<requests::Told>(generator),
        Endpoint::get("/admin/v1/usage", "Sums over rows of the ledger.")
            .asking::<usage::Asked>(generator)
            .without(usage::OF_ROWS)
            .telling::<usage::Told>(generator),
        Endpoint::get("/admin/v1/usage/rows", "Rows, the newest first: a page, or all as lines of JSON or as CSV.")
            .asking::<usage::Asked>(generator)
            .without(usage::OF_SUMS)
            .telling::<usage::Page>(generator)
            .telling_texts(&[usage::LINES, usage::TABLE]),
        Endpoint::get("/admin/v1/usage/rows/{id}", "The row of one request.").telling::<Row<'static>>(generator),
    ]
}

fn document() -> Value {
    // What is told stands in full; what may be left out of a question is no matter of its schema.
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in endpoints(&mut generator) {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(endpoint.method.to_owned(), endpoint.operation());
        }
    }
    let problem = generator.subschema_for::<Problem>();
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Weir's admin API", "version": env!("CARGO_PKG_VERSION")},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": {"Problem": {
                "description": "What is wrong.",
                "content": {"application/json": {"schema": problem}},
            }},
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "`server.admin_token`, where there is one.",
            }},
        },
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use super::*;

    /// What is routed, by the sources: each route's path and methods.
    fn routed() -> BTreeSet<(String, String)> {
        let sources = [include_str!("mod.rs"), include_str!("usage.rs")].concat();
        let routes = sources.split(".route(\"").skip(1).map(|route| route.split_once('"').unwrap());
        let methods = ["get", "post", "put", "delete", "patch"];
        let each = routes.flat_map(|(path, rest)| {
            let handler = rest.split(";\n").next().unwrap().split("\n    }").next().unwrap();
            let of = move |method: &&str| {
                handler.contains(&format!(" {method}(")) || handler.contains(&format!(").{method}("))
            };
            methods.into_iter().filter(of).map(move |method| (path.to_owned(), method.to_owned()))
        });
        each.collect()
    }

    /// Where the router sends this path of the document.
    fn route_of(path: &str, routed: &BTreeSet<(String, String)>) -> String {
        let fits = |route: &&(String, String)| {
            route.0 == path || route.0.strip_suffix("{*rest}").is_some_and(|begin| path.starts_with(begin))
        };
        routed.iter().find(fits).map(|(route, _)| route.clone()).unwrap_or_default()
    }

    #[test]
    fn what_is_routed_is_in_the_document_and_nothing_else() {
        let (routed, document) = (routed(), document());
        let paths = document["paths"].as_object().unwrap().iter();
        let told: BTreeSet<_> = paths
            .flat_map(|(path, methods)| {
                let route = route_of(path, &routed);
                methods.as_object().unwrap().keys().map(move |method| (route.clone(), method.clone()))
            })
            .collect();
        assert!(routed.len() >= 16, "{routed:?}");
        assert_eq!(told, routed);
    }

    #[test]
    fn each_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let references: BTreeSet<_> =
            text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        let parameters = document["paths"]["/admin/v1/usage"]["get"]["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|parameter| parameter["name"] == "by"), "{parameters:?}");
        assert!(parameters.iter().all(|parameter| parameter["name"] != "format"), "{parameters:?}");
    }
}
