//! Services that keep one record for each thread, kept by small services that answer as those do.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

#[path = "support/peers.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use backstay_notify::Kind;
use backstay_testkit::{Answer, HttpSink, Received};
use peers::{all, deliver, name, notice};
use serde_json::{Value, json};

/// Issues of GitHub, and of Jira, and incidents of a page, kept by small services that answer as those do.
#[derive(Default)]
struct Records(Mutex<BTreeMap<u64, (Value, Vec<Value>)>>);

impl Records {
    fn github(&self, request: &Received) -> Answer {
        let mut issues = self.0.lock().unwrap();
        let path = request.path.split('?').next().unwrap().trim_start_matches("/repos/o/r/issues").to_owned();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let number = parts.first().and_then(|number| number.parse().ok()).unwrap_or(0);
        match (request.method.as_str(), parts.len()) {
            ("GET", 0) => {
                Answer::ok(Value::from_iter(issues.values().map(|(issue, _)| issue.clone())).to_string())
            }
            ("POST", 0) => {
                let number = issues.len() as u64 + 1;
                let mut issue = request.json();
                issue["number"] = json!(number);
                issues.insert(number, (issue.clone(), Vec::new()));
                Answer::Status(201, Vec::new(), issue.to_string())
            }
            ("GET", 1) => Answer::ok(issues[&number].0.to_string()),
            ("PATCH", 1) => {
                issues.get_mut(&number).unwrap().0["state"] = request.json()["state"].clone();
                Answer::ok("{}")
            }
            ("GET", 2) => Answer::ok(Value::from(issues[&number].1.clone()).to_string()),
            ("POST", 2) => {
                issues.get_mut(&number).unwrap().1.push(request.json());
                Answer::Status(201, Vec::new(), "{}".to_owned())
            }
            _ => Answer::status(404),
        }
    }

    fn statuspage(&self, request: &Received) -> Answer {
        let mut incidents = self.0.lock().unwrap();
        let (method, is_one) = (request.method.as_str(), request.path.ends_with("/1"));
        let update = |incident: &Value| json!({ "body": incident["body"], "status": incident["status"] });
        match (method, is_one) {
            ("GET", false) => Answer::ok(
                Value::from_iter(incidents.values().map(|(incident, _)| incident.clone())).to_string(),
            ),
            ("POST", false) => {
                let mut incident = request.json()["incident"].clone();
                incident["id"] = json!("1");
                incident["incident_updates"] = json!([update(&incident)]);
                let next = incidents.len() as u64 + 1;
                incidents.insert(next, (incident.clone(), Vec::new()));
                Answer::Status(201, Vec::new(), incident.to_string())
            }
            ("GET", true) => Answer::ok(incidents[&1].0.to_string()),
            ("PATCH", true) => {
                let change = request.json()["incident"].clone();
                let incident = &mut incidents.get_mut(&1).unwrap().0;
                incident["status"] = change["status"].clone();
                incident["incident_updates"].as_array_mut().unwrap().push(update(&change));
                Answer::ok("{}")
            }
            _ => Answer::status(404),
        }
    }

    fn jira(&self, request: &Received) -> Answer {
        let mut issues = self.0.lock().unwrap();
        let path = request.path.split('?').next().unwrap().trim_start_matches("/rest/api/3/");
        match (request.method.as_str(), path) {
            ("POST", "search/jql") => {
                let jql = request.json()["jql"].as_str().unwrap().to_owned();
                let fits = |issue: &Value| issue["fields"]["labels"].as_array().unwrap().iter().any(|label| label != "backstay" && jql.contains(label.as_str().unwrap()));
                let found: Vec<Value> = issues.values().filter(|(issue, _)| fits(issue)).map(|_| json!({ "key": "OPS-1" })).collect();
                Answer::ok(json!({ "issues": found }).to_string())
            }
            ("POST", "issue") => {
                let next = issues.len() as u64 + 1;
                issues.insert(next, (request.json(), Vec::new()));
                Answer::Status(201, Vec::new(), json!({ "key": format!("OPS-{next}") }).to_string())
            }
            ("GET", "issue/OPS-1") => Answer::ok(issues[&1].0.to_string()),
            ("GET", "issue/OPS-1/comment") => Answer::ok(json!({ "comments": issues[&1].1 }).to_string()),
            ("POST", "issue/OPS-1/comment") => {
                issues.get_mut(&1).unwrap().1.push(request.json());
                Answer::Status(201, Vec::new(), "{}".to_owned())
            }
            ("GET", "issue/OPS-1/transitions") => Answer::ok(
                json!({ "transitions": [{ "id": "11", "to": { "statusCategory": { "key": "new" } } }, { "id": "31", "to": { "statusCategory": { "key": "done" } } }] }).to_string(),
            ),
            ("POST", "issue/OPS-1/transitions") => {
                issues.get_mut(&1).unwrap().0["state"] = request.json()["transition"]["id"].clone();
                Answer::status(204)
            }
            _ => Answer::status(404),
        }
    }
}

/// Everything is sent twice without a memory, as after a kill: one record, one entry each, closed at the end.
#[tokio::test]
async fn trackers_find_what_they_created_before_they_create_it_again() {
    for (kind, make, _) in
        all().into_iter().filter(|(kind, ..)| matches!(*kind, "github" | "jira" | "statuspage"))
    {
        let records = Arc::new(Records::default());
        let of_script = Arc::clone(&records);
        let sink = HttpSink::start(move |request, _| match kind {
            "github" => of_script.github(request),
            "jira" => of_script.jira(request),
            _ => of_script.statuspage(request),
        })
        .unwrap();
        let channel = make(&sink.url(""));
        // The second beginning is that it became worse.
        let kinds = [Kind::Opened, Kind::Update, Kind::Opened, Kind::Resolved];
        for (number, of) in kinds.into_iter().enumerate() {
            for _ in 0..2 {
                let outcome = deliver(channel.as_ref(), &notice(of, number), None).await;
                assert_eq!(name(&outcome), "accepted", "{kind}: {outcome:?}");
            }
        }
        // Comments are asked for by the clock of the service, which may be behind.
        let paths: Vec<String> = sink.received().into_iter().map(|request| request.path).collect();
        let since = paths.iter().filter(|path| path.contains("since="));
        assert!(since.clone().all(|path| path.ends_with("since=2027-01-15T06:00:00Z")), "{paths:?}");
        let records = records.0.lock().unwrap();
        assert_eq!(records.len(), 1, "{kind}");
        let (record, entries) = &records[&1];
        let entries = if kind == "statuspage" {
            record["incident_updates"].as_array().unwrap().len() - 1
        } else {
            entries.len()
        };
        assert_eq!(entries, 3, "{kind}");
        let end = if kind == "statuspage" { &record["status"] } else { &record["state"] };
        assert!(["closed", "31", "resolved"].contains(&end.as_str().unwrap()), "{kind}: {end}");
    }
}
